"""The smallest denoising network that every kind of conditioning can reach: two layers on each pixel."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.types import CondWidths


class Model(nn.Module):
    """Every part of Cond that the widths name moves the hidden layer."""

    out_channels: int = 3
    context: int | None = None
    concat: int | None = None
    vector: int | None = None
    label: int | None = None
    dtype: jnp.dtype = jnp.float32

    @property
    def conditioned_on(self) -> CondWidths:
        return CondWidths(self.context, self.concat, self.vector, self.label)

    @nn.compact
    def __call__(self, x, t, cond):
        h = x if self.concat is None else jnp.concatenate([x, cond.concat], axis=-1)
        h = nn.Dense(8, name='hidden')(h)
        of_images = [nn.Dense(8, name='time')(t[:, None] / 1000)]
        if self.context is not None:
            of_images.append(nn.Dense(8, name='context_in')(cond.context.mean(axis=1)))
        if self.vector is not None:
            of_images.append(nn.Dense(8, name='vector_in')(cond.vector))
        if self.label is not None:
            of_images.append(
                nn.Embed(self.label, 8, embedding_init=nn.initializers.normal(1.0), name='label_in')(
                    cond.label
                )
            )
        return nn.Dense(self.out_channels, name='out')(jnp.tanh(h + sum(of_images)[:, None, None]))
