"""A network with its parameters and conditioning bound: what samplers and guidance see."""

from __future__ import annotations

from collections.abc import Callable

from ldm_jax.diffusion.parameterization import Parameterization
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Cond, Denoiser, NoiseLevel

Network = Callable[[Array, Array, Cond], Array]  # (x, t, cond) -> F, parameters bound


def denoiser(network: Network, parameterization: Parameterization, cond: Cond) -> Denoiser:
    """(x [B, ...], level) -> x0_hat [B, ...] by a network that predicts what its parameterization says."""

    def denoise(x: Array, level: NoiseLevel) -> Array:
        s = parameterization(level)
        out = network(per_example(s.c_in, x) * x, s.c_noise, cond)
        return per_example(s.c_skip, x) * x + per_example(s.c_out, x) * out

    return denoise
