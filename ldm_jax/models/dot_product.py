"""Scaled dot-product attention, exact on every backend: out = softmax(q k^T / sqrt(K)) v.

Four ways to the same numbers, which differ in what they keep of the score matrix [B, N, L, M]:

    naive    all of it. The fastest where it is small, and the reference for the others.
    chunked  a block of rows at a time, computed again for the gradient: L and M may be long. Plain XLA, any platform.
    cudnn    nothing: cuDNN's fused kernel on NVIDIA GPUs, float16 and bfloat16.
    tpu      nothing: JAX's fused kernel for TPUs.

'auto' takes the fused kernel where there is one for the platform, type and width, naive for short sequences,
chunked for the rest. It asks for the platform when a program is lowered, not when it is traced, so that one
compiled ahead of time for a TPU is the one that runs there.

Scores and softmax are float32 at least, whatever the type of q, k and v; products of float32 are as precise as
jax_default_matmul_precision makes them. naive and chunked can be differentiated any number of times in both
modes, the kernels once in reverse mode.
Ref: Vaswani et al. 2017, arXiv:1706.03762; Rabe & Staats 2021, arXiv:2112.05682 (row blocks, computed again for
the gradient); Dao et al. 2022, arXiv:2205.14135 (the kernels).
"""

from __future__ import annotations

import functools
import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from ldm_jax import build
from ldm_jax.models import fused_attention
from ldm_jax.types import Array

BACKENDS = ('auto', 'naive', 'chunked', 'cudnn', 'tpu')

# 'auto' is naive up to this many scores in all (2 MB in float32), and whatever the batch up to so many per head
# (90 tokens over 90 keys). Measured on two CPU cores, forward alone and with the gradient: below, chunked takes
# 0.8 to 2.3 times naive's time, above 0.3 to 1.2 times.
SHORT = 2**19
SHORT_HEAD = 2**13
# Scores that chunked holds at once on a CPU: 256 rows of one head over 4096 keys (4 MB, which stays in the cache;
# half and twice as many are as fast within 10 %), or several whole heads while they are few.
CPU_BLOCK = 2**20
CPU_GROUP = 2**18
# Elsewhere all heads go together, so that a batch or heads sharded over a mesh stay where they are. Not tuned:
# 256 MB in float32 for each device bounds the memory and leaves long matrices to multiply.
BLOCK = 2**26


def dot_product(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool = False,
    mask: Array | None = None,
    backend: str = 'auto',
) -> Array:
    """Attention of q [B, L, N, K] over k and v [B, M, N, K] -> [B, L, N, K] in q's type.

    Args:
        causal: query i sees keys 0 to i only, also where L is not M.
        mask: bool [B, M], the keys that are seen, at least one of each example; all by default.
        backend: one of BACKENDS, described at the head of this module.

    Raises:
        ValueError: shapes that do not belong together, an unknown backend, or one that this process cannot run.
    """
    if (
        not q.ndim == k.ndim == v.ndim == 4
        or k.shape != v.shape
        or (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:])
    ):
        raise ValueError(
            'Attention takes q [B, L, N, K] and k, v [B, M, N, K] (batch, tokens, heads, width); '
            f'got {q.shape}, {k.shape} and {v.shape}. Split the heads off the last axis first.'
        )
    if mask is not None and (mask.shape != k.shape[:2] or mask.dtype != jnp.bool):
        raise ValueError(f'A mask is bool [B, M] = {list(k.shape[:2])}; got {mask.dtype} {list(mask.shape)}.')
    if backend not in BACKENDS:
        raise build.unknown('attention backend', backend, list(BACKENDS))
    if backend == 'auto':
        return _auto(q, k, v, causal, mask)
    given = (q, k, v) if mask is None else (q, k, v, mask)
    if backend in ('cudnn', 'tpu'):
        return fused_attention.named(backend, q, causal, masked=mask is not None)(*given)
    return {'naive': naive, 'chunked': chunked}[backend](q, k, v, causal, mask)


def probabilities(q: Array, k: Array, *, causal: bool = False, mask: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(K)) itself, [B, N, L, M] in float32 at least, of q [B, L, N, K] and k [B, M, N, K]."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum('blnk,bmnk->bnlm', q, k, preferred_element_type=wide) * q.shape[-1] ** -0.5
    if causal:
        row, column = (lax.broadcasted_iota(jnp.int32, scores.shape[-2:], axis) for axis in (0, 1))
        scores = jnp.where(column <= row, scores, -jnp.inf)
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)


def naive(q: Array, k: Array, v: Array, causal: bool, mask: Array | None = None) -> Array:
    """All scores at once; differentiated, it keeps them."""
    # On a CPU, copies with the heads first are cheaper than products of matrices with gaps between their rows.
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(_attend(q, k, v, causal, None if mask is None else mask[:, None]), 1, 2)


