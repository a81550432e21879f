"""Inception v3 of 2015-12-05, whose features FID, KID and the Inception score are measured with.

It is not torchvision's: average pooling counts no padding, the last block pools by the maximum, batch norm has no
scale, and there are 1008 classes. Weights: checkpoints/loss_networks.py reads the published ones.
Ref: Szegedy et al. 2016, arXiv:1512.00567; the graph of http://download.tensorflow.org/models/image/imagenet/
inception-2015-12-05.tgz.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.types import Array

SIZE = 299  # pixels along a side of its input
EPSILON = 1e-3  # of batch norm
CLASSES = 1008  # of the head
SPATIAL = 7  # channels of mixed_6/conv that sFID takes


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with batch norm and ReLU, by its name in the graph; at stride 2 it has no padding."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Branch = tuple[Conv, ...]
Pool = Literal['average', 'max', 'strided']  # in front of the last branch; 'strided' is that branch


@dataclasses.dataclass(frozen=True)
class Block:
    """Branches of one input, whose outputs are joined; `split` ends are two convolutions side by side."""

    name: str
    branches: tuple[Branch, ...]
    pool: Pool
    split: tuple[tuple[Conv, Conv], ...] = ()  # one for each of the first branches but the very first


def _tower(name: str, *convs: tuple) -> Branch:
    """The convolutions NAME_conv, NAME_conv_1, ..."""
    return tuple(Conv(f'{name}_conv' + (f'_{i}' if i else ''), *conv) for i, conv in enumerate(convs))


def _a(name: str, pooled: int) -> Block:
    towers = (
        _tower('tower', (48,), (64, (5, 5))),
        _tower('tower_1', (64,), (96, (3, 3)), (96, (3, 3))),
        _tower('tower_2', (pooled,)),
    )
    return Block(name, ((Conv('conv', 64),), *towers), 'average')


def _b(name: str) -> Block:
    tower = _tower('tower', (64,), (96, (3, 3)), (96, (3, 3), 2))
    return Block(name, ((Conv('conv', 384, (3, 3), 2),), tower), 'strided')


def _c(name: str, width: int) -> Block:
    row, column = (1, 7), (7, 1)
    towers = (
        _tower('tower', (width,), (width, row), (192, column)),
        _tower('tower_1', (width,), (width, column), (width, row), (width, column), (192, row)),
        _tower('tower_2', (192,)),
    )
    return Block(name, ((Conv('conv', 192),), *towers), 'average')


def _d(name: str) -> Block:
    towers = (
        _tower('tower', (192,), (320, (3, 3), 2)),
        _tower('tower_1', (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2)),
    )
    return Block(name, towers, 'strided')


def _e(name: str, pool: Pool) -> Block:
    towers = (
        _tower('tower', (384,)),
        _tower('tower_1', (448,), (384, (3, 3))),
        _tower('tower_2', (192,)),
    )
    split = tuple(
        (Conv(f'{tower}_mixed_conv', 384, (1, 3)), Conv(f'{tower}_mixed_conv_1', 384, (3, 1)))
        for tower in ('tower', 'tower_1')
    )
    return Block(name, ((Conv('conv', 320),), *towers), pool, split)


STEM = (
    Conv('conv', 32, (3, 3), 2),
    Conv('conv_1', 32, (3, 3)),  # the one convolution of stride 1 without padding, and conv_4
    Conv('conv_2', 64, (3, 3)),
    Conv('conv_3', 80),
    Conv('conv_4', 192, (3, 3)),
)
UNPADDED = ('conv_1', 'conv_4')
POOLED = ('conv_2', 'conv_4')  # a maximum of 3 x 3, stride 2, is behind them
BLOCKS = (
    *(_a(name, pooled) for name, pooled in (('mixed', 32), ('mixed_1', 64), ('mixed_2', 64))),
    _b('mixed_3'),
    *(_c(f'mixed_{i}', width) for i, width in ((4, 128), (5, 160), (6, 160), (7, 192))),
    _d('mixed_8'),
    _e('mixed_9', 'average'),
    _e('mixed_10', 'max'),
)


class Model(nn.Module):
    """Images [B, 299, 299, 3] as (pixels - 128) / 128 -> features by name.

    'pool3' [B, 2048]; 'spatial' [B, 17 * 17 * 7], the first channels of mixed_6/conv, which sFID takes, channels
    fastest; with a head 'logits' [B, 1008], of no bias, as the Inception score takes them.

    Attributes:
        head: whether there is the classifier's matrix; some public files lack it.
        dtype: of the convolutions.
    """

    head: bool = False
    dtype: jnp.dtype = jnp.float32

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple[jax.ShapeDtypeStruct]:
        """Shapes of `__call__`'s argument; the size is fixed."""
        return (jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3), jnp.float32),)

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        """Raises ValueError for images of another size."""
        if x.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(f'Inception takes images [B, {SIZE}, {SIZE}, 3]; got {x.shape}.')
        h = x.astype(self.dtype)
        for conv in STEM:
            h = ConvNormRelu(conv, conv.name in UNPADDED, self.dtype, name=conv.name)(h)
            if conv.name in POOLED:
                h = nn.max_pool(h, (3, 3), strides=(2, 2))
        found = {}
        for block in BLOCKS:
            outputs = Mixed(block, self.dtype, name=block.name)(h)
            if block.name == 'mixed_6':
                found['spatial'] = outputs[0][..., :SPATIAL].reshape(len(x), -1)
            h = jnp.concatenate(outputs, -1)
        found['pool3'] = h.mean((1, 2))
        if self.head:
            fresh = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ('embed', 'vocab'))
            kernel = self.param('head', fresh, (h.shape[-1], CLASSES))
            found['logits'] = found['pool3'] @ kernel
        return {name: features.astype(jnp.float32) for name, features in found.items()}


