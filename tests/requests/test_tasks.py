"""A request finds its task by the model and by what is given, and its fields reach the task."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.inference import model as parts_of
from ldm_jax.inference.settings import Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines.image_to_image import image_to_image
from ldm_jax.pipelines.text_to_image import text_to_image
from ldm_jax.requests import tasks
from ldm_jax.requests.files import load_image
from ldm_jax.requests.request import Request
from tests.checkpoints import folders
from tests.pipelines import pairs

EDIT = 'StableDiffusionInstructPix2PixPipeline'
TEXT, INPAINT = 'StableDiffusionPipeline', 'StableDiffusionInpaintPipeline'


def described(name):
    return parts_of.from_settings(folders.TINY[name])


@pytest.mark.parametrize(
    ('name', 'given', 'task'),
    [
        (TEXT, {}, 'text_to_image'),
        (TEXT, dict(init_image='x'), 'image_to_image'),
        (TEXT, dict(init_image='x', strength=0.5), 'image_to_image'),
        (TEXT, dict(init_image='x', mask='x', mask_blur=2.0), 'inpaint'),
        (TEXT, dict(init_image='x', outpaint=(8, 0, 0, 0)), 'outpaint'),
        (TEXT, dict(hires_scale=2.0, strength=0.5), 'hires'),
        (TEXT, dict(refiner='x', refiner_start=0.7), 'refine'),
        (INPAINT, dict(init_image='x', mask='x'), 'inpaint'),
        ('StableDiffusionDepth2ImgPipeline', dict(init_image='x', depth='x'), 'depth_to_image'),
        ('StableDiffusionXLPipeline', dict(original_size=(64, 64)), 'text_to_image'),
        (EDIT, dict(init_image='x'), 'edit'),
        ('StableDiffusionUpscalePipeline', dict(init_image='x', noise_level=20), 'upscale'),
        ('StableUnCLIPImg2ImgPipeline', dict(init_image='x'), 'variations'),
        ('LDMPipeline', {}, 'unconditional'),
        ('LDMSuperResolutionPipeline', dict(init_image='x'), 'super_resolution'),
    ],
)
def test_the_task_is_the_one_that_the_model_and_the_fields_are_for(name, given, task):
    assert tasks.task_of(described(name), Request(**given)) == task


@pytest.mark.parametrize(
    ('name', 'given', 'message'),
    [
        (INPAINT, {}, r"has nothing more, .*inpaint needs \['init_image', 'mask'\]"),
        (
            TEXT,
            dict(depth='x'),
            r"has \['depth'\], which is none of its tasks: text_to_image needs nothing more",
        ),
        (EDIT, dict(init_image='x', prompts=('a AND b',)), r"\['AND'\] does not go with"),
        (TEXT, dict(crop_top_left=(1, 2)), r"\['crop_top_left'\]: this model is told no sizes"),
        ('LDMPipeline', dict(init_image='x'), r"told nothing, and the request has \['init_image'\]"),
    ],
)
def test_what_fits_nothing_is_told_what_would(name, given, message):
    with pytest.raises(ValueError, match=message):
        tasks.task_of(described(name), Request(**given))


def test_models_have_a_guidance_scale_of_their_own_or_of_their_kind():
    assert tasks.guidance_scale(described(TEXT), Request()) == 7.5
    assert tasks.guidance_scale(described(TEXT), Request(), 2.0) == 2.0
    assert tasks.guidance_scale(described(TEXT), Request(guidance_scale=3.0), 2.0) == 3.0
    assert tasks.guidance_scale(described(TEXT), Request(weak_model='x'), 2.0) is None
    assert tasks.guidance_scale(described('LDMPipeline'), Request()) is None


@pytest.mark.slow
def test_sizes_and_guidance_of_a_request_reach_the_call():
    pipeline = pairs.model('StableDiffusionXLPipeline')
    common = dict(num_steps=2, sampler='ddim', guidance_scale=3.0)
    asked = Request(
        ('a cat :1.5 AND a dog',), width=16, height=32, **common, guidance_rule='projected', apg_eta=0.3,
        apg_threshold=0.5, percentile=0.9, original_size=(24, 8), crop_top_left=(3, 1), negative_target_size=(8, 64),
    )  # fmt: skip
    sampling = Sampling(**common, guidance_rule='projected', apg_eta=0.3, apg_threshold=0.5, percentile=0.9)
    sizes = Sizes((8, 24), (1, 3))
    call = dict(size=(32, 16), sampling=sampling, sizes=sizes)
    negative = Sizes((8, 24), (1, 3), (64, 8))
    expected = text_to_image(pipeline, 'a cat :1.5 AND a dog', negative_sizes=negative, **call)
    found = tasks.run(pipeline, asked)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - text_to_image(pipeline, 'a cat :1.5 AND a dog', **call)).max() > 1e-3


@pytest.mark.slow
def test_a_request_is_the_call_of_its_task(tmp_path):
    pipeline = pairs.model(TEXT)
    asked = Request(
        ('a red cat', 'a dog'), 'blurry', num_images=2, seed=5, sampler='ddim', num_steps=3, width=16
    )
    sampling = Sampling('ddim', num_steps=3)
    expected = text_to_image(
        pipeline,
        ['a red cat', 'a red cat', 'a dog', 'a dog'],
        'blurry',
        size=(16, 16),
        seed=[5, 6, 5, 6],
        sampling=sampling,
    )
    np.testing.assert_array_equal(tasks.run(pipeline, asked), expected)

    path = tmp_path / 'image.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (19, 40, 3), np.uint8)).save(path)
    asked = Request(('a red cat',), sampler='ddim', num_steps=3, init_image=str(path), strength=0.7)
    images = tasks.run(pipeline, asked)
    assert images.shape == (1, 16, 40, 3)  # down to what the model can make
    image = load_image(path, (16, 40))
    expected = image_to_image(pipeline, 'a red cat', image, strength=0.7, sampling=sampling)
    np.testing.assert_array_equal(images, expected)
