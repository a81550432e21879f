"""Attention probabilities, had on request, against a softmax written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.plain_transformer import model as plain_transformer
from ldm_jax import trees
from ldm_jax.models import unet
from ldm_jax.models.attention import Attention
from ldm_jax.models.capture import attention_probabilities
from ldm_jax.types import Cond

B, L, M, WIDTH = 2, 6, 5, 8
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def params_of(model, *inputs):
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
    import flax.linen as nn

    return jax.tree.map(lambda leaf: 0.5 * normal(*leaf.shape), nn.meta.unbox(shapes))


@pytest.mark.parametrize('backend', ['auto', 'naive', 'chunked'])
@pytest.mark.parametrize('causal', [False, True])
def test_probabilities_are_a_softmax_of_the_scores(backend, causal):
    model = Attention(2, 4, WIDTH, causal=causal, backend=backend)
    x, context = normal(B, L, WIDTH), normal(B, L if causal else M, WIDTH)
    params = params_of(model, x, context)
    out, found = attention_probabilities(model, params, x, context)
    q, k, v = (
        (a @ params[name]['kernel']).reshape(B, -1, 2, 4)
        for name, a in zip('qkv', (x, context, context), strict=True)
    )
    scores = np.einsum('blnk,bmnk->bnlm', q, k) / 2
    if causal:
        scores = np.where(np.tril(np.ones((L, L), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    assert found.keys() == {''}
    np.testing.assert_allclose(found[''], weights, atol=1e-6)
    mixed = np.einsum('bnlm,bmnk->blnk', weights, v).reshape(B, L, WIDTH)
    np.testing.assert_allclose(out, mixed @ params['out']['kernel'] + params['out']['bias'], atol=1e-5)
    np.testing.assert_allclose(out, model.apply({'params': params}, x, context), atol=1e-5)


def test_perturbed_self_attention_is_the_identity():
    model = Attention(2, 4, WIDTH)
    x = normal(B, L, WIDTH)
    _, found = attention_probabilities(model, params_of(model, x), x, None, jnp.array([False, True]))
    np.testing.assert_allclose(found[''][1], np.broadcast_to(np.eye(L), (2, L, L)))
    assert np.abs(found[''][0] - np.eye(L)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize('remat', [False, True])
def test_every_attention_of_a_u_net_is_there_by_its_path(remat):
    model = unet.Model(
        channels=8, channel_mult=(1, 2), num_res_blocks=1, depth=(1, 0), num_heads=2, num_groups=4,
        context_width=6, remat=remat,
    )  # fmt: skip
    x, context = normal(B, 4, 4, 4), normal(B, M, 6)
    params = params_of(model, x, np.zeros(B), Cond(context=context))
    out, found = jax.jit(lambda p: attention_probabilities(model, p, x, jnp.ones(B), Cond(context=context)))(
        params
    )
    blocks = ['down_0_attn_0', 'mid_attn', 'up_0_attn_0', 'up_0_attn_1']
    assert found.keys() == {f'{block}/block_0/attn{i}' for block in blocks for i in (1, 2)}
    for path, probabilities in found.items():
        side = 4 if '_0_' in path else 2
        keys = side * side if path.endswith('attn1') else M
        assert probabilities.shape == (B, 2, side * side, keys), path
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    plain = jax.jit(model.apply)({'params': params}, x, jnp.ones(B), Cond(context=context))
    np.testing.assert_allclose(out, plain, atol=1e-5)


@pytest.mark.slow
def test_a_network_of_one_s_own_and_what_is_not_asked_for():
    model = plain_transformer.Model(context_width=6, width=8, depth=2, num_heads=2)
    x, cond = normal(B, 4, 4, 4), Cond(context=normal(B, M, 6))
    params = params_of(model, x, np.zeros(B), cond)
    _, found = attention_probabilities(model, params, x, jnp.ones(B), cond)
    assert found.keys() == {'attention_0', 'attention_1'}
    assert found['attention_0'].shape == (B, 2, 1 + M + 16, 1 + M + 16)
    assert isinstance(
        jax.eval_shape(model.apply, {'params': params}, x, jnp.ones(B), cond), jax.ShapeDtypeStruct
    )
    assert trees.count(params) > 0
