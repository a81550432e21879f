"""Training stage 3: the U-Net denoises latents, told what the caption says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax import pictures, trees
from ldm_jax.data import pipeline
from ldm_jax.diffusion import loss as diffusion_loss
from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.denoiser import denoiser
from ldm_jax.diffusion.process import add_noise
from ldm_jax.models import vae
from ldm_jax.progress import progress
from ldm_jax.types import Array, Cond, PyTree, Schedule, Tokenizer


@struct.dataclass
class Draws:
    """All the randomness of one step."""

    posterior: Array  # [B, h, w, Z] noise of the first stage's sample
    noise: diffusion_loss.Draws
    drop: Array  # [B] bool: these pictures are shown without their caption


@dataclasses.dataclass(frozen=True)
class Stage:
    """Text-conditional latent diffusion over a frozen first stage and a frozen text encoder.

    With drop_rate of the captions replaced by the empty one, the network also learns the unconditional
    score that guidance needs (Ho & Salimans 2022, arXiv:2207.12598).
    Ref: Rombach et al. 2022, arXiv:2112.10752, eq. 3.
    """

    unet: nn.Module
    first_stage: nn.Module
    text_encoder: nn.Module
    frozen: Mapping[str, PyTree]  # parameters of 'first_stage' and 'text_encoder'
    tokenizer: Tokenizer  # of ldm_jax/text
    schedule: Schedule
    parameterization: str
    latent_scale: float
    latent_size: int
    drop_rate: float = 0.1
    initial: PyTree | None = None  # parameters of a U-Net to train on from; fresh ones by default

    def init(self, key: Array) -> PyTree:
        if self.initial is not None:
            return jax.tree.map(jnp.asarray, self.initial)
        return trees.init(self.unet, key, size=self.latent_size)

    def prepare(self, source: pipeline.Examples, batch_size: int = 64) -> pipeline.Examples:
        """The whole source encoded once, in memory: dict(moments=[h, w, 2 Z], context=[L, D])."""
        encode = jax.jit(lambda x: self._apply('first_stage', x, method='encode'))
        describe = jax.jit(lambda tokens: self._apply('text_encoder', tokens).context)
        encoded = {'moments': [], 'context': []}
        total = -(-len(source) // batch_size)
        for batch in progress(pipeline.in_order(source, batch_size), total, 'encoding'):
            encoded['moments'].append(np.asarray(encode(pictures.to_float(batch['image']))))
            encoded['context'].append(np.asarray(describe(self.tokenizer(list(batch['text'])))))
        return pipeline.InMemory({name: np.concatenate(arrays) for name, arrays in encoded.items()})

    def draw(self, key: Array, batch: PyTree) -> Draws:
        posterior, eps, t, drop = jax.random.split(key, 4)
        b, *shape, moments = batch['moments'].shape
        shape = (b, *shape, moments // 2)
        noise = diffusion_loss.Draws(
            t=jax.random.randint(t, (b,), 0, self.schedule.num_train_steps),
            eps=jax.random.normal(eps, shape),
        )
        return Draws(
            jax.random.normal(posterior, shape), noise, jax.random.bernoulli(drop, self.drop_rate, (b,))
        )

    def loss(self, params: PyTree, batch: PyTree, draws: Draws) -> tuple[Array, dict[str, Array]]:
        x0 = self.latent_scale * vae.sample(batch['moments'], draws.posterior)
        null = self._apply('text_encoder', self.tokenizer('')).context
        context = jnp.where(draws.drop[:, None, None], null, batch['context'])

        def network(x, t, cond):
            return self.unet.apply({'params': params}, x, t, cond)

        losses = diffusion_loss.denoising(
            network,
            self.schedule,
            parameterization.named(self.parameterization),
            x0,
            Cond(context=context),
            draws.noise,
        )
        return jnp.mean(losses), {}

    def picture(self, params: PyTree, batch: PyTree, draws: Draws) -> Array:
        """Rows of images [6, B, S, S, 3]: originals over what the network makes of them at rising noise."""
        x0 = self.latent_scale * vae.sample(batch['moments'], None)

        def network(x, t, cond):
            return self.unet.apply({'params': params}, x, t, cond)

        denoise = denoiser(
            network, parameterization.named(self.parameterization), Cond(context=batch['context'])
        )
        rows = [x0]
        for t in np.linspace(0.1, 0.9, 5) * self.schedule.num_train_steps:
            level = self.schedule.level(t)
            rows.append(denoise(add_noise(x0, draws.noise.eps, level), level))
        decoded = self._apply('first_stage', jnp.concatenate(rows) / self.latent_scale, method='decode')
        return decoded.reshape(len(rows), -1, *decoded.shape[1:])

    def export(self, params: PyTree, batches: Iterable[PyTree]) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """(settings, parameters by part): everything that sampling needs."""
        settings = {
            'parameterization': self.parameterization,
            'latent_scale': self.latent_scale,
            'latent_size': self.latent_size,
        }
        return settings, {'unet': params, **self.frozen}

    def _apply(self, part: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, part).apply({'params': self.frozen[part]}, *args, **kwargs)
