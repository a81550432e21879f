"""A denoiser that is the identity at clean data, as consistency models are trained to be."""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Denoiser, NoiseLevel


def boundary(denoise: Denoiser, sigma_data: float = 0.5, timestep_scaling: float = 10.0) -> Denoiser:
    """c_skip x + c_out x0_hat, with c_skip = 1 and c_out = 0 at t = 0.

    Applied to the guided denoiser, as in diffusers' LCMScheduler, whose numbers are the defaults. There c_skip is
    below 3e-5 from t = 10 on: only a grid that ends next to t = 0 shows the difference.
    Ref: Luo et al. 2023, arXiv:2310.04378, appendix; Song et al. 2023, arXiv:2303.01469, eq. 5.
    """

    def bounded(x: Array, level: NoiseLevel) -> Array:
        t = timestep_scaling * level.t
        total = t**2 + sigma_data**2
        skip, out = sigma_data**2 / total, t / jnp.sqrt(total)
        return per_example(skip, x) * x + per_example(out, x) * denoise(x, level)

    return bounded