class Mixed(nn.Module):
    """x [B, H, W, C] -> the outputs of a block's branches, to be joined."""

    block: Block
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        outputs = []
        last = len(self.block.branches) - 1
        for i, branch in enumerate(self.block.branches):
            h = x
            if i == last and self.block.pool == 'average':
                h = nn.avg_pool(h, (3, 3), padding='SAME', count_include_pad=False)
            elif i == last and self.block.pool == 'max':
                h = nn.max_pool(h, (3, 3), padding='SAME')
            for conv in branch:
                h = ConvNormRelu(conv, False, self.dtype, name=conv.name)(h)
            if 0 < i <= len(self.block.split):
                pair = self.block.split[i - 1]
                outputs += [ConvNormRelu(conv, False, self.dtype, name=conv.name)(h) for conv in pair]
            else:
                outputs.append(h)
        if self.block.pool == 'strided':
            outputs.append(nn.max_pool(x, (3, 3), strides=(2, 2)))
        return outputs


class ConvNormRelu(nn.Module):
    """A convolution, batch norm by recorded statistics without a scale, and a ReLU."""

    conv: Conv
    unpadded: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features = self.conv.features
        shape = (*self.conv.kernel, x.shape[-1], features)
        axes = nn.with_logical_partitioning
        fresh = axes(nn.initializers.lecun_normal(), (None, None, 'conv_in', 'conv_out'))
        kernel: Any = self.param('kernel', fresh, shape)
        zeros, ones = (
            axes(init(), ('channels',)) for init in (nn.initializers.zeros_init, nn.initializers.ones_init)
        )
        bias = self.param('bias', zeros, (features,))
        mean = self.param('mean', zeros, (features,))
        var = self.param('var', ones, (features,))
        strided = self.conv.stride > 1
        if strided:
            # On TPUs XLA's space-to-batch rewrite of a strided convolution can compute a wrong result at small batches
            # a device when it is fused with its input.
            x = jax.lax.optimization_barrier(x)
        h = jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (self.conv.stride,) * 2,
            'VALID' if strided or self.unpadded else 'SAME',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )
        scale = jax.lax.rsqrt(var + EPSILON)
        return nn.relu(((h - mean) * scale + bias).astype(self.dtype))
