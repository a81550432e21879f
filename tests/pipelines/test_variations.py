"""Variations against diffusers' unCLIP with the same weights and noise, and how images are mixed."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines import variations as of_images
from ldm_jax.pipelines.variations import embed, mixed, variations
from tests.pipelines import pairs

KIND = 'StableUnCLIPImg2ImgPipeline'
PROMPTS, NEGATIVE = ['a red cat', ''], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=4, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)
CALL = dict(
    prompt=PROMPTS,
    negative_prompt=[NEGATIVE] * 2,
    height=16,
    width=32,
    guidance_scale=3.0,
    num_inference_steps=4,
    noise_level=200,
)
GENERATOR = np.random.default_rng(0)
EMBEDDINGS = GENERATOR.standard_normal((2, 12)).astype(np.float32)
BYTES = [GENERATOR.integers(0, 256, shape, np.uint8) for shape in ((16, 23, 3), (30, 8, 3))]
IMAGES = [pixels.astype(np.float32) / 127.5 - 1 for pixels in BYTES]
GIVEN = dict(noise_level=200, size=(16, 32), seed=3, sampling=DDIM)


@pytest.mark.slow
def test_images_are_those_of_diffusers():
    torch = pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair(KIND)
    theirs.scheduler = pairs.ddim(theirs)
    expected = pairs.made_by_theirs(
        theirs, **CALL, image_embeds=torch.from_numpy(EMBEDDINGS), generator=pairs.generators(3, 4)
    )
    latents, images = pairs.made_by_ours(variations, ours, PROMPTS, EMBEDDINGS, NEGATIVE, **GIVEN)
    assert images.shape == (2, 16, 32, 3)
    pairs.assert_same(latents, expected[0], images, expected[1])

    # Images of any sizes are embedded as transformers does, whose resize rounds to bytes.
    image_embeds = theirs.image_encoder(
        theirs.feature_extractor(images=[Image.fromarray(b) for b in BYTES], return_tensors='pt').pixel_values
    ).image_embeds
    found, known = embed(ours, IMAGES), image_embeds.detach().numpy()
    assert np.abs(found - known).max() < 0.01 * np.abs(known).max()
    by_images = variations(ours, PROMPTS, IMAGES, NEGATIVE, **GIVEN)
    by_embeddings = variations(ours, PROMPTS, found, NEGATIVE, **GIVEN)
    np.testing.assert_array_equal(by_images, by_embeddings)
    # A mix goes to all prompts: all of the second is the second.
    mix = variations(ours, PROMPTS, IMAGES, NEGATIVE, weights=[0, 2], **GIVEN)
    np.testing.assert_allclose(mix[1], by_images[1], atol=1e-4)
    assert pairs.psnr(mix[0], by_images[0]) < 40


@pytest.mark.slow
def test_one_prompt_or_one_image_goes_with_all_of_the_others():
    pipeline = pairs.model(KIND)
    asked = []

    def conditioned(*args, given, **options):
        asked.append(given['image_embedding']['embedding'])
        raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_images, 'prompt_conds', conditioned)
        for prompts, images, batch in (
            ('', EMBEDDINGS, 2),
            (['a'] * 3, EMBEDDINGS[0], 3),
            (['a'] * 2, EMBEDDINGS, 2),
        ):
            with pytest.raises(StopIteration):
                variations(pipeline, prompts, images)
            assert asked[-1].shape == (batch, 12)
    with pytest.raises(ValueError, match='3 prompts for 2 images: give as many, or one of either'):
        variations(pipeline, ['a'] * 3, EMBEDDINGS)


def test_a_mix_of_two_is_their_slerp():
    a, b = EMBEDDINGS.astype(np.float64)
    la, lb = np.linalg.norm(a), np.linalg.norm(b)
    angle = np.arccos(a @ b / la / lb)
    for share in (0.0, 0.2, 0.5, 0.9):
        direction = (np.sin((1 - share) * angle) * a / la + np.sin(share * angle) * b / lb) / np.sin(angle)
        expected = ((1 - share) * la + share * lb) * direction
        np.testing.assert_allclose(mixed(EMBEDDINGS, [3 * (1 - share), 3 * share]), expected, atol=1e-6)


def test_a_mix_of_more_is_where_the_weighted_directions_balance():
    points = np.eye(4)[:3] * [[1.0], [2.0], [3.0]]
    np.testing.assert_allclose(mixed(points, [1, 1, 1]), 2 / np.sqrt(3) * np.array([1, 1, 1, 0]), atol=1e-6)
    found = mixed(points, [0.5, 0.3, 0.2]).astype(np.float64)
    middle = found / np.linalg.norm(found)
    pull = 0
    for weight, point in zip([0.5, 0.3, 0.2], np.eye(4)[:3], strict=True):
        across = point - point @ middle * middle
        pull = pull + weight * np.arccos(point @ middle) * across / np.linalg.norm(across)
    assert np.linalg.norm(pull) < 1e-6
    np.testing.assert_allclose(np.linalg.norm(found), 0.5 + 0.6 + 0.6, rtol=1e-6)


def test_what_it_cannot_do_is_refused_before_anything_runs():
    pipeline = pairs.model(KIND)
    with pytest.raises(ValueError, match='noise_level must be whole and from 0 to 999; got 1000'):
        variations(pipeline, '', EMBEDDINGS, noise_level=1000)
    with pytest.raises(ValueError, match=r'Embeddings for this model are 12 wide; got shape \[2, 11\]'):
        variations(pipeline, '', EMBEDDINGS[:, :11])
    with pytest.raises(ValueError, match='3 weights for 2 images'):
        variations(pipeline, '', EMBEDDINGS, weights=[1, 2, 3])
    for weights in ([1, -1], [0, 0], [np.nan, 1]):
        with pytest.raises(ValueError, match='weights must be at least 0, and one of them above'):
            variations(pipeline, '', EMBEDDINGS, weights=weights)
    with pytest.raises(ValueError, match='cancel each other out'):
        mixed(np.stack([EMBEDDINGS[0], -EMBEDDINGS[0]]), [1, 1])
    with pytest.raises(
        ValueError,
        match=r'variations is for models conditioned on .*embedding.*conditioned on a text: it is for text_to_image',
    ):
        variations(pairs.model('StableDiffusionPipeline'), '', EMBEDDINGS)
