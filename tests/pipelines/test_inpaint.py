"""Inpainting against diffusers' with the same weights and noise, and what its own arguments mean."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines import masks as masking
from ldm_jax.pipelines.image_to_image import image_to_image
from ldm_jax.pipelines.inpaint import inpaint
from tests.pipelines import pairs

PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=4, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 16, 32, 3)).astype(np.float32)
MASKS = np.zeros((2, 16, 32, 1), np.float32)
MASKS[0, 3:11, 5:21] = 1  # not along the latents' borders
MASKS[1, 6:, 9:] = 0.7
MASKS[1, :6] = 0.3
BOX = np.zeros((16, 32, 1), np.float32)
BOX[4:12, 8:20] = 1  # along the latents' borders, where all ways to scale it agree
STEPS = Sampling('ddim', 'leading', num_steps=4)


@pytest.fixture(scope='module')
def text_model():
    return pairs.model('StableDiffusionPipeline')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'task', 'strength'),
    [
        ('StableDiffusionInpaintPipeline', 'StableDiffusionInpaintPipeline', 1.0),
        ('StableDiffusionInpaintPipeline', 'StableDiffusionInpaintPipeline', 0.5),
        ('StableDiffusionPipeline', 'StableDiffusionInpaintPipeline', 1.0),
        ('StableDiffusionPipeline', 'StableDiffusionInpaintPipeline', 0.75),
        ('StableDiffusionXLInpaintPipeline', 'StableDiffusionXLInpaintPipeline', 1.0),
        ('StableDiffusionXLPipeline', 'StableDiffusionXLInpaintPipeline', 0.75),
    ],
)
def test_latents_and_images_are_those_of_diffusers(name, task, strength):
    diffusers = pytest.importorskip('diffusers')
    ours, theirs = pairs.pair(name)
    pipe = getattr(diffusers, task).from_pipe(theirs)
    pipe.scheduler = pairs.ddim(pipe)
    pipe.set_progress_bar_config(disable=True)
    expected = pairs.made_by_theirs(
        pipe,
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        image=pairs.channels_first(IMAGES),
        mask_image=pairs.channels_first(MASKS),
        height=16,
        width=32,
        strength=strength,
        guidance_scale=3.0,
        num_inference_steps=4,
        generator=pairs.generators(3, 4),
    )
    latents, images = pairs.made_by_ours(
        inpaint,
        ours,
        PROMPTS,
        IMAGES,
        MASKS,
        NEGATIVE,
        strength=strength,
        keep='step',
        blur=0,
        paste=False,
        seed=3,
        sampling=DDIM,
    )
    pairs.assert_same(latents, expected[0], images, expected[1])


@pytest.mark.parametrize('keep', ['x0', pytest.param('step', marks=pytest.mark.slow)])
def test_what_is_kept_stays_and_the_rest_does_not(text_model, keep):
    """Pixels around the mask to the bit, and latents around it as they were encoded."""
    mask = np.round(MASKS)
    latents, images = pairs.made_by_ours(
        inpaint, text_model, PROMPTS, IMAGES, mask, strength=0.75, blur=0, keep=keep, sampling=STEPS
    )
    same = (images == IMAGES).all(-1, keepdims=True)
    assert same[mask == 0].all()
    assert same[mask == 1].mean() < 0.1
    known = text_model.encode(IMAGES, text_model.noise([0, 1], (16, 32)))
    around = mask.reshape(2, 8, 2, 16, 2).max((2, 4))[..., None] == 0  # no pixel of the latent is masked
    assert 0.2 < around.mean() < 0.8
    np.testing.assert_array_equal(latents[around[..., 0]], known[around[..., 0]])


@pytest.mark.slow
def test_ways_to_keep_are_one_for_ddim(text_model):
    """With x0 known and x its noised self, each of its steps stays on the line between known and noise."""
    x0, step = (
        inpaint(
            text_model, PROMPTS, IMAGES, BOX, strength=0.75, blur=0, paste=False, keep=keep, sampling=STEPS
        )
        for keep in ('x0', 'step')
    )
    np.testing.assert_allclose(x0, step, atol=1e-3)
    assert np.abs(x0 - IMAGES).max() > 0.1


@pytest.mark.slow
def test_a_mask_of_everything_is_image_to_image(text_model):
    settings = dict(strength=0.5, seed=[5, 8], sampling=STEPS)
    expected = image_to_image(text_model, PROMPTS, IMAGES, **settings)
    made = inpaint(text_model, PROMPTS, IMAGES, np.ones((16, 32, 1)), **settings)
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_contents_are_what_a_little_strength_leaves(text_model):
    """One last small step of a thousand: the latents are still the content."""
    sampling = Sampling('ddim', 'trailing', num_steps=1000, guidance=Guidance(1))
    small = masking.latent_mask(BOX, (8, 16))
    eps, noise = (text_model.noise([0, 1], (16, 32), draw=draw) for draw in (0, 1))
    known = text_model.encode(IMAGES, eps)
    filled = text_model.encode(np.stack([masking.fill(image, BOX) for image in IMAGES]), eps)
    expected = {
        'original': known,
        'fill': filled,
        'latent_noise': np.where(small, noise, known),
        'latent_nothing': np.where(small, 0, known),
    }
    for content in expected:
        found, _ = pairs.made_by_ours(
            inpaint,
            text_model,
            PROMPTS,
            IMAGES,
            BOX,
            content=content,
            strength=0.001,
            blur=0,
            sampling=sampling,
        )
        distances = {name: np.abs(found - other).mean() for name, other in expected.items()}
        assert min(distances, key=distances.get) == content, distances
        assert distances[content] < 0.05


def test_only_masked_works_at_its_own_size_and_changes_nothing_else(text_model):
    """Images of any size: the part around the mask is made at 16 x 32 and pasted back."""
    images = np.random.default_rng(1).uniform(-1, 1, (2, 41, 53, 3)).astype(np.float32)
    mask = np.zeros((2, 41, 53, 1), np.float32)
    mask[0, 20:26, 30:36] = mask[1, 1:4, 2:5] = 1
    latents, made = pairs.made_by_ours(
        inpaint,
        text_model,
        PROMPTS,
        images,
        mask,
        padding=2,
        size=(16, 32),
        blur=1,
        strength=0.75,
        sampling=STEPS,
    )
    assert latents.shape == (2, 8, 16, 4)
    assert made.shape == images.shape
    changed = (made != images).any(-1)
    reach = int(2.5 * 1 + 0.5)
    for i, (top, left, bottom, right) in enumerate([(20, 30, 26, 36), (1, 2, 4, 5)]):
        inside = np.zeros((41, 53), bool)
        inside[max(top - reach, 0) : bottom + reach, max(left - reach, 0) : right + reach] = True
        assert not changed[i][~inside].any()
        assert changed[i][top:bottom, left:right].all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(masks=MASKS[:, :8]), r'The mask is \[8, 32, 1\] and the image \[16, 32, 3\]'),
        (dict(masks=2 * MASKS), r'values from 0 to 2; they must be in \[0, 1\]'),
        (dict(masks=0 * MASKS), 'leaves nothing to make anew'),
        (dict(negative_prompts=['a'] * 3), '3 negative prompts for 2 prompts'),
        (dict(strength=1.5), r'above 0 and at most 1; got 1\.5'),
        (dict(content='nothing'), "No masked content 'nothing'; have"),
        (dict(keep='x'), r"No way to keep 'x'; have \['x0', 'step'\]"),
        (dict(size=(16, 16)), 'give a padding too'),
        (dict(padding=-1), 'padding -1 is negative'),
        (dict(padding=4, size=(18, 32)), r'18 x 32.*The nearest that is: 16 x 32'),
        (dict(images=IMAGES[:, :, :30], masks=MASKS[:, :, :30]), r'16 x 30.*The nearest that is'),
    ],
)
def test_bad_input_is_refused_before_anything_runs(text_model, options, message):
    given = dict(images=IMAGES, masks=MASKS, blur=0) | options
    with pytest.raises(ValueError, match=message):
        inpaint(text_model, PROMPTS, **given)


def test_models_of_other_tasks_are_refused():
    pipeline = pairs.model('StableDiffusionDepth2ImgPipeline')
    with pytest.raises(ValueError, match='conditioned on a text and a depth map: it is for depth_to_image'):
        inpaint(pipeline, 'a cat', IMAGES[0], MASKS[0])
