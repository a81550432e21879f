"""Vector quantization: each latent vector gives way to the nearest of a learned set, the codebook.

    q(z) = e_k,  k = argmin_j |z - e_j|^2

The step has no gradient, so the decoder's passes straight through, dq/dz = 1. The codebook learns from a
loss of two terms, equal but for their gradients: |sg(z) - e|^2, the codebook's, pulls codes to latents, and
|z - sg(e)|^2, the commitment, latents to codes.
Ref: van den Oord et al. 2017, arXiv:1711.00937, eq. 3; Esser et al. 2021, arXiv:2012.09841.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.autoencoder import check_latents
from ldm_jax.types import Array


class Quantizer(nn.Module):
    """Nearest codes of latents: z [B, h, w, features] -> (quantized, loss, indices).

    beta weighs one term of the loss: with `legacy` the codebook's, as the published first stages were
    trained, otherwise the commitment, as the paper has it.
    """

    num_codes: int
    features: int
    beta: float = 0.25
    legacy: bool = True

    def setup(self):
        def init(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -1 / self.num_codes, 1 / self.num_codes)

        self.embedding = self.param(
            'embedding', nn.with_logical_partitioning(init, ('vocab', None)), (self.num_codes, self.features)
        )

    def __call__(self, z: Array) -> tuple[Array, Array, Array]:
        """Latents to the nearest codes, in float32 at least, whatever the dtype of z.

        Returns:
            quantized: [B, h, w, features], with the gradient of the identity with respect to z.
            loss: scalar, the codebook and commitment terms, each a mean over all elements.
            indices: [B, h, w] int32.

        Raises ValueError when z is not [B, h, w, features].
        """
        check_latents(z, self.features)
        z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
        indices = nearest(jax.lax.stop_gradient(z), jax.lax.stop_gradient(self.embedding))
        codes = self.lookup(indices)
        codebook = jnp.mean((codes - jax.lax.stop_gradient(z)) ** 2)
        commitment = jnp.mean((jax.lax.stop_gradient(codes) - z) ** 2)
        loss = commitment + self.beta * codebook if self.legacy else codebook + self.beta * commitment
        return z + jax.lax.stop_gradient(codes - z), loss, indices

    def lookup(self, indices: Array) -> Array:
        """Codes by index: integers [...] -> [..., features]; an index that is out of range gives NaN."""
        return jnp.take(self.embedding, indices, axis=0)


def nearest(z: Array, codebook: Array) -> Array:
    """Index of the code nearest to each vector, the lowest among equals.

    z [B, h, w, C], codebook [N, C] -> [B, h, w] int32.
    """
    squares = jnp.sum(codebook**2, axis=-1)

    def row(z):  # [B, w, C] -> [B, w]
        # The square is expanded in the published order, so that near ties fall alike. A matrix product in
        # bfloat16 or TF32, the default on accelerators, would pick other codes.
        products = jnp.einsum('bwc,nc->bwn', z, codebook, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmin(jnp.sum(z**2, axis=-1, keepdims=True) + squares - 2 * products, axis=-1)

    # By rows, since all distances at once are 134 MB an image for 8192 codes and 64 x 64 latents.
    return jax.lax.map(row, z.swapaxes(0, 1)).swapaxes(0, 1).astype(jnp.int32)


def code_counts(indices: Array, num_codes: int) -> Array:
    """How often each code occurs: integers [...] -> [num_codes]; counts of batches and devices add up."""
    return jnp.bincount(indices.reshape(-1), length=num_codes)


def codebook_usage(counts: Array) -> dict[str, Array]:
    """How much of the codebook is in use, from code_counts [N].

    Returns scalars: 'perplexity', exp of the entropy of the codes' frequencies, from 1 (one code) to N (all
    equally often); 'used', the fraction of codes that occur at all. A collapse of the codebook shows here.
    """
    frequencies = counts / jnp.maximum(jnp.sum(counts), 1)
    entropy = jnp.sum(jax.scipy.special.entr(frequencies))
    return {'perplexity': jnp.exp(entropy), 'used': jnp.mean(counts > 0)}
