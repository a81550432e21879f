"""Classes as a context of one token, as the class-conditional ImageNet models read them.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.types import Array


class Model(nn.Module):
    """labels [B] -> context [B, 1, width]. Where num_classes is 1001, the last one means no class."""

    num_classes: int = 1000
    width: int = 512
    dtype: jnp.dtype = jnp.float32

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; labels have no size."""
        return (jax.ShapeDtypeStruct((batch,), jnp.int32),)

    @nn.compact
    def __call__(self, labels: Array) -> Array:
        """Looks labels up.

        Raises ValueError for labels that are not integers [B]. A label beyond num_classes makes NaN.
        """
        if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(f'labels must be integers [B]; got {labels.dtype}{list(labels.shape)}.')
        table = layers.embed(
            self.num_classes,
            self.width,
            init=nn.initializers.normal(1.0),
            dtype=self.dtype,
            name='embedding',
        )
        return table(labels)[:, None]
