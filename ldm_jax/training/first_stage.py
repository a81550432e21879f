"""Training stage 1: the autoencoder.

loss = mean |x - x_hat| + kl_weight KL / (pixels x channels)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax import pictures, trees
from ldm_jax.data import pipeline
from ldm_jax.models import vae
from ldm_jax.types import Array, PyTree


@struct.dataclass
class Draws:
    """All the randomness of one step."""

    eps: Array  # [B, h, w, Z] noise of the posterior's sample


@dataclasses.dataclass(frozen=True)
class Stage:
    """A KL autoencoder learns to reconstruct images through latents that stay near a standard normal.

    Ref: Rombach et al. 2022, arXiv:2112.10752, appendix G, without its perceptual and adversarial terms.
    """

    first_stage: nn.Module  # models/vae.py
    image_size: int
    kl_weight: float = 1e-6

    def init(self, key: Array) -> PyTree:
        return trees.init(self.first_stage, key, size=self.image_size)

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples:
        """Examples as the loss wants them: dict(image=float32 [S, S, 3] in [-1, 1])."""
        return pipeline.Mapped(source, lambda example: {'image': pictures.to_float(example['image'])})

    def draw(self, key: Array, batch: PyTree) -> Draws:
        b, h, w, _ = batch['image'].shape
        f = self.first_stage.downscale
        return Draws(eps=jax.random.normal(key, (b, h // f, w // f, self.first_stage.z_channels)))

    def loss(self, params: PyTree, batch: PyTree, draws: Draws) -> tuple[Array, dict[str, Array]]:
        image = batch['image']
        reconstruction, moments = self.first_stage.apply({'params': params}, image, draws.eps)
        l1 = jnp.mean(jnp.abs(image - reconstruction))
        kl = jnp.mean(vae.kl_divergence(moments)) / image[0].size
        metrics = {'l1': l1, 'kl': kl, 'psnr': 10 * jnp.log10(4 / jnp.mean((image - reconstruction) ** 2))}
        return l1 + self.kl_weight * kl, metrics

    def picture(self, params: PyTree, batch: PyTree, draws: PyTree) -> Array:
        """Rows of images [2, B, S, S, 3]: inputs over their reconstructions from the posterior's mean."""
        reconstruction, _ = self.first_stage.apply({'params': params}, batch['image'])
        return jnp.stack([batch['image'], reconstruction])

    def export(self, params: PyTree, batches: Iterable[PyTree]) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """(settings, parameters by part); latent_scale is one over the standard deviation of the batches' latents."""
        encode = jax.jit(lambda x: self.first_stage.apply({'params': params}, x, method='latents'))
        latents = np.concatenate([np.asarray(encode(batch['image'])) for batch in batches])
        return {'latent_scale': float(1 / latents.std())}, {'first_stage': params}
