"""How often a sampler evaluates the network on a table of levels, counted by running it on a denoiser that counts."""

from __future__ import annotations

import threading
from collections.abc import Callable

import jax
import numpy as np

from ldm_jax.diffusion import prng
from ldm_jax.diffusion.sampling import padded, sample
from ldm_jax.inference.settings import TABLE, Sampling
from ldm_jax.types import NoiseLevel, Sampler, Schedule, Solver

_LOCK = threading.Lock()
_COUNTED: list[int] = []


def count(sampler: Sampler | Solver, levels: NoiseLevel) -> int | None:
    """Evaluations along the levels [S + 1]; None for a solver whose steps depend on the image.

    Guidance may make two predictions of each.
    """
    if hasattr(sampler, 'rtol'):
        return None
    sampler = jax.tree.map(lambda a: np.float32(np.ravel(a)[0]), sampler)  # knobs of each image do not count
    with _LOCK:
        _COUNTED.clear()
        x = _run(sampler, padded(levels, TABLE), np.int32(len(levels.sigma) - 1))
        jax.block_until_ready(x)
        jax.effects_barrier()
        return len(_COUNTED)


@jax.jit
def _run(sampler, levels, num_steps):
    def denoise(x, level):
        jax.debug.callback(lambda: _COUNTED.append(1))
        return 0.5 * x

    keys = jax.random.split(prng.key(0), 1)
    return sample(sampler, denoise, np.ones((1, 1, 1, 1), np.float32), levels, keys, num_steps)


def steps_for(
    sampling_of: Callable[[int], Sampling], schedule: Schedule, evaluations: int
) -> tuple[int, int]:
    """(num_steps, evaluations) of the most steps that take at most so many evaluations.

    sampling_of: num_steps -> Sampling.

    Raises ValueError where even one step takes more, or the sampler's steps are its own.
    """
    for num_steps in range(evaluations + 1, 0, -1):
        sampling = sampling_of(num_steps)
        try:
            sampler, levels = sampling.plan(schedule)
        except ValueError:
            if num_steps == 1:
                raise
            continue
        found = count(sampler, levels)
        if found is None:
            raise ValueError(
                f'{sampling.sampler} chooses its own steps: vary num_steps or its tolerance instead.'
            )
        if found <= evaluations:
            return num_steps, found
    raise ValueError(f'One step of {sampling.sampler} takes more than {evaluations} evaluations.')
