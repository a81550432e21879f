"""DPM-Solver-Fast: as many steps of order 3 as a number of evaluations allows."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import dpm_solver
from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, Denoiser, NoiseLevel


@struct.dataclass
class Sampler:
    """num_steps evaluations in steps of order 3, and of 2 and 1 at the end, at equal distances in log-SNR.

    Only the ends of the table count. An end without signal or without noise is joined to the table's level next to
    it by a step of DDIM, one evaluation more. eta: of fresh noise in each step, s_noise its factor; 0 is
    deterministic. The last step of order 1 (num_steps mod 3 of 0 or 1) leaves order 2.
    Ref: Lu et al. 2022, arXiv:2206.00927, section 3.4; k-diffusion's sample_dpm_fast.
    """

    eta: float = 0.0
    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def solve(self, denoise: Denoiser, x: Array, levels: NoiseLevel, num_steps: Array, keys: Array) -> Array:
        """x at levels[num_steps]."""
        ends = dpm_solver.Ends.of(levels, num_steps)
        inner = jnp.where(ends.stop > ends.start, num_steps // 3 + 1, 0)
        part = jnp.where(inner > 0, ends.stop - ends.start, 0.0) / jnp.maximum(inner, 1)
        opening = jnp.isinf(ends.first).astype(jnp.int32)
        closing = (jnp.isinf(ends.last) & (ends.last > ends.start)).astype(jnp.int32)

        def lam(k):
            inside = ends.start + (k - opening) * part
            return jnp.where(k < opening, ends.first, jnp.where(k > opening + inner, ends.last, inside))

        def body(k, x):
            left = opening + inner - k  # 1 in the last step of the plan
            rest = num_steps % 3
            order = jnp.where(left == 1, jnp.maximum(rest, 1), jnp.where((left == 2) & (rest == 0), 2, 3))
            order = jnp.where((k < opening) | (left < 1), 1, order)
            down, fresh = dpm_solver.split_noise(lam(k), lam(k + 1), ends.stop, self.eta)
            r1 = jnp.where(order == 2, 1 / 2, 1 / 3)
            answers = dpm_solver.step(denoise, x, lam(k), down, order, 3, r1)
            x = jax.lax.select_n(order - 1, *answers)
            return dpm_solver.raised(x, down, lam(k + 1), fresh * self.s_noise * noise(k, x))

        def noise(k, x):
            return normal(jax.vmap(jax.random.fold_in, (0, None))(keys, k), x)

        x = jax.lax.fori_loop(0, opening + inner + closing, body, x / ends.scale)
        return x * ends.last_scale
