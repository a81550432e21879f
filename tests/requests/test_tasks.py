"""A request and a model become one plan, which finds its task, and whose fields reach the call."""

import copy
import dataclasses
import warnings

import numpy as np
import pytest
from PIL import Image

from ldm_jax import knobs
from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.inference.opening import describe
from ldm_jax.inference.settings import Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines.image_to_image import image_to_image
from ldm_jax.pipelines.text_to_image import text_to_image
from ldm_jax.requests import png_settings, tasks
from ldm_jax.requests.files import load_image
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.request import Request
from ldm_jax.requests.resolve import resolve
from tests.checkpoints import folders
from tests.pipelines import pairs

PIXELS = np.zeros((16, 16, 3), np.uint8)
EDIT = 'StableDiffusionInstructPix2PixPipeline'
TEXT, INPAINT = 'StableDiffusionPipeline', 'StableDiffusionInpaintPipeline'


def described(name):
    return describe(Loaded(folders.TINY[name], {}, {}, ''))


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
    assert tasks.task_of(described(name).kind, Request(**given)) == task


@pytest.mark.parametrize(
    ('name', 'given', 'message'),
    [
        (INPAINT, {}, 'not enough for this model: inpaint needs --init_image, --mask; outpaint needs'),
        (TEXT, dict(depth='x'), '^--depth means nothing to .* a text; it is for depth_to_image.$'),
        (
            TEXT,
            dict(strength=0.5),
            '^--strength is not enough .*: hires needs --hires_scale; .*inpaint needs --init_image, --mask',
        ),
        (EDIT, dict(init_image='x', mask='y', depth='z'), '^--mask, --depth mean nothing .*; they are for '),
        (
            'LDMPipeline',
            dict(init_image='x'),
            '--init_image means nothing to this model.* nothing; it is for',
        ),
    ],
)
def test_what_fits_nothing_is_named_with_what_would(name, given, message):
    with pytest.raises(ValueError, match=message) as error:
        tasks.task_of(described(name).kind, Request(**given))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ('name', 'given', 'message'),
    [
        (EDIT, dict(init_image=PIXELS, prompt=('a AND b',)), r"\['AND'\] does not go with"),
        (
            TEXT,
            dict(crop_top_left=(1, 2), prompt=('a',)),
            r"\['crop_top_left'\]: .* not conditioned on sizes",
        ),
        (TEXT, {}, 'text_to_image needs a prompt: give --prompt'),
    ],
)
def test_what_does_not_go_with_the_model_is_named_before_it_is_read(name, given, message):
    def unread():
        raise AssertionError('the model was read')

    with pytest.raises(ValueError, match=message):
        resolve(knobs.make(Request, given), ModelOptions(Loaded(folders.TINY[name], {}, unread, '')))


def scale(name, **given):
    settings = folders.TINY[name] | (dict(guidance_scale=given.pop('own')) if 'own' in given else {})
    request = knobs.make(Request, dict(prompt=('a',)) | given)
    return resolve(request, ModelOptions(Loaded(settings, {}, {}, ''))).sampling.guidance.scale


def test_models_have_a_guidance_scale_of_their_own_or_of_their_kind(tmp_path):
    assert scale(TEXT) == 7.5
    assert scale(TEXT, own=2.0) == 2.0
    assert scale(TEXT, own=2.0, guidance_scale=3.0) == 3.0
    weak = str(tmp_path / 'weak')
    store.save_model(weak, folders.TINY[TEXT], pairs.random_params(folders.TINY[TEXT]))
    assert scale(TEXT, own=2.0, autoguidance_scale=2.0, weak_model=weak) is None
    assert scale(TEXT, guidance_scale=None) is None
    assert scale('LDMPipeline') is None


def made(name, request):
    """Images of a request by the pipeline that other tests compiled, and its plan."""
    settings = pairs.settings_of(name)
    plan = resolve(request, ModelOptions(Loaded(settings, {}, {}, '')))
    return tasks.run(plan, pairs.model(name)), plan


@pytest.mark.slow
def test_sizes_and_guidance_of_a_request_reach_the_call():
    name = 'StableDiffusionXLPipeline'
    knob = dict(guidance_scale=3.0, guidance_rule='projected', apg_eta=0.3, apg_threshold=0.5, percentile=0.9)
    sampling = knobs.make(Sampling, dict(num_steps=2, sampler='ddim') | knob)
    asked = Request(
        ('a cat :1.5 AND a dog',), width=16, height=32, sampling=sampling, original_size=(24, 8),
        crop_top_left=(3, 1), negative_target_size=(8, 64),
    )  # fmt: skip
    sizes = Sizes((8, 24), (1, 3))
    call = dict(size=(32, 16), sampling=sampling, sizes=sizes)
    negative = Sizes((8, 24), (1, 3), (64, 8))
    pipeline = pairs.model(name)
    expected = text_to_image(pipeline, 'a cat :1.5 AND a dog', negative_sizes=negative, **call)
    found, _ = made(name, asked)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - text_to_image(pipeline, 'a cat :1.5 AND a dog', **call)).max() > 1e-3


