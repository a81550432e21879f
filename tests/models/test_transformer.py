"""The U-Net's transformer and plain self-attention: parity with diffusers."""

import jax
import numpy as np
import pytest

from ldm_jax.checkpoints.layouts import compvis_unet, diffusers_unet
from ldm_jax.models.attention import SpatialSelfAttention
from ldm_jax.models.transformer import SpatialTransformer
from tests import oracles

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')

from diffusers.models.attention_processor import Attention  # noqa: E402
from diffusers.models.transformers.transformer_2d import Transformer2DModel  # noqa: E402

X = np.random.default_rng(0).standard_normal((2, 6, 4, 16))  # taller than wide: no transposition goes unseen
CONTEXT = np.random.default_rng(1).standard_normal((2, 7, 12))


class Reference(torch.nn.Module):
    """diffusers' spatial transformer, called with images and context as ours is."""

    def __init__(self, **settings):
        super().__init__()
        self.inner = Transformer2DModel(
            attention_head_dim=4,
            num_attention_heads=4,
            in_channels=16,
            norm_num_groups=4,
            cross_attention_dim=12,
            **settings,
        )

    def forward(self, x, context):
        return self.inner(x, encoder_hidden_states=context).sample


@pytest.mark.parametrize(
    ('depth', 'linear', 'only'), [(1, False, False), (2, True, False), (1, True, True)], ids=str
)
def test_spatial_transformer(depth, linear, only):
    net = Reference(num_layers=depth, use_linear_projection=linear, only_cross_attention=only)
    module = SpatialTransformer(4, 4, depth, num_groups=4, cross_attention_only=only)
    rules = compvis_unet.transformer('net.inner', 'module', depth, linear)
    oracles.assert_parity(module, net, rules, X, CONTEXT)


@pytest.mark.parametrize('num_heads', [1, 4])
def test_spatial_self_attention(num_heads):
    net = Attention(
        16,
        heads=num_heads,
        dim_head=16 // num_heads,
        norm_num_groups=4,
        eps=1e-5,
        bias=True,
        residual_connection=True,
    )
    rules = diffusers_unet.self_attention('net', 'module', old=False)
    oracles.assert_parity(SpatialSelfAttention(num_heads, epsilon=1e-5, num_groups=4), net, rules, X)


@pytest.mark.parametrize(
    ('module', 'inputs'),
    [
        pytest.param(SpatialTransformer(4, 4, 1, num_groups=4), (X, CONTEXT), marks=pytest.mark.slow),
        (SpatialSelfAttention(4, epsilon=1e-5, num_groups=4, zero_init=True), (X,)),
    ],
)
def test_a_fresh_block_is_the_identity(module, inputs):
    inputs = [np.float32(array) for array in inputs]
    output, _ = jax.jit(module.init_with_output)(jax.random.key(0, impl='rbg'), *inputs)
    assert np.array_equal(output, inputs[0])
