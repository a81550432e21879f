"""Prompt tokens to images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.build import build
from ldm_jax.diffusion import grids, guidance, noise, parameterization
from ldm_jax.diffusion.denoiser import denoiser, on_schedule
from ldm_jax.diffusion.sampling import sample
from ldm_jax.types import Array, Cond, PyTree, Sampler, Schedule


@dataclasses.dataclass(frozen=True)
class TextToImage:
    """Text encoder, U-Net and first stage with the settings that make them a sampler of pictures.

    Frozen and hashable; parameters are an argument, and the caller jits.
    """

    text_encoder: nn.Module
    unet: nn.Module
    first_stage: nn.Module
    schedule: Schedule
    sampler: Sampler
    parameterization: str
    latent_scale: float
    latent_size: tuple[int, int]  # h, w
    num_steps: int
    grid: grids.Grid

    def __call__(
        self,
        params: Mapping[str, PyTree],
        tokens: Array,
        null_tokens: Array,
        key: Array,
        guidance_scale: Array,
    ) -> Array:
        """Images [B, H, W, 3] in [-1, 1].

        Args:
            params: of the parts 'text_encoder', 'unet' and 'first_stage'.
            tokens: [B, L] of the prompts; null_tokens [B, L] of the negative or empty ones.
            key: PRNG key. Image i depends on the key and i, not on the size of the batch.
            guidance_scale: [] or [B]; 1 is no guidance.
        """

        def encode(ids):
            return Cond(context=self.text_encoder.apply({'params': params['text_encoder']}, ids).context)

        def network(x, t, cond):
            return self.unet.apply({'params': params['unet']}, x, t, cond)

        cond = guidance.pair(encode(null_tokens), encode(tokens))
        predict = denoiser(network, parameterization.named(self.parameterization), cond)
        denoise = on_schedule(guidance.classifier_free(predict, guidance_scale), self.schedule)
        levels = self.grid(self.schedule, self.num_steps)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(tokens)))
        noise_keys, sampler_keys = noise.split(keys, 2)
        x = levels.sigma[0] * noise.normal(noise_keys, self.latents(len(tokens)))
        latents = sample(self.sampler, denoise, x, levels, sampler_keys)
        images = self.first_stage.apply(
            {'params': params['first_stage']}, latents / self.latent_scale, method='decode'
        )
        return jnp.clip(images, -1, 1)

    def latents(self, batch: int) -> jax.ShapeDtypeStruct:
        """The shape of the latents [B, h, w, Z]."""
        return jax.ShapeDtypeStruct((batch, *self.latent_size, self.unet.out_channels), jnp.float32)


def from_settings(
    settings: Mapping[str, Any],
    *,
    sampler: Mapping[str, Any],
    num_steps: int,
    grid: str | Mapping[str, Any] = 'trailing',
    dtype: str = 'float32',
) -> TextToImage:
    """The pipeline that a model directory's settings describe, with a sampler spec; dtype is for compute.

    Raises ValueError for a model that is told more, or less, than a text.
    """
    needs = {'text_encoder', 'unet', 'first_stage'}
    unet = settings['models'].get('unet', {})
    if (
        settings['models'].keys() != needs
        or unet.get('vector_width')
        or unet.get('in_channels', 4) != unet.get('out_channels', 4)
    ):
        raise ValueError(
            f'Text to image is for models of {sorted(needs)} that are told a text and nothing else; this one has '
            f'{sorted(settings["models"])}, and its unet takes {unet.get("in_channels", 4)} channels.'
        )

    def part(name):
        return build('models', dict(settings['models'][name], dtype=dtype))

    return TextToImage(
        text_encoder=part('text_encoder'),
        unet=part('unet'),
        first_stage=part('first_stage'),
        schedule=build('schedules', settings['schedule']),
        sampler=build('samplers', sampler),
        parameterization=settings['parameterization'],
        latent_scale=settings['latent_scale'],
        latent_size=(settings['latent_size'],) * 2,
        num_steps=num_steps,
        grid=grids.named(grid),
    )
