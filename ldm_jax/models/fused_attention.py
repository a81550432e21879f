"""Attention by the fused kernels of others, which keep nothing of the score matrix, and where each can stand.

A kernel is one device's program: the compiler cannot cut it. On one device it stands as it is; inside pmap and
shard_map too, since there each device has its own program. Under jit over a mesh it is put into a shard_map of its own:
examples and heads do not need each other, so each device takes its share of both and nothing is sent.
Ref: Dao et al. 2022, arXiv:2205.14135.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from ldm_jax.types import Array

# (q [B, L, N, K], k [B, M, N, K], v [B, M, N, K]) -> [B, L, N, K]; with a mask, bool [B, M], behind them
Kernel = Callable[..., Array]

# The mesh axis that heads are cut along; examples are cut along all others.
HEADS_AXIS = 'tensor'


def kernels(q: Array, k: Array, causal: bool, long: bool, masked: bool = False) -> dict[str, Kernel]:
    """The kernel of each platform that takes q [B, L, N, K] and k [B, M, N, K] where this is traced: 'cuda', 'tpu'.

    Args:
        long: whether the scores are many enough for the TPU's kernel to be the faster way.
        masked: whether it is given a mask too.
    """
    length, width, keys = q.shape[1], q.shape[3], k.shape[1]
    found: dict[str, Kernel | None] = {}
    if (
        no_cudnn() is None
        and q.dtype in (jnp.float16, jnp.bfloat16)
        and width % 8 == 0
        and width <= _cudnn_width()
    ):
        found['cuda'] = on_mesh(_bound(cudnn, causal), q, masked)
    if q.dtype in (jnp.float32, jnp.bfloat16) and min(length, keys) >= 1024 and long and _takes_pallas():
        found['tpu'] = on_mesh(_bound(tpu, causal), q, masked)
    return {platform: kernel for platform, kernel in found.items() if kernel is not None}


def named(backend: str, q: Array, causal: bool, masked: bool = False) -> Kernel:
    """The kernel 'cudnn' or 'tpu' for q [B, L, N, K], where a user asks for it by name.

    Raises ValueError where this process cannot run it, or the mesh cannot cut q.
    """
    missing = {'cudnn': no_cudnn, 'tpu': no_tpu}[backend]()
    kernel = on_mesh(_bound({'cudnn': cudnn, 'tpu': tpu}[backend], causal), q, masked)
    if kernel is None:
        shape = dict(jax.sharding.get_abstract_mesh().shape)
        missing = missing or f'cannot cut {q.shape[0]} examples of {q.shape[2]} heads over the mesh {shape}'
    if kernel is None or missing:
        raise ValueError(
            f"Attention backend {backend!r} {missing}. Use 'auto', which takes it where it can, or one of "
            "['naive', 'chunked'], which run anywhere."
        )
    return kernel


def cudnn(q: Array, k: Array, v: Array, causal: bool, mask: Array | None = None) -> Array:
    """cuDNN's kernel; it raises NotImplementedError for types and widths that it does not have.

    Its gradient, as JAX calls it, takes even numbers of tokens alone, and CLIP's texts have 77: odd numbers are padded
    by one, and the kernel is given how many keys are true.
    """
    length, keys = q.shape[1], k.shape[1]

    def even(x):
        return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)))

    lengths = jnp.full(q.shape[:1], keys, jnp.int32) if keys % 2 and mask is None else None
    seen = None if mask is None else jnp.pad(mask, ((0, 0), (0, keys % 2)))[:, None, None]
    out = jax.nn.dot_product_attention(
        even(q),
        even(k),
        even(v),
        mask=seen,
        is_causal=causal,
        key_value_seq_lengths=lengths,
        implementation='cudnn',
    )
    return out[:, :length]


def tpu(q: Array, k: Array, v: Array, causal: bool, mask: Array | None = None) -> Array:
    """The Pallas kernel, on tokens padded to whole blocks and widths above 128 to multiples of 128."""
    from jax.experimental.pallas.ops.tpu import flash_attention  # lazily: it takes a second to import

    batch, length, _, width = q.shape
    keys = k.shape[1]
    rows, padded_length = _tpu_block(length)
    columns, padded_keys = _tpu_block(keys)
    padded_width = width if width <= 128 else 128 * math.ceil(width / 128)

    def prepare(x, tokens):
        pad = ((0, 0), (0, tokens - x.shape[1]), (0, 0), (0, padded_width - width))
        return jnp.swapaxes(jnp.pad(x, pad), 1, 2)

    segments = None
    if (
        padded_keys > keys or mask is not None
    ):  # only tokens of one segment see each other: the rest is in its own
        seen = jnp.ones((batch, keys), bool) if mask is None else mask
        segments = flash_attention.SegmentIds(
            q=jnp.zeros((batch, padded_length), jnp.int32),
            kv=1 - jnp.pad(seen, ((0, 0), (0, padded_keys - keys))).astype(jnp.int32),
        )
    out = flash_attention.flash_attention(
        prepare(q, padded_length),
        prepare(k, padded_keys),
        prepare(v, padded_keys),
        segment_ids=segments,
        causal=causal,
        sm_scale=width**-0.5,
        block_sizes=flash_attention.BlockSizes(
            block_b=1,
            block_q=rows,
            block_k_major=columns,
            block_k=columns,
            block_q_major_dkv=rows,
            block_k_major_dkv=columns,
            block_k_dkv=columns,
            block_q_dkv=rows,
            block_k_major_dq=columns,
            block_k_dq=columns,
            block_q_dq=rows,
        ),
    )
    return jnp.swapaxes(out, 1, 2)[:, :length, :, :width]


def _bound(kernel: Kernel, causal: bool) -> Kernel:
    """A kernel of arrays alone."""
    return lambda q, k, v, *mask: kernel(q, k, v, causal, *mask)


def on_mesh(kernel: Kernel, q: Array, masked: bool = False) -> Kernel | None:
    """The kernel where this is traced: cut along the mesh that jit partitions for, or None where q does not divide."""
    mesh = jax.sharding.get_abstract_mesh()
    free = {axis: size for axis, size in mesh.shape.items() if axis not in mesh.manual_axes}
    if math.prod(free.values()) == 1:
        return kernel
    examples = tuple(axis for axis in free if axis != HEADS_AXIS)
    if q.shape[0] % math.prod(free[axis] for axis in examples) or q.shape[2] % free.get(HEADS_AXIS, 1):
        return None
    spec = PartitionSpec(examples, None, HEADS_AXIS if HEADS_AXIS in free else None, None)
    specs = (spec,) * 3 + (PartitionSpec(examples, None),) * masked
    return jax.shard_map(kernel, in_specs=specs, out_specs=spec, axis_names=set(free), check_vma=False)


def _tpu_block(tokens: int) -> tuple[int, int]:
    """The block that tokens are cut into, a multiple of the 128 lanes and at most 512, and their padded number."""
    blocks = math.ceil(tokens / 512)
    block = 128 * math.ceil(tokens / (128 * blocks))
    return block, blocks * block


def no_cudnn() -> str | None:
    """Why this process has no cuDNN attention, or None where it has."""
    device = jax.devices()[0]
    if 'cuda' not in device.client.platform_version:
        return f'needs an NVIDIA GPU, and this process runs on {jax.default_backend()!r}'
    if float(device.compute_capability) < 8.0:
        return f'needs compute capability 8.0, and this {device.device_kind} has {device.compute_capability}'
    return None


def _cudnn_width() -> int:
    """The widest head of cuDNN's kernel on this process's GPU."""
    return 256 if float(jax.devices()[0].compute_capability) >= 9.0 else 128


def no_tpu() -> str | None:
    """Why this process has no TPU kernel, or None where it has."""
    platform = jax.default_backend()
    return None if platform == 'tpu' else f'needs a TPU, and this process runs on {platform!r}'


def _takes_pallas() -> bool:
    """Whether a TPU's kernel can stand here.

    Without a mesh it can where there is a single TPU: of several, XLA may have to partition it, which it cannot, nor
    does JAX's custom_partitioning work on TPUs (jax-ml/jax#38196).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == 'tpu' and jax.device_count() == 1
    if not mesh.are_all_axes_manual:
        return True
    # Under shard_map(check_vma=True) types say along which axes values vary, and JAX's kernel does not say it.
    index = lax.axis_index(mesh.axis_names)
    return jax.typeof(index) == jax.typeof(jnp.zeros((), index.dtype))
