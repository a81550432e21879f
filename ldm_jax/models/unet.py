"""The denoising U-Net of latent diffusion: one module, whose fields express every published variant.

    x, concat -> conv_in -> down levels -> middle -> up levels, joined with the down path -> conv_out

What a level holds beside its residual blocks is either a transformer that reads a context, or plain
self-attention (unconditional and image-to-image models), or nothing (depth 0).
Ref: Rombach et al. 2022, arXiv:2112.10752; Podell et al. 2023, arXiv:2307.01952 (SDXL);
Dhariwal & Nichol 2021, arXiv:2105.05233 (resblock_updown, scale_shift).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax import denoising
from ldm_jax.models import layers, unet_checks
from ldm_jax.models.attention import SpatialSelfAttention
from ldm_jax.models.resnet import Downsample, ResBlock, Upsample
from ldm_jax.models.transformer import SpatialTransformer
from ldm_jax.types import Array, Cond, CondWidths


class Model(nn.Module):
    """x [B, h, w, in_channels - concat], t [B], Cond -> [B, h, w, out_channels].

    What the output means (eps, v or x0) is the parameterization's business. Parameters are float32, the
    output is x's dtype, `dtype` is the compute dtype in between.
    """

    in_channels: int = 4  # of conv_in: latents, then those of Cond.concat
    out_channels: int = 4
    channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    # Transformer blocks per attention at each level, or for each of its residual blocks; 0: no attention.
    depth: tuple[int | tuple[int, ...], ...] = (1, 1, 1, 0)
    depth_up: tuple[int | tuple[int, ...], ...] = ()  # of the way up, where that does not mirror the way down
    mid_depth: int = 1
    mid_res_blocks: int = 2  # around the middle's attention; 1 or 0, without attention, in distilled networks
    num_heads: int | None = None  # heads of each attention: a fixed count,
    head_width: int | None = None  # or as many as have this width; exactly one is given
    context_width: int | None = None  # None: plain self-attention instead of transformers
    vector_width: int | None = None  # Cond.vector goes through an MLP of its own, and is added to the time
    num_classes: int | None = None  # Cond.label is looked up, and added to the time
    guidance_width: int | None = (
        None  # Cond.guidance goes into the time's sinusoids through so many of its own
    )
    cross_attention_only: tuple[bool, ...] = ()  # per level: both attentions read the context
    scale_shift: bool = False  # residual blocks are modulated by time, not added to
    resblock_updown: bool = False  # residual blocks change the resolution, not convolutions
    # Attention that Cond.perturbed is for: 'up_1_attn_0', 'down_2', 'up'.
    perturbed: tuple[str, ...] = ('mid',)
    num_groups: int = 32
    wrap: str = ''  # 'x', 'y' or 'xy': convolutions go round there, for images without a seam
    remat: bool = False  # recompute each block in the backward pass: less memory, a third more time
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        if (self.num_heads is None) == (self.head_width is None):
            raise ValueError(
                f'A U-Net takes either num_heads or head_width; got {self.num_heads} and {self.head_width}.'
            )
        levels = len(self.channel_mult)
        unet_checks.check_depths(self)
        if self.cross_attention_only and (
            self.context_width is None or len(self.cross_attention_only) != levels
        ):
            raise ValueError(
                f'cross_attention_only {self.cross_attention_only} needs context_width, and one entry for '
                f'each level of channel_mult {self.channel_mult}; or leave it empty.'
            )
        for mult, depth in zip(
            (*self.channel_mult, self.channel_mult[-1]), (*self.deepest, self.mid_depth), strict=True
        ):
            features = self.channels * mult
            if features % self.num_groups:
                raise ValueError(f'{features} channels do not split into num_groups={self.num_groups}.')
            if depth and features % (self.num_heads or self.head_width):
                raise ValueError(
                    f'Attention over {features} channels does not split into num_heads={self.num_heads} or '
                    f'head_width={self.head_width}.'
                )

    def down_depths(self, level: int) -> tuple[int, ...]:
        """Transformer blocks behind each residual block of a level on the way down."""
        return _each(self.depth[level], self.num_res_blocks)

    def up_depths(self, level: int) -> tuple[int, ...]:
        """Transformer blocks behind each residual block of a level on the way up, in the order of computation."""
        return _each((self.depth_up or self.depth)[level], self.num_res_blocks + 1)

    @property
    def deepest(self) -> tuple[int, ...]:
        """The most transformer blocks of an attention of each level; 0 where there is none."""
        return tuple(
            max(*self.down_depths(level), *self.up_depths(level)) for level in range(len(self.channel_mult))
        )

    @property
    def downscale(self) -> int:
        """Latent sides must be multiples of this."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def conditioned_on(self) -> CondWidths:
        """The parts of Cond that the fields ask for."""
        concat = self.in_channels - self.out_channels
        return CondWidths(
            self.context_width,
            concat if concat > 0 else None,
            self.vector_width,
            self.num_classes,
            self.guidance_width,
        )

    @property
    def masks_context(self) -> bool:
        """Cond.context_mask is taken, by every attention over the context."""
        return self.context_width is not None

    def heads(self, features: int) -> int:
        """How many heads attention over this many channels has."""
        return self.num_heads or features // self.head_width

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; size is the latent's side (default 64)."""
        return denoising.inputs(self, batch, size)

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = Cond()) -> Array:  # noqa: B008 (Cond is frozen)
        """One evaluation.

        Args:
            x: noisy latents [B, h, w, C].
            t: schedule times [B], or [] for the whole batch.
            cond: with the parts that the fields ask for, and no others.

        Raises:
            ValueError: a part of cond is missing, not wanted or of the wrong shape, the channels do not
                add up, or a side cannot be halved often enough.
        """
        unet_checks.check_inputs(self, x, cond)
        temb = self._time(jnp.broadcast_to(t, x.shape[:1]), cond)
        h = x if cond.concat is None else jnp.concatenate([x, cond.concat.astype(x.dtype)], axis=-1)

        h = layers.conv(self.channels, wrap=self.wrap, dtype=self.dtype, name='conv_in')(h)
        skips = [h]
        last = len(self.channel_mult) - 1
        cross_only = self.cross_attention_only or (False,) * len(self.channel_mult)
        for level, mult in enumerate(self.channel_mult):
            for i in range(self.num_res_blocks):
                h = self._res_block(self.channels * mult, f'down_{level}_res_{i}')(h, temb)
                depth = self.down_depths(level)[i]
                h = self._attend(h, cond, f'down_{level}_attn_{i}', depth, cross_only[level])
                skips.append(h)
            if level < last:
                if self.resblock_updown:
                    h = self._res_block(h.shape[-1], f'down_{level}_sample', 'down')(h, temb)
                else:
                    h = Downsample((1, 1), self.dtype, self.wrap, name=f'down_{level}_sample')(h)
                skips.append(h)

        for i in range(self.mid_res_blocks):
            h = self._res_block(h.shape[-1], f'mid_res_{i}')(h, temb)
            if i == 0:
                h = self._attend(h, cond, 'mid_attn', self.mid_depth)

        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._res_block(self.channels * mult, f'up_{level}_res_{i}')(h, temb)
                depth = self.up_depths(level)[i]
                h = self._attend(h, cond, f'up_{level}_attn_{i}', depth, cross_only[level])
            if level > 0:
                if self.resblock_updown:
                    h = self._res_block(h.shape[-1], f'up_{level}_sample', 'up')(h, temb)
                else:
                    h = Upsample(self.dtype, self.wrap, name=f'up_{level}_sample')(h)

        h = layers.group_norm(epsilon=1e-5, num_groups=self.num_groups, dtype=self.dtype, name='norm_out')(h)
        out = layers.conv(
            self.out_channels, wrap=self.wrap, kernel_init=layers.ZEROS, dtype=self.dtype, name='conv_out'
        )
        return out(nn.silu(h)).astype(x.dtype)

    def _res_block(self, features: int, name: str, resample: str = 'none') -> nn.Module:
        block = nn.remat(ResBlock) if self.remat else ResBlock
        return block(
            features,
            num_groups=self.num_groups,
            scale_shift=self.scale_shift,
            resample=resample,
            zero_init=True,
            wrap=self.wrap,
            dtype=self.dtype,
            name=name,
        )

    def _attend(self, h: Array, cond: Cond, name: str, depth: int, cross_only: bool = False) -> Array:
        """h [B, H, W, C] after attention of this depth; h itself if that is 0."""
        if depth == 0:
            return h
        perturbed = cond.perturbed if any(unet_checks.within(name, part) for part in self.perturbed) else None
        features = h.shape[-1]
        heads = self.heads(features)
        shared = dict(num_groups=self.num_groups, backend=self.attention_backend, dtype=self.dtype, name=name)
        if self.context_width is None:
            block = nn.remat(SpatialSelfAttention) if self.remat else SpatialSelfAttention
            return block(heads, epsilon=1e-5, zero_init=True, **shared)(h, perturbed)
        stack = nn.remat(SpatialTransformer) if self.remat else SpatialTransformer
        stack = stack(heads, features // heads, depth, cross_attention_only=cross_only, **shared)
        return stack(h, cond.context.astype(self.dtype), perturbed, cond.context_mask)

    def _time(self, t: Array, cond: Cond) -> Array:
        """The embedding [B, 4 channels] of time, and of vector or label, that residual blocks read."""
        width = 4 * self.channels

        def mlp(x, name, axis):
            x = layers.dense(width, axes=(axis, 'time'), dtype=self.dtype, name=f'{name}_in')(x)
            return layers.dense(width, axes=('time', 'time'), dtype=self.dtype, name=f'{name}_out')(
                nn.silu(x)
            )

        sinusoids = layers.timestep_embedding(t, self.channels, self.dtype)
        if self.guidance_width is not None:
            embedded = layers.guidance_embedding(cond.guidance, self.guidance_width, self.dtype)
            sinusoids = sinusoids + layers.dense(
                self.channels, axes=(None, 'embed'), use_bias=False, dtype=self.dtype, name='guidance'
            )(embedded)
        temb = mlp(sinusoids, 'time', 'embed')
        if self.vector_width is not None:
            temb = temb + mlp(cond.vector.astype(self.dtype), 'vector', 'embed')
        if self.num_classes is not None:
            table = layers.embed(
                self.num_classes, width, axes=('vocab', 'time'), dtype=self.dtype, name='label'
            )
            temb = temb + table(cond.label)
        return temb

    def self_attention(self) -> list[str]:
        """The names of the blocks with attention over pixels."""
        cross_only = self.cross_attention_only or (False,) * len(self.channel_mult)
        levels = [level for level, only in enumerate(cross_only) if not only]
        down = [f'down_{n}_attn_{i}' for n in levels for i, depth in enumerate(self.down_depths(n)) if depth]
        up = [f'up_{n}_attn_{i}' for n in levels for i, depth in enumerate(self.up_depths(n)) if depth]
        return [*down, *['mid_attn'] * bool(self.mid_depth), *up]


def _each(depth: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """One depth for each of so many residual blocks."""
    return tuple(depth) if isinstance(depth, tuple | list) else (depth,) * count
