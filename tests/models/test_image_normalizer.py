"""Whitening of image embeddings, against the statistics of data and against diffusers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import image_normalizer as layouts
from ldm_jax.models import image_normalizer

MODEL = image_normalizer.Model(width=6)
GENERATOR = np.random.default_rng(0)
DATA = (3 * GENERATOR.standard_normal((500, 6)) + np.arange(6)).astype(np.float32)
PARAMS = {'mean': DATA.mean(0), 'std': DATA.std(0)}


def test_data_of_these_statistics_become_white_and_come_back():
    white = MODEL.apply({'params': PARAMS}, DATA)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(white.std(0), 1, atol=1e-5)
    np.testing.assert_allclose(MODEL.apply({'params': PARAMS}, white, method='unscale'), DATA, atol=1e-5)


def test_fresh_statistics_change_nothing():
    params = MODEL.init(jax.random.key(0), DATA)['params']
    np.testing.assert_array_equal(MODEL.apply({'params': jax.tree.map(jnp.asarray, params)}, DATA), DATA)


def test_embeddings_of_another_width_are_an_error():
    with pytest.raises(ValueError, match=r'must be \[B, 6\]; got \[2, 7\]'):
        MODEL.apply({'params': PARAMS}, np.zeros((2, 7)))


def test_the_layout_and_the_numbers_are_those_of_diffusers():
    torch = pytest.importorskip('torch')
    theirs = pytest.importorskip('diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer')
    module = theirs.StableUnCLIPImageNormalizer(6)
    tensors = apply_layout.export_params(layouts.layout(MODEL, 'diffusers'), PARAMS)
    module.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in tensors.items()})
    with torch.no_grad():
        scaled = module.scale(torch.from_numpy(DATA))
        unscaled = module.unscale(torch.from_numpy(DATA))
    np.testing.assert_allclose(MODEL.apply({'params': PARAMS}, DATA), scaled, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        MODEL.apply({'params': PARAMS}, DATA, method='unscale'), unscaled, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"'sgm'; have \['compvis', 'diffusers'\]"):
        layouts.layout(MODEL, 'sgm')
