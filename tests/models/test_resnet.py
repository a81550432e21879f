"""The residual block and the changes of resolution: parity with diffusers and torch in every variant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ldm_jax import trees
from ldm_jax.checkpoints import keymap
from ldm_jax.checkpoints.layouts import diffusers_unet
from ldm_jax.models import layers
from ldm_jax.models.resnet import Downsample, ResBlock, Upsample
from tests import oracles

torch = pytest.importorskip('torch')
resnet = pytest.importorskip('diffusers.models.resnet')

# Tests of networks spend their time compiling: without LLVM's optimisations it is a third.
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}

X = np.random.default_rng(0).standard_normal((2, 6, 4, 8))  # taller than wide: no transposition goes unseen
TEMB = np.random.default_rng(1).standard_normal((2, 12))


def assert_parity(module, net, rules, *inputs):
    """The output is a torch module's with the same weights, in both dtypes; the layout loses none of them.

    rules: from 'net' to 'module'. inputs: [B, H, W, C], which torch is given as [B, C, H, W], or others.
    """
    oracles.randomize(net)
    layout = keymap.Layout(tuple(rules))
    state = {f'net.{key}': array for key, array in oracles.tensors(net).items()}
    shapes = nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs)['params'])
    params = keymap.import_params(layout, state, {'module': shapes})
    exported = keymap.export_params(layout, params)
    assert exported.keys() == state.keys()
    assert all(np.array_equal(exported[key], state[key]) for key in state)

    with torch.no_grad():
        expected = net.double().eval()(*(torch.tensor(channels(array, to=1)) for array in inputs))
    expected = channels(expected.numpy(), to=-1)
    with oracles.float64():
        output = run(module.clone(dtype=jnp.float64), params, 'float64', inputs)
    assert oracles.relative_error(output, expected) < 1e-9
    assert oracles.relative_error(run(module, params, 'float32', inputs), expected) < 1e-5


def channels(array, to):
    """An image's channels as another axis; anything else as it is."""
    return np.moveaxis(array, -1 if to == 1 else 1, to) if array.ndim == 4 else array


def run(module, params, dtype, inputs):
    params, inputs = trees.cast((params['module'], inputs), dtype)
    output = jax.jit(module.apply, compiler_options=QUICK)({'params': params}, *inputs)
    assert output.dtype == dtype
    return output


@pytest.mark.parametrize(
    ('features', 'resample', 'scale_shift'),
    [
        (8, 'none', False),
        (12, 'none', False),
        (12, 'none', True),
        (8, 'up', True),
        (12, 'up', False),
        (8, 'down', False),
        (12, 'down', True),
    ],
)
def test_res_block(features, resample, scale_shift):
    module = ResBlock(features, num_groups=4, scale_shift=scale_shift, resample=resample)
    net = resnet.ResnetBlock2D(
        in_channels=8,
        out_channels=features,
        temb_channels=12,
        groups=4,
        eps=1e-5,
        time_embedding_norm='scale_shift' if scale_shift else 'default',
        up=resample == 'up',
        down=resample == 'down',
    )
    rules = diffusers_unet.res_block('net', 'module', has_skip=features != 8)
    assert_parity(module, net, rules, X, TEMB)


def test_res_block_without_time():
    class Untimed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = resnet.ResnetBlock2D(in_channels=8, temb_channels=None, groups=4, eps=1e-6)

        def forward(self, x):
            return self.block(x, None)

    rules = [
        rule
        for rule in diffusers_unet.res_block('net.block', 'module')
        if not rule.torch[0].startswith('net.block.time_emb_proj')
    ]
    assert_parity(ResBlock(8, epsilon=1e-6, num_groups=4), Untimed(), rules, X)


def test_epsilon_is_that_of_both_norms():
    # Inputs of variance 1e-6, where epsilon decides.
    net = resnet.ResnetBlock2D(in_channels=8, temb_channels=12, groups=4, eps=1e-2)
    rules = diffusers_unet.res_block('net', 'module')
    assert_parity(ResBlock(8, epsilon=1e-2, num_groups=4), net, rules, 1e-3 * X, TEMB)


def test_zero_init_starts_as_the_identity():
    block = ResBlock(8, num_groups=4, zero_init=True)
    x, temb = np.float32(X), np.float32(TEMB)
    output, _ = jax.jit(block.init_with_output, compiler_options=QUICK)(
        jax.random.key(0, impl='rbg'), x, temb
    )
    assert np.array_equal(output, x)


def test_upsample():
    rules = keymap.conv('net.conv', 'module/conv')
    assert_parity(Upsample(), resnet.Upsample2D(8, use_conv=True), rules, X)


@pytest.mark.parametrize('padding', [(1, 1), (0, 1)])
def test_downsample(padding):
    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(8, 8, 3, stride=2)

        def forward(self, x):
            return self.conv(torch.nn.functional.pad(x, 2 * padding))

    rules = keymap.conv('net.conv', 'module/conv')
    assert_parity(Downsample(padding), Reference(), rules, X)


def test_upsample_nearest_repeats_each_pixel():
    x = np.arange(2 * 3 * 2 * 1.0).reshape(2, 3, 2, 1)
    assert np.array_equal(layers.upsample_nearest(x), x.repeat(2, axis=1).repeat(2, axis=2))
