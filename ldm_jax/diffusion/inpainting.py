"""Keeping a known part of an image while the rest is sampled: inpainting by a network without a mask input.

mask [B, h, w, 1] is 1 where latents are made anew. Two ways, for the same task:

    each step ends on the known latents, noised to its level         diffusers; original latent diffusion
    each prediction of x0 is the known latents outside the mask      k-diffusion samplers in A1111 and ComfyUI
"""

from __future__ import annotations

from flax import struct

from ldm_jax.diffusion.guidance import Guided
from ldm_jax.diffusion.process import add_noise
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree, Sampler


def masked_denoiser(denoise: Denoiser, known: Array, mask: Array) -> Denoiser:
    """The denoiser with its answer outside the mask replaced by the known latents [B, h, w, Z]."""

    def blend(x0: Array) -> Array:
        return mask * x0 + (1 - mask) * known

    if not isinstance(denoise, Guided):
        return lambda x, level: blend(denoise(x, level))

    def both(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        guided, uncond = denoise.both(x, level)
        return blend(guided), blend(uncond)

    return Guided(both)


@struct.dataclass
class MaskedSampler:
    """A sampler whose every step ends, outside the mask, on the known latents with the same noise at its level.

    Ref: Lugmayr et al. 2022, arXiv:2201.09865, eq. 8, without its resampling; diffusers' inpainting, whose noise
    is drawn once.
    """

    sampler: Sampler
    known: Array  # [B, h, w, Z]
    mask: Array  # [B, h, w, 1]
    noise: Array  # [B, h, w, Z]

    @property
    def order(self) -> int:
        return self.sampler.order

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return self.sampler.init(x, levels, num_steps)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x, state = self.sampler.step(denoise, x, state, here, there, keys)
        return self.mask * x + (1 - self.mask) * add_noise(self.known, self.noise, there), state
