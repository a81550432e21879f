"""The loop over noise levels."""

from __future__ import annotations

import jax

from ldm_jax.types import Array, Denoiser, NoiseLevel, Sampler


def sample(sampler: Sampler, denoise: Denoiser, x: Array, levels: NoiseLevel, key: Array) -> Array:
    """Walks x [B, ...] down levels (leaves [S + 1], noisiest first) in S steps under lax.scan."""
    here = jax.tree.map(lambda a: a[:-1], levels)
    there = jax.tree.map(lambda a: a[1:], levels)

    def body(carry, inputs):
        return sampler.step(denoise, *carry, *inputs), None

    keys = jax.random.split(key, len(levels.sigma) - 1)
    (x, _), _ = jax.lax.scan(body, (x, sampler.init(x)), (here, there, keys))
    return x
