"""A plain transformer as denoising network: time, text and patches are one row of tokens that attend to each other.

Ref: Bao et al. 2022, arXiv:2209.12152 (U-ViT), without its long skips; Peebles & Xie 2022, arXiv:2212.09748.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.models.attention import Attention
from ldm_jax.types import Array, Cond, CondWidths


class Model(nn.Module):
    """x [B, h, w, out_channels], t [B], Cond(context [B, L, context_width]) -> [B, h, w, out_channels]."""

    out_channels: int = 4
    context_width: int = 64
    width: int = 64
    depth: int = 6
    num_heads: int = 4
    patch: int = 1
    dtype: jnp.dtype = jnp.float32

    @property
    def conditioned_on(self) -> CondWidths:
        return CondWidths(context=self.context_width)

    @property
    def downscale(self) -> int:
        return self.patch

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond) -> Array:
        b, h, w, channels = x.shape
        p, rows, columns = self.patch, h // self.patch, w // self.patch

        def dense(features, name, **options):
            return layers.dense(features, name=name, axes=('embed', 'mlp'), dtype=self.dtype, **options)

        patches = x.reshape(b, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        patches = dense(self.width, 'patch_in')(patches.reshape(b, rows * columns, -1))
        patches = patches + _positions(rows, columns, self.width)
        time = dense(self.width, 'time_in')(layers.timestep_embedding(t, self.width, self.dtype))
        context = dense(self.width, 'context_in')(cond.context.astype(self.dtype))
        tokens = jnp.concatenate([time[:, None], context, patches], axis=1)

        for i in range(self.depth):
            normed = layers.layer_norm(name=f'norm_{i}_attention', dtype=self.dtype)(tokens)
            attention = Attention(
                self.num_heads,
                self.width // self.num_heads,
                self.width,
                dtype=self.dtype,
                name=f'attention_{i}',
            )
            tokens = tokens + attention(normed)
            normed = layers.layer_norm(name=f'norm_{i}_mlp', dtype=self.dtype)(tokens)
            hidden = nn.gelu(dense(4 * self.width, f'mlp_{i}_in')(normed))
            tokens = tokens + dense(self.width, f'mlp_{i}_out')(hidden)

        patches = layers.layer_norm(name='norm_out', dtype=self.dtype)(tokens[:, -rows * columns :])
        out = dense(p * p * channels, 'patch_out', kernel_init=layers.ZEROS)(patches)
        out = out.reshape(b, rows, columns, p, p, channels).transpose(0, 1, 3, 2, 4, 5)
        return out.reshape(x.shape).astype(x.dtype)


def _positions(rows: int, columns: int, width: int) -> Array:
    """Sinusoids of each patch's row and column, [rows x columns, width], for latents of any size."""
    along = [layers.timestep_embedding(jnp.arange(n, dtype=jnp.float32), width // 2) for n in (rows, columns)]
    grid = jnp.broadcast_to(along[0][:, None], (rows, columns, width // 2))
    return jnp.concatenate([grid, jnp.broadcast_to(along[1], grid.shape)], axis=-1).reshape(-1, width)