@pytest.mark.slow
def test_a_request_is_the_call_of_its_task(tmp_path):
    sampling = Sampling('ddim', num_steps=3)
    asked = Request(('a red cat', 'a dog'), 'blurry', num_images=2, seed=5, sampling=sampling, width=16)
    prompts = ['a red cat', 'a red cat', 'a dog', 'a dog']
    call = dict(size=(16, 16), seed=[5, 6, 5, 6], sampling=sampling)
    expected = text_to_image(pairs.model(TEXT), prompts, 'blurry', **call)
    np.testing.assert_array_equal(made(TEXT, asked)[0], expected)

    path = tmp_path / 'image.png'
    pixels = np.random.default_rng(0).integers(0, 256, (19, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    image = load_image(str(path), (16, 24))  # down to what the model can make
    expected = image_to_image(pairs.model(TEXT), 'a red cat', image, strength=0.7, sampling=sampling)
    for source in (str(path), path.read_bytes(), pixels):
        asked = Request(('a red cat',), sampling=sampling, init_image=source, strength=0.7)
        np.testing.assert_array_equal(made(TEXT, asked)[0], expected)


def fitted(side, request, **options):
    image = np.zeros((*side, 3), np.uint8)
    asked = dataclasses.replace(request, init_image=image)
    return resolve(asked, ModelOptions(Loaded(folders.TINY[TEXT], {}, {}, ''), **options)).size


def test_an_image_far_from_the_size_of_the_model_is_fitted_to_it_with_a_word():
    """The model makes 16 x 16."""
    asked = Request(('a',))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert fitted((16, 24), asked) == (16, 24)
        assert fitted((32, 30), asked) == (32, 28)
        assert fitted((256, 256), dataclasses.replace(asked, width=64)) == (64, 64)
        assert fitted((256, 256), asked, window=16) == (256, 256)  # large on purpose
        assert fitted((256, 256), asked, tile=16) == (256, 256)
    with pytest.warns(UserWarning, match='256 x 256, far from the 16 x 16 .* fitted to 16 x 16. --width'):
        assert fitted((256, 256), asked) == (16, 16)
    with pytest.warns(UserWarning, match='fitted to 24 x 8'):
        assert fitted((200, 500), asked) == (8, 24)
    with pytest.warns(UserWarning, match='fitted to 16 x 16'):
        assert fitted((4, 4), asked) == (16, 16)


def test_seed_minus_one_is_drawn_and_known_afterwards():
    model = ModelOptions(Loaded(folders.TINY[TEXT], {}, {}, ''))
    plans = [resolve(Request(('a',), seed=-1, num_images=2), model) for _ in range(2)]
    assert plans[0].seeds != plans[1].seeds
    for plan in plans:
        assert plan.seeds == [plan.request.seed, plan.request.seed + 1]
        assert 0 <= plan.request.seed < 2**32
        assert f'Seed: {plan.request.seed + 1}, ' in png_settings.write(plan.request, 1, (16, 16))


def test_a_model_without_text_encoder_or_first_stage_says_how_to_add_them():
    whole = Loaded(folders.TINY[TEXT], {}, {}, '')
    bare = copy.deepcopy(folders.TINY[TEXT])
    for name in ('text_encoder', 'first_stage'):
        del bare['models'][name]
    del bare['tokenizer'], bare['scaling_factor']
    with pytest.raises(ValueError, match=r"lacks \['first_stage'\].*--vae MODEL"):
        describe(Loaded(bare, {}, {}, ''))
    with pytest.raises(ValueError, match='no text encoder.* texts 16 wide.*--text_encoder MODEL'):
        describe(Loaded(bare, {}, {}, ''), vae=whole)
    found = describe(Loaded(bare, {}, dict(unet='own'), ''), vae=whole, text_encoder=whole)
    assert found.parts == described(TEXT).parts
    assert found.kind == 'text'
    other = Loaded(folders.TINY['StableDiffusionXLPipeline'], {}, {}, '')
    with pytest.raises(ValueError, match='gives vectors 36 wide; the U-Net reads vectors 16 wide'):
        describe(whole, text_encoder=other)
    with pytest.raises(ValueError, match='has no text_encoder to take'):
        describe(whole, text_encoder=Loaded(folders.TINY['LDMPipeline'], {}, {}, ''))
    with pytest.raises(ValueError, match='makes latents of 3 channels; the U-Net works on 4'):
        describe(whole, vae=Loaded(folders.TINY['LDMPipeline'], {}, {}, ''))


def test_parts_of_other_models_take_the_place_of_its_own():
    settings = folders.TINY[TEXT]
    own = Loaded(settings, {}, dict(unet=1, first_stage=2, text_encoder=3), '')
    other = Loaded(settings, {}, dict(unet=4, first_stage=5, text_encoder=6), '')
    assert describe(own, vae=other).read(None) == dict(unet=1, first_stage=5, text_encoder=3)
    assert describe(own, text_encoder=other).read(None) == dict(unet=1, first_stage=2, text_encoder=6)
    assert describe(own, weak_model=other).read(None) == own.params | dict(weak_model=4)
