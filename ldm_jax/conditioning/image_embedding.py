"""An image's CLIP embedding, noised, as the vector: unCLIP, which makes variations of what it shows.

The embedding is whitened, noised and brought back; the sinusoids of its noise level stand behind it.
Ref: Ramesh et al. 2022, arXiv:2204.06125, sections 3.1 and 3.2; stabilityai/stable-diffusion-2-1-unclip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks, to_float
from ldm_jax.diffusion import noise
from ldm_jax.diffusion.process import add_noise
from ldm_jax.models import clip_vision
from ldm_jax.models.layers import timestep_embedding
from ldm_jax.schedules import squared_cosine
from ldm_jax.types import Array, Cond, PyTree

SCHEDULE = squared_cosine.Schedule()  # of the embeddings' noise, whatever the latents' is


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.vector [B, 2 D], by the parts image_encoder and image_normalizer."""

    drop_rate: float = 0.0
    batch: ClassVar = (('embedding',), ('image',))
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ('image_normalizer',)

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('vector',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'embedding' [B, D], or 'image' [B, H, W, 3], which is embedded."""
        embedding = _embedding(networks, batch)
        level_keys, noise_keys = noise.split(keys, 2)
        level = jax.vmap(lambda key: jax.random.randint(key, (), 0, SCHEDULE.num_train_steps))(level_keys)
        return Cond(
            vector=unless(drop, _vector(networks, embedding, noise.normal(noise_keys, embedding), level))
        )

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: as `train`, and 'noise' [B, D] and 'level' [B] integers; no noise at level 0 by default."""
        embedding = _embedding(networks, given)
        eps = given.get('noise', jnp.zeros_like(embedding))
        level = given.get('level', jnp.zeros(len(embedding), jnp.int32))
        return pair(self.drop_rate, vector=_vector(networks, embedding, eps, level))


def embed(networks: Networks, images: Array) -> Array:
    """CLIP embeddings [B, D] of the image encoder's input [B, S, S, 3] (clip_vision.preprocess)."""
    return networks.apply('image_encoder', images).projected.astype(jnp.float32)


def _embedding(networks: Networks, given: Mapping[str, Array]) -> Array:
    if 'embedding' in given:
        return given['embedding']
    side = networks.module('image_encoder').image_size
    return embed(networks, clip_vision.preprocess(to_float(given['image']), side))


def _vector(networks: Networks, embedding: Array, eps: Array, level: Array) -> Array:
    """The vector [B, 2 D] of embeddings [B, D] noised to levels [B]."""
    whitened = networks.apply('image_normalizer', embedding, method='scale')
    noised = add_noise(whitened, eps, SCHEDULE.level(level))
    noised = networks.apply('image_normalizer', noised, method='unscale')
    return jnp.concatenate([noised, timestep_embedding(level, noised.shape[-1], noised.dtype)], axis=-1)
