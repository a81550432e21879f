"""The residual block and the changes of resolution: parity with diffusers and torch in every variant."""

import jax
import numpy as np
import pytest

from ldm_jax.checkpoints.layouts import diffusers_unet, rules
from ldm_jax.models import layers
from ldm_jax.models.resnet import Downsample, ResBlock, Upsample
from tests import oracles

torch = pytest.importorskip('torch')
resnet = pytest.importorskip('diffusers.models.resnet')

X = np.random.default_rng(0).standard_normal((2, 6, 4, 8))  # taller than wide: no transposition goes unseen
TEMB = np.random.default_rng(1).standard_normal((2, 12))


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
    found = diffusers_unet.res_block('net', 'module', has_skip=features != 8)
    oracles.assert_parity(module, net, found, X, TEMB)


def test_res_block_without_time():
    class Untimed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = resnet.ResnetBlock2D(in_channels=8, temb_channels=None, groups=4, eps=1e-6)

        def forward(self, x):
            return self.block(x, None)

    found = [
        rule
        for rule in diffusers_unet.res_block('net.block', 'module')
        if not rule.torch[0].startswith('net.block.time_emb_proj')
    ]
    oracles.assert_parity(ResBlock(8, epsilon=1e-6, num_groups=4), Untimed(), found, X)


def test_epsilon_is_that_of_both_norms():
    # Inputs of variance 1e-6, where epsilon decides.
    net = resnet.ResnetBlock2D(in_channels=8, temb_channels=12, groups=4, eps=1e-2)
    found = diffusers_unet.res_block('net', 'module')
    oracles.assert_parity(ResBlock(8, epsilon=1e-2, num_groups=4), net, found, 1e-3 * X, TEMB)


def test_zero_init_starts_as_the_identity():
    block = ResBlock(8, num_groups=4, zero_init=True)
    x, temb = np.float32(X), np.float32(TEMB)
    output, _ = jax.jit(block.init_with_output)(jax.random.key(0, impl='rbg'), x, temb)
    assert np.array_equal(output, x)


def test_upsample():
    found = rules.conv('net.conv', 'module/conv')
    oracles.assert_parity(Upsample(), resnet.Upsample2D(8, use_conv=True), found, X)


@pytest.mark.parametrize('padding', [(1, 1), (0, 1)])
def test_downsample(padding):
    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(8, 8, 3, stride=2)

        def forward(self, x):
            return self.conv(torch.nn.functional.pad(x, 2 * padding))

    found = rules.conv('net.conv', 'module/conv')
    oracles.assert_parity(Downsample(padding), Reference(), found, X)


def test_upsample_nearest_repeats_each_pixel():
    x = np.arange(2 * 3 * 2 * 1.0).reshape(2, 3, 2, 1)
    assert np.array_equal(layers.upsample_nearest(x), x.repeat(2, axis=1).repeat(2, axis=2))
