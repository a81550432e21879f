"""The U-Net beside the original code, whose outputs are in fixtures/; README_unet.md there says how each was made."""

from pathlib import Path

import numpy as np
import pytest

from ldm_jax.checkpoints.layouts import compvis_unet
from ldm_jax.models import unet
from ldm_jax.types import Cond
from tests import oracles
from tests.models.unets import cases, error

FIXTURES = Path(__file__).parent / 'fixtures'

ORIGINAL = dict(channels=32, channel_mult=(1, 2), num_res_blocks=1)
RGB = dict(ORIGINAL, in_channels=3, out_channels=3)
# fixture -> fields of the model, whether transformers project by linear layers.
ORIGINALS = {
    'head_width': (dict(RGB, channel_mult=(1, 2, 3), depth=(0, 1, 1), head_width=16), False),
    'scale_shift': (
        dict(ORIGINAL, depth=(1, 1), num_heads=4, scale_shift=True, resblock_updown=True),
        False,
    ),
    'resblock_updown': (
        dict(RGB, in_channels=7, num_res_blocks=2, depth=(0, 1), num_heads=8, resblock_updown=True),
        False,
    ),
    'class_token': (dict(RGB, depth=(0, 1), num_heads=1, context_width=12), False),
    'depth_3': (dict(RGB, depth=(0, 3), mid_depth=3, head_width=16, context_width=12), False),
    'middle_only': (
        dict(RGB, in_channels=6, num_res_blocks=2, channel_mult=(1, 2, 4), depth=(0, 0, 0), num_heads=8),
        False,
    ),
    'text': (
        dict(ORIGINAL, channel_mult=(1, 2, 2), depth=(1, 1, 0), num_heads=4, context_width=12),
        False,
    ),
    'upscaler': (
        dict(
            ORIGINAL,
            in_channels=7,
            channel_mult=(1, 2, 2),
            depth=(0, 1, 1),
            num_heads=4,
            context_width=12,
            num_classes=10,
            cross_attention_only=(True, True, False),
        ),
        True,
    ),
    'unclip': (dict(ORIGINAL, depth=(1, 0), head_width=16, context_width=12, vector_width=20), True),
    'levels': (
        dict(
            ORIGINAL,
            channel_mult=(1, 2, 2),
            depth=(0, 1, 2),
            mid_depth=2,
            head_width=16,
            context_width=12,
            vector_width=20,
        ),
        True,
    ),
}


def random_weights(shapes, seed):
    """The weights that the original code was run with: normal in the keys' order, scaled by fan-in."""
    generator = np.random.default_rng(seed)
    weights = {}
    for key in sorted(shapes):
        values = generator.standard_normal(shapes[key])
        if values.ndim == 1 and key.endswith('weight'):
            weights[key] = 1 + 0.2 * values
        else:
            weights[key] = values / np.sqrt(np.prod(values.shape[1:]) if values.ndim > 1 else 16)
    return weights


@pytest.mark.parametrize(('name', 'dtype', 'tolerance'), cases(ORIGINALS, fast=('text',)))
def test_parity_with_the_original_code(name, dtype, tolerance):
    fields, linear = ORIGINALS[name]
    model = unet.Model(**fields)
    fixture = np.load(FIXTURES / f'unet_{name}.npz')
    rows = (line.split() for line in bytes(fixture['keys']).decode().splitlines())
    state = random_weights({key: tuple(map(int, shape)) for key, *shape in rows}, int(fixture['seed']))
    cond = Cond(
        **{part: fixture[part] for part in ('context', 'concat', 'vector', 'label') if part in fixture}
    )

    layout = compvis_unet.layout(model, linear)
    params = oracles.params_like(model, layout, state, size=model.downscale)
    oracles.assert_come_back(layout, params, state)

    inputs = (fixture['x'], fixture['t'], cond)
    assert error(model, params, inputs, fixture['output'], dtype) < tolerance
