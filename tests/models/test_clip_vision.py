"""The CLIP vision transformer against the transformers library, its sizes and its preparation of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints.layouts import transformers_clip
from ldm_jax.models import clip_vision
from tests import oracles
from tests.tiers import fast

SMALL = clip_vision.Model(
    image_size=12, patch_size=4, width=32, num_layers=2, num_heads=4, projection_width=20
)


@pytest.mark.parametrize(
    ('fields', 'count'),
    [
        ({}, 303_966_208),
        (dict(width=1280, num_layers=32, activation='gelu', projection_width=1024), 632_076_800),
    ],
    ids=['CLIP-L', 'OpenCLIP-H'],
)
def test_published_sizes(fields, count):
    assert trees.count(trees.shapes(clip_vision.Model(**fields))) == count


@pytest.mark.parametrize('activation', ['quick_gelu', 'gelu'])
@pytest.mark.parametrize(('dtype', 'tolerance'), fast(1, [('float64', 1e-9), ('float32', 1e-5)]))
def test_every_output_equals_transformers(activation, dtype, tolerance):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    config = transformers.CLIPVisionConfig(
        image_size=SMALL.image_size,
        patch_size=SMALL.patch_size,
        hidden_size=SMALL.width,
        intermediate_size=4 * SMALL.width,
        num_hidden_layers=SMALL.num_layers,
        num_attention_heads=SMALL.num_heads,
        projection_dim=SMALL.projection_width,
        hidden_act=activation,
    )
    module = transformers.CLIPVisionModelWithProjection(config).eval()
    oracles.randomize(module)
    module = module.to(getattr(torch, dtype))
    images = np.random.default_rng(1).standard_normal((2, 12, 12, 3)).astype(dtype)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        theirs = module(pixels, output_hidden_states=True)
        pooled = module.vision_model(pixels).pooler_output
    with oracles.float64():
        model = SMALL.clone(activation=activation, dtype=jnp.dtype(dtype))
        params = oracles.params_like(model, transformers_clip.layout(model), oracles.tensors(module))
        for output_layer in (-1, -2) if dtype == 'float64' else (-1,):
            out = jax.jit(model.clone(output_layer=output_layer).apply)({'params': params}, images)
            assert out.hidden.dtype == dtype
            assert oracles.relative_error(out.hidden, theirs.hidden_states[output_layer]) < tolerance
            assert oracles.relative_error(out.pooled, pooled) < tolerance
            assert oracles.relative_error(out.projected, theirs.image_embeds) < tolerance


def test_normalized_images_of_the_training_set_are_standard():
    pixels = np.array(clip_vision.MEAN) + np.array([[-1.0], [0.0], [2.0]]) * np.array(clip_vision.STD)
    normed = clip_vision.normalize(jnp.asarray(2 * pixels - 1)[None])
    np.testing.assert_allclose(normed[0], np.array([[-1.0], [0.0], [2.0]]) * np.ones(3), atol=1e-5)


@pytest.mark.parametrize(('height', 'width'), [(16, 16), (30, 20), (7, 13), (8, 8)])
def test_preprocess_equals_an_antialiased_bicubic_resize_and_centre_crop(height, width):
    torch = pytest.importorskip('torch')
    images = np.random.default_rng(2).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
    short = min(height, width)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        size=(int(8 * height / short), int(8 * width / short)),
        mode='bicubic',
        antialias=True,
        align_corners=False,
    ).permute(0, 2, 3, 1)
    top, left = ((side - 8) // 2 for side in theirs.shape[1:3])
    expected = clip_vision.normalize(theirs.numpy()[:, top : top + 8, left : left + 8])
    assert oracles.relative_error(clip_vision.preprocess(images, size=8), expected) < 1e-5


def test_images_of_another_size_are_refused():
    params = trees.shapes(SMALL)
    with pytest.raises(ValueError, match=r'must be \[B, 12, 12, 3\]; got \[1, 16, 16, 3\]'):
        SMALL.apply({'params': params}, np.zeros((1, 16, 16, 3)))
    with pytest.raises(ValueError, match='image_size 15 must be a multiple of patch_size 4'):
        SMALL.clone(image_size=15)