def chunked(q: Array, k: Array, v: Array, causal: bool, mask: Array | None = None) -> Array:
    """At most BLOCK scores a device at once (CPU_BLOCK on a CPU), or one row of each head, forward and backward."""
    masks = (
        ()
        if mask is None
        else (jnp.broadcast_to(mask[:, None], (*mask.shape[:1], q.shape[2], mask.shape[1])),)
    )
    out = lax.platform_dependent(
        jnp.swapaxes(q, 1, 2),
        jnp.moveaxis(k, 1, 3),
        jnp.moveaxis(v, 1, 3),
        *masks,
        cpu=partial(_by_heads, causal=causal),
        default=partial(_by_rows, block=BLOCK * _devices(), causal=causal),
    )
    return jnp.swapaxes(out, 1, 2)


def _auto(q: Array, k: Array, v: Array, causal: bool, mask: Array | None) -> Array:
    batch, length, heads, _ = q.shape
    keys = k.shape[1]
    short = length * keys <= SHORT_HEAD or batch * heads * length * keys <= SHORT
    way = naive if short else chunked
    given = (q, k, v) if mask is None else (q, k, v, mask)

    def plain(q, k, v, *mask):
        return way(q, k, v, causal, *mask)

    kernels = fused_attention.kernels(q, k, causal, long=not short, masked=mask is not None)
    return lax.platform_dependent(*given, default=plain, **kernels) if kernels else plain(*given)


def _attend(
    q: Array,
    k: Array,
    v: Array,
    causal: bool,
    mask: Array | None = None,
    first: Array | int = 0,
    layout: str = 'mk',
) -> Array:
    """Attention of q [..., L, K], its first row number `first`, over k, v [..., M, K], or [..., K, M] as 'km'.

    mask: [..., M] of the keys that are seen.
    """
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum(f'...lk,...{layout}->...lm', q, k, preferred_element_type=wide)
    if causal:
        row = first + lax.broadcasted_iota(jnp.int32, scores.shape[-2:], 0)
        scores = jnp.where(lax.broadcasted_iota(jnp.int32, scores.shape[-2:], 1) <= row, scores, -jnp.inf)
    if mask is not None:
        scores = jnp.where(mask[..., None, :], scores, -jnp.inf)
    # The peak keeps exp from overflowing and cancels, so it has no gradient. To divide by the sum after the
    # product with v saves a pass over the scores.
    peak = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp((scores - peak) * q.shape[-1] ** -0.5)
    out = jnp.einsum(f'...lm,...{layout}->...lk', weights.astype(v.dtype), v, preferred_element_type=wide)
    out = checkpoint_name(out, 'attention_product')
    return (out / jnp.sum(weights, axis=-1, keepdims=True)).astype(q.dtype)


def _by_heads(q: Array, k: Array, v: Array, *mask: Array, causal: bool) -> Array:
    """_by_rows for one head of q [B, N, L, K] after the other, or for groups of them while their scores are few.

    Of a mesh of CPUs each goes through the heads of all: right, and no faster than one.
    """
    batch, heads, length, _ = q.shape
    fit = min(batch * heads, max(1, CPU_GROUP // (length * k.shape[-1])))
    group = max(size for size in range(1, fit + 1) if batch * heads % size == 0)
    # A group of one has no axis of its own: XLA would turn the gradients' products around (see _by_rows).
    lead = (batch * heads,) if group == 1 else (batch * heads // group, group)
    groups = [x.reshape(*lead, *x.shape[2:]) for x in (q, k, v, *mask)]
    by_rows = functools.partial(_by_rows, block=CPU_BLOCK, causal=causal)
    return lax.map(lambda qkv: by_rows(*qkv), groups).reshape(q.shape)


def _by_rows(q: Array, k: Array, v: Array, *mask: Array, block: int, causal: bool) -> Array:
    """_attend for blocks of rows of q [..., L, K], of all heads at once, over k and v [..., K, M].

    k and v have their tokens last because their gradients are then the products q^T ds and g^T p, where XLA
    multiplies twice as fast on a CPU as in ds^T q and p^T g.
    """
    *lead, length, width = q.shape
    steps = math.ceil(length / max(1, block // (math.prod(lead) * k.shape[-1])))
    rows = math.ceil(length / steps)
    # Backward, the weights are computed again; their product with v, no larger than q, is kept.
    attend = jax.checkpoint(
        partial(_attend, causal=causal, layout='km'),
        policy=jax.checkpoint_policies.save_only_these_names('attention_product'),
    )
    if steps == 1:
        return attend(q, k, v, mask=mask[0] if mask else None)
    q = jnp.pad(q, [(0, 0)] * len(lead) + [(0, steps * rows - length), (0, 0)])
    blocks = jnp.moveaxis(q.reshape(*lead, steps, rows, width), -3, 0)
    out = lax.map(
        lambda x: attend(x[0], k, v, mask=mask[0] if mask else None, first=x[1]),
        (blocks, rows * jnp.arange(steps)),
    )
    return jnp.moveaxis(out, 0, -3).reshape(*lead, steps * rows, width)[..., :length, :]


def _devices() -> int:
    """Over how many devices an array here is spread: those of jit's mesh; inside of pmap and shard_map it is one's."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(size for axis, size in mesh.shape.items() if axis not in mesh.manual_axes)
