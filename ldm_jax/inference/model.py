"""A diffusion model without its parameters: its networks, noise schedule and conditioning, read from settings once.

Its methods are pure functions of the parameters, for pipelines and for a researcher's own programs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax import adapted, build, denoising
from ldm_jax.build import unknown
from ldm_jax.conditioning import combine, infer
from ldm_jax.conditioning.combine import Kind
from ldm_jax.conditioning.networks import PARTS, Networks
from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.denoiser import Network
from ldm_jax.diffusion.multidiffusion import Windows, windowed
from ldm_jax.inference.tiled import FirstStage
from ldm_jax.types import Array, Cond, PyTree, Schedule

Params = Mapping[str, PyTree]  # part -> parameters


@dataclasses.dataclass(frozen=True)
class Parts:
    """Frozen and hashable, so that it is static under jit; parameters are an argument of each method.

    Attributes:
        unet: a types.DenoisingNetwork.
        first_stage: None for a model of pixels.
        latent_size: side of the latents of its training.
        conditioning: (name, kind) of each kind of conditioning, in the order in which they are put together.
        weak_model: a worse denoising network to guide away from (autoguidance).
        windows: of latents, where images are larger than the network sees at once.
    """

    unet: nn.Module
    first_stage: nn.Module | FirstStage | None
    schedule: Schedule
    parameterization: str
    scaling_factor: float
    latent_size: int
    conditioning: tuple[tuple[str, Kind], ...] = ()
    text_encoder: nn.Module | None = None
    text_encoder_2: nn.Module | None = None
    class_embedder: nn.Module | None = None
    rescaler: nn.Module | None = None
    image_encoder: nn.Module | None = None
    image_normalizer: nn.Module | None = None
    weak_model: nn.Module | None = None
    windows: Windows | None = None

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds of conditioning (combine.Kind, with fields of their own) by name."""
        return dict(self.conditioning)

    @property
    def conditioning_kinds(self) -> list[str]:
        """The modules of the kinds of conditioning."""
        return [combine.module_name(kind) for _, kind in self.conditioning]

    @property
    def guidable(self) -> bool:
        """Whether there is anything to guide away from: another text, or what training left out at times."""
        return any(kind.drop_rate > 0 or ('tokens',) in kind.batch for _, kind in self.conditioning)

    @property
    def embeds_guidance(self) -> bool:
        """Whether the network has learned what guidance does, and takes its scale (LCM)."""
        return denoising.conditioned_on(self.unet).guidance is not None

    @property
    def num_sizes(self) -> int:
        """How many facts of an image's making the model is conditioned on: 6 in SDXL, 5 in its refiner, else 0."""
        return self.kinds['sizes'].count if 'sizes' in self.kinds else 0

    @property
    def downscale(self) -> int:
        """Pixels for each latent along a side."""
        return 1 if self.first_stage is None else self.first_stage.downscale

    @property
    def multiple(self) -> int:
        """The sides of images must be multiples of this: the first stage and the network halve them."""
        return self.downscale * denoising.downscale(self.unet)

    def latents(self, batch: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape [B, h, w, Z] of the latents of images of size (H, W)."""
        height, width = size
        return batch, height // self.downscale, width // self.downscale, self.unet.out_channels

    def network(self, params: Params, part: str = 'unet') -> Network:
        """The denoising network with its parameters bound, or the weak model."""
        factors = params.get(adapted.COLLECTION, {}).get(part)
        network = denoising.bound(getattr(self, part), params[part], factors)
        return network if self.windows is None else windowed(network, self.windows)

    def networks(self, params: Params) -> Networks:
        """All networks with their parameters bound, for the kinds of conditioning."""
        modules = {part: getattr(self, part) for part in PARTS if getattr(self, part) is not None}
        return Networks(modules, params, self.scaling_factor, self.schedule)

    def conditions(
        self, params: Params, given: Mapping[str, Mapping[str, Array]], strengths: Array | None = None
    ) -> dict[str, tuple[Cond, Cond]]:
        """(unconditional, conditional) of each kind of conditioning, from what its `sample` is given.

        strengths: [B, K] of adapters that are factors.
        """
        networks, kinds = dataclasses.replace(self.networks(params), strengths=strengths), self.kinds
        return {name: kinds[name].sample(networks, arrays) for name, arrays in given.items()}

    def conditional(
        self, params: Params, given: Mapping[str, Mapping[str, Array]], strengths: Array | None = None
    ) -> dict[str, Cond]:
        """The second halves of `conditions` alone, for runs without guidance."""
        return {name: pair[1] for name, pair in self.conditions(params, given, strengths).items()}

    def encode(self, params: Params, images: Array, eps: Array | None = None) -> Array:
        """Images [B, H, W, 3] in [-1, 1] to scaled latents: a sample of the posterior by eps, or its mean."""
        return self.networks(params).latents(images, eps)

    def decode(self, params: Params, latents: Array) -> Array:
        """Scaled latents [B, h, w, Z] to images [B, H, W, 3], clipped to [-1, 1]."""
        return jnp.clip(self.networks(params).images(latents).astype(jnp.float32), -1, 1)


def from_settings(settings: Mapping[str, Any], dtype: str = 'float32') -> Parts:
    """The model that a model directory's settings describe; dtype is for compute, parameters keep theirs.

    Raises ValueError for a model without a denoising network or a schedule, for parts that no pipeline knows, and for
    a conditioning that does not fit the network.
    """
    specs = settings['models']
    if unknown_parts := sorted(specs.keys() - set(PARTS)):
        raise ValueError(f'Pipelines know no parts {unknown_parts}; they know {sorted(PARTS)}.')
    needs = {'unet'} - specs.keys() | {'schedule', 'parameterization'} - settings.keys()
    if 'conditioning' not in settings:  # not trained here: images come out of a first stage then
        needs |= {'first_stage'} - specs.keys()
    if needs or settings.get('scaling_factor') is None:
        raise ValueError(
            f'Sampling needs a whole model; this one has {sorted(specs)} and lacks '
            f'{sorted(needs) or ["scaling_factor"]}. Convert the parts together; --vae MODEL takes a first stage from '
            'another one.'
        )
    parameterization.named(settings['parameterization'])  # raises for a wrong one
    models = {name: build.build('models', dict(spec, dtype=dtype)) for name, spec in specs.items()}
    spec = settings.get('conditioning')
    if spec is None:
        spec = infer.from_networks(models, 'tokenizer' in settings)
    kinds = combine.kinds(spec)
    combine.check_network(kinds, Networks(models, {}))
    return Parts(
        schedule=build.build('schedules', settings['schedule']),
        parameterization=settings['parameterization'],
        scaling_factor=settings['scaling_factor'],
        latent_size=settings['latent_size'],
        conditioning=tuple(kinds.items()),
        **{'first_stage': None} | models,
    )


def with_weak_model(parts: Parts, settings: Mapping[str, Any], dtype: str = 'float32') -> Parts:
    """The model with the denoising network of another one's settings as its weak model (autoguidance).

    Raises ValueError for a model of other latents or another conditioning.
    """
    other = from_settings(settings, dtype)
    for name, ours, theirs in (
        ('schedule', parts.schedule, other.schedule),
        ('parameterization', parts.parameterization, other.parameterization),
        ('scaling_factor', parts.scaling_factor, other.scaling_factor),
        ('out_channels', parts.unet.out_channels, other.unet.out_channels),
        ('conditioned_on', denoising.conditioned_on(parts.unet), denoising.conditioned_on(other.unet)),
    ):
        if ours != theirs:
            raise ValueError(
                f'A weak model is a worse version of the model: its {name} is {theirs}, not {ours}.'
            )
    return dataclasses.replace(parts, weak_model=other.unet)


def skipping(parts: Parts, clip_skip: int) -> Parts:
    """The model with clip_skip - 1 layers fewer of its CLIP text encoders, counted from the layer that is its own.

    Stable Diffusion 1 and 2 read the last layer, SDXL the last but one, so that 2 is the last but one of the former
    and the last but two of the latter; the projected vector stays the last layer's. diffusers' clip_skip is one less.

    Raises ValueError for a model without such encoders, or for more layers than they have.
    """
    names = [
        name for name in ('text_encoder', 'text_encoder_2') if hasattr(getattr(parts, name), 'output_layer')
    ]
    if not names or 'text' not in parts.kinds:
        raise ValueError(
            'clip_skip is for models that read texts by CLIP, which this one does not: leave it at 1.'
        )
    encoders = {name: getattr(parts, name) for name in names}
    most = min(encoder.num_layers + 1 + encoder.output_layer for encoder in encoders.values())
    if not 1 <= clip_skip <= most:
        raise ValueError(f'clip_skip must be from 1 to {most}; got {clip_skip}.')
    changed = {
        name: encoder.clone(output_layer=encoder.output_layer - (clip_skip - 1))
        for name, encoder in encoders.items()
    }
    return dataclasses.replace(parts, **changed)


def seamless(parts: Parts, axes: str) -> Parts:
    """The model with convolutions that go round on axes 'x', 'y' or 'xy': images that continue in themselves.

    Raises ValueError for other axes, and for networks whose convolutions cannot.
    """
    if axes not in ('x', 'y', 'xy'):
        raise unknown('axes to go round', axes, ['x', 'y', 'xy'])
    found = {name: getattr(parts, name) for name in ('unet', 'first_stage', 'weak_model')}
    changed = {}
    for name, network in found.items():
        if network is not None:
            if not hasattr(network, 'wrap'):
                raise ValueError(
                    f'The {name} of this model cannot go round (it has no field wrap): leave seamless out.'
                )
            changed[name] = network.clone(wrap=axes)
    return dataclasses.replace(parts, **changed)
