"""The spatial rescaler against the original code, and its published size."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints.layouts import spatial_rescaler as layouts
from ldm_jax.models import spatial_rescaler
from tests import oracles

# Made as README_encoders.md says.
FIXTURE = Path(__file__).parent / 'fixtures' / 'encoders_spatial_rescaler.npz'
SMALL = spatial_rescaler.Model(in_channels=5)


def test_published_size():
    assert trees.count(trees.shapes(spatial_rescaler.Model())) == 182 * 3


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float64', 1e-9), ('float32', 1e-5)])
def test_equals_the_original(dtype, tolerance):
    with np.load(FIXTURE) as data:
        expected = dict(data)
    weights = {key.removeprefix('weights/'): value / 64 for key, value in expected.items() if '/' in key}
    with oracles.float64():
        model = SMALL.clone(dtype=jnp.dtype(dtype))
        params = oracles.params_like(model, layouts.layout(model), weights)
        out = model.apply({'params': params}, (expected['maps'] / 64).astype(dtype))
        assert oracles.relative_error(out, expected['out']) < tolerance


def test_maps_that_cannot_be_rescaled():
    params = trees.shapes(SMALL)
    with pytest.raises(ValueError, match='takes 5 channels, one per class; got 4'):
        SMALL.apply({'params': params}, np.zeros((1, 8, 8, 4)))
    with pytest.raises(ValueError, match='must be multiples of 4; got 8 x 10'):
        SMALL.apply({'params': params}, np.zeros((1, 8, 10, 5)))
