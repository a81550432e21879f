"""The networks of a model and what is known of them: everything of a pipeline but its parameters.

Pure functions of the parameters, for pipelines, for training's images and for a researcher's own programs.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax import build
from ldm_jax.build import unknown
from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.denoiser import Network
from ldm_jax.diffusion.multidiffusion import Windows, windowed
from ldm_jax.inference.tiled import FirstStage
from ldm_jax.models.layers import timestep_embedding
from ldm_jax.types import Array, Cond, PyTree, Schedule

Params = Mapping[str, PyTree]  # part -> parameters
TOLD = ('in_channels', 'out_channels', 'context_width', 'vector_width', 'num_classes')  # of U-Nets


@dataclasses.dataclass(frozen=True)
class Parts:
    """Frozen and hashable, so that it is static under jit; parameters are an argument of each method."""

    unet: nn.Module
    first_stage: nn.Module | FirstStage
    schedule: Schedule
    parameterization: str
    scaling_factor: float
    latent_size: int  # side of the latents that it was trained on
    text_encoder: nn.Module | None = None
    has_tokenizer: bool = False  # without one the text encoder reads tokens of something else
    text_encoder_2: nn.Module | None = None  # SDXL's, whose projected text is the vector's first part
    class_embedder: nn.Module | None = None
    rescaler: nn.Module | None = None
    image_encoder: nn.Module | None = None
    image_normalizer: nn.Module | None = None
    weak_model: nn.Module | None = None  # a worse U-Net to guide away from (autoguidance)
    windows: Windows | None = None  # of latents, where images are larger than the U-Net is asked for at once

    @property
    def downscale(self) -> int:
        """Pixels for each latent along a side."""
        return self.first_stage.downscale

    @property
    def multiple(self) -> int:
        """The sides of images must be multiples of this: first stage and U-Net halve them so often."""
        return self.downscale * self.unet.downscale

    @property
    def extra_channels(self) -> int:
        """Of what the U-Net wants behind the latents."""
        return self.unet.in_channels - self.unet.out_channels

    @property
    def num_sizes(self) -> int:
        """How many numbers on the image's making are embedded behind the projected text: 6 in SDXL, 5 its refiner."""
        if self.unet.vector_width is None or self.image_encoder is not None:
            return 0
        return 6 if self.text_encoder_2 is not None else 5

    def latents(self, batch: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape [B, h, w, Z] of the latents of images of size (H, W)."""
        height, width = size
        return batch, height // self.downscale, width // self.downscale, self.unet.out_channels

    def network(self, params: Params, part: str = 'unet') -> Network:
        """The U-Net with its parameters bound, or the weak model."""

        def network(x, t, cond):
            return getattr(self, part).apply({'params': params[part]}, x, t, cond)

        return network if self.windows is None else windowed(network, self.windows)

    def text(
        self, params: Params, tokens: tuple[Array, ...], keep: Array, sizes: Array | None = None
    ) -> Cond:
        """What the U-Net is told by texts.

        Args:
            tokens: [B, L] of each tokenizer.
            keep: [B], 0 where zeros stand for a text.
            sizes: [B, num_sizes] numbers that are embedded behind the projected text, in pixels: original height
                and width, top and left of the crop, and height and width of the image; instead of these last
                two the refiner has an aesthetic score. Ref: Podell et al. 2023, arXiv:2307.01952, section 2.2.
        """
        out = self.text_encoder.apply({'params': params['text_encoder']}, tokens[0])
        if isinstance(out, jax.Array):  # LDM's BERT
            return Cond(context=out * keep[:, None, None])
        context, projected = out.context, out.projected
        if self.text_encoder_2 is not None:
            out = self.text_encoder_2.apply({'params': params['text_encoder_2']}, tokens[1])
            context, projected = jnp.concatenate([context, out.context], -1), out.projected
        context = context * keep[:, None, None].astype(context.dtype)
        if not self.num_sizes:
            return Cond(context=context)
        width = (self.unet.vector_width - projected.shape[-1]) // self.num_sizes
        embedded = timestep_embedding(sizes.reshape(-1), width).reshape(len(sizes), -1)
        projected = projected * keep[:, None].astype(projected.dtype)
        return Cond(
            context=context, vector=jnp.concatenate([projected, embedded.astype(projected.dtype)], -1)
        )

    def encode(self, params: Params, images: Array, eps: Array | None = None) -> Array:
        """Images [B, H, W, 3] in [-1, 1] to scaled latents: a sample of the posterior by eps, or its mean."""
        apply = self.first_stage.apply
        return self.scaling_factor * apply({'params': params['first_stage']}, images, eps, method='latents')

    def decode(self, params: Params, latents: Array) -> Array:
        """Scaled latents [B, h, w, Z] to images [B, H, W, 3], clipped to [-1, 1]."""
        variables = {'params': params['first_stage']}
        images = self.first_stage.apply(variables, latents / self.scaling_factor, method='decode')
        return jnp.clip(images.astype(jnp.float32), -1, 1)

    def classes(self, params: Params, labels: Array) -> Cond:
        """What the U-Net is told of classes [B]."""
        return Cond(context=self.class_embedder.apply({'params': params['class_embedder']}, labels))

    def semantics(self, params: Params, labels: Array) -> Array:
        """Maps of classes [B, H, W] to the channels [B, h, w, C] that the U-Net is told."""
        maps = jax.nn.one_hot(labels, self.rescaler.in_channels)
        return self.rescaler.apply({'params': params['rescaler']}, maps)


def from_settings(settings: Mapping[str, Any], dtype: str = 'float32') -> Parts:
    """The parts that a model directory's settings describe; dtype is for compute, parameters keep theirs.

    Raises ValueError for a model without a U-Net, a first stage or a schedule, or with parts that no pipeline knows.
    """
    known = {field.name for field in dataclasses.fields(Parts)}
    models = settings['models']
    if unknown := models.keys() - known:
        raise ValueError(f'Pipelines know no parts {sorted(unknown)}; they know {sorted(known)}.')
    needs = {'unet', 'first_stage'} - models.keys() | {'schedule', 'parameterization'} - settings.keys()
    if needs or settings.get('scaling_factor') is None:
        raise ValueError(
            f'Sampling needs a whole model; this one has {sorted(models)} and lacks '
            f'{sorted(needs) or ["scaling_factor"]}. Convert the parts together; --vae MODEL takes a first stage from '
            'another one.'
        )
    parameterization.named(settings['parameterization'])  # raises for a wrong one
    return Parts(
        schedule=build.build('schedules', settings['schedule']),
        parameterization=settings['parameterization'],
        scaling_factor=settings['scaling_factor'],
        latent_size=settings['latent_size'],
        has_tokenizer='tokenizer' in settings,
        **{name: build.build('models', dict(spec, dtype=dtype)) for name, spec in models.items()},
    )


def with_weak_model(parts: Parts, settings: Mapping[str, Any], dtype: str = 'float32') -> Parts:
    """The parts with the U-Net of another model's settings as the weak model of autoguidance.

    Raises ValueError for a model of other latents, or that is told something else.
    """
    other = from_settings(settings, dtype)
    for name in ('schedule', 'parameterization', 'scaling_factor', *(f'unet.{field}' for field in TOLD)):
        ours, theirs = (operator.attrgetter(name)(each) for each in (parts, other))
        if ours != theirs:
            raise ValueError(
                f'A weak model is a worse version of the model: {name} is {theirs} of it, not {ours}.'
            )
    return dataclasses.replace(parts, weak_model=other.unet)


def skipping(parts: Parts, clip_skip: int) -> Parts:
    """The parts with the text encoder's last layer but clip_skip - 1 as context.

    Raises ValueError for a model with another kind of text encoder, or one that leaves layers out by itself, or for
    more layers than it has.
    """
    encoder = parts.text_encoder
    if not hasattr(encoder, 'output_layer') or not encoder.final_norm:
        raise ValueError(
            'clip_skip is for Stable Diffusion 1 and 2; SDXL leaves out the last layer by itself, and other models '
            'read no CLIP text. Leave it at 1.'
        )
    if not 1 <= clip_skip <= encoder.num_layers:
        raise ValueError(f'clip_skip must be from 1 to {encoder.num_layers}; got {clip_skip}.')
    return dataclasses.replace(parts, text_encoder=encoder.clone(output_layer=-clip_skip))


def seamless(parts: Parts, axes: str) -> Parts:
    """The parts with convolutions that go round on axes 'x', 'y' or 'xy': images that continue in themselves.

    Raises ValueError for other axes.
    """
    if axes not in ('x', 'y', 'xy'):
        raise unknown('axes to go round', axes, ['x', 'y', 'xy'])
    names = ['unet', 'first_stage'] + ['weak_model'] * (parts.weak_model is not None)
    return dataclasses.replace(parts, **{name: getattr(parts, name).clone(wrap=axes) for name in names})
