"""Whitening of CLIP image embeddings, which unCLIP noises: (x - mean) / std, by the statistics of a data set.

The noise schedule of an embedding supposes unit variance, and embeddings are far from it. The U-Net is
given the noised embedding in the embeddings' own scale again.
Ref: Ramesh et al. 2022, arXiv:2204.06125, section 2; Stability-AI/stablediffusion.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.types import Array


class Model(nn.Module):
    """embeddings [B, width] -> whitened [B, width]. Its two parameters are statistics, not trained.

    width: of CLIP's projected image: 768 (ViT-L/14), 1024 (ViT-H/14).
    """

    width: int = 768
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        def statistic(name, init):
            return self.param(name, nn.with_logical_partitioning(init, ('embed',)), (self.width,))

        self.mean = statistic('mean', nn.initializers.zeros)
        self.std = statistic('std', nn.initializers.ones)

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple[jax.ShapeDtypeStruct]:
        """Shapes of `__call__`'s arguments; embeddings have no size."""
        return (jax.ShapeDtypeStruct((batch, self.width), jnp.float32),)

    def __call__(self, x: Array) -> Array:
        """`scale`."""
        return self.scale(x)

    def scale(self, x: Array) -> Array:
        """Embeddings [B, width] to zero mean and unit variance."""
        return ((self._checked(x) - self.mean) / self.std).astype(self.dtype)

    def unscale(self, x: Array) -> Array:
        """The inverse of `scale`."""
        return (self._checked(x) * self.std + self.mean).astype(self.dtype)

    def _checked(self, x: Array) -> Array:
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ValueError(f'Image embeddings must be [B, {self.width}]; got {list(x.shape)}.')
        return x.astype(jnp.float32)
