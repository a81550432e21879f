"""The loop over noise levels: one compiled program for any number of steps up to a table's length."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ldm_jax.diffusion.changing import ChangingDenoiser
from ldm_jax.diffusion.trace_once import once
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree, Sampler, Solver


def sample(
    sampler: Sampler | Solver,
    denoise: Denoiser,
    x: Array,
    levels: NoiseLevel,
    keys: Array,
    num_steps: Array | None = None,
    *,
    differentiable: bool = False,
) -> Array:
    """Walks x [B, ...] along the first num_steps + 1 of the levels.

    Args:
        sampler: of ldm_jax/samplers; its knobs are leaves, so changing them compiles nothing.
        denoise: the guided denoiser.
        x: at the first level.
        levels: leaves [S + 1], noisiest first, or `ascending`; `padded` makes them longer than a run's own.
        keys: PRNG keys [B], one an image: image i depends on its key alone.
        num_steps: integer [], at most S and traced like everything else, so that fewer steps cost fewer
            evaluations of the same program; S by default.
        differentiable: walk with lax.scan, each step recomputed in the backward pass, so that gradients go
            through; the default is a loop whose trip count is not known when it is compiled.

    Raises ValueError where a Solver, whose own loop has no known end, should be differentiated.
    """
    total = len(levels.sigma) - 1
    count = jnp.asarray(total if num_steps is None else num_steps, jnp.int32)

    if hasattr(sampler, 'solve'):
        if differentiable:
            raise ValueError(
                f'{type(sampler).__module__} makes its own steps, through which there are no gradients. '
                'Take a sampler that walks the table.'
            )
        return sampler.solve(denoise, x, levels, count, keys)

    carry = x, sampler.init(x, levels, count)
    if not differentiable:
        return walk(sampler, denoise, carry, levels, keys, 0, count)[0]

    def body(carry, i):
        return jax.lax.cond(
            i < count, lambda c: _step(sampler, denoise, c, levels, keys, i), lambda c: c, carry
        ), None

    # Around the condition, not within: as a branch's residual, the network's weights would be kept for every step.
    return jax.lax.scan(jax.checkpoint(body), carry, jnp.arange(total))[0][0]


def walk(
    sampler: Sampler,
    denoise: Denoiser | ChangingDenoiser,
    carry: tuple[Array, PyTree],
    levels: NoiseLevel,
    keys: Array,
    start: Array | int,
    stop: Array | int,
    *,
    differentiable: bool = False,
) -> tuple[Array, PyTree]:
    """Steps number start to stop - 1 of a run: (x, the sampler's memory) to the same at levels[stop].

    start and stop may be traced, so that one program makes a run in one piece or in several. The first memory is
    `sampler.init(x, levels, num_steps)` of the whole run; the other arguments are those of `sample`. Where it is to be
    differentiable they must be known, for a loop with an end.
    """

    def body(i, carry):
        return _step(sampler, denoise, carry, levels, keys, i)

    return jax.lax.fori_loop(start, stop, jax.checkpoint(body) if differentiable else body, carry)


def _step(sampler, denoise, carry, levels, keys, i):
    here, there = _level(levels, i), _level(levels, i + 1)
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
    return once(lambda denoise: sampler.step(denoise, *carry, here, there, step_keys), denoise, carry[0], i)


def ascending(levels: NoiseLevel) -> NoiseLevel:
    """The levels from the last one up to the noisiest: a way from an image to its noise.

    To be walked by samplers/ddim_inverse, or by one without noise of its own if the first level has some; the
    latents of an image are x at either. The table must not be `padded` yet.
    """
    return jax.tree.map(lambda a: a[::-1], levels)


def padded(levels: NoiseLevel, size: int) -> NoiseLevel:
    """The same levels with leaves [size + 1]; what follows the last one repeats it and is never walked.

    numpy's arrays stay numpy's, for which nothing is compiled.

    Raises ValueError when there are more levels than that.
    """
    have = len(levels.sigma) - 1
    if have > size:
        raise ValueError(
            f'{have} steps do not fit into a table of {size}. Ask for fewer, or for a longer table.'
        )

    def longer(a):
        xp = a.__array_namespace__()
        return xp.concatenate([a, xp.broadcast_to(a[-1:], (size - have,))])

    return jax.tree.map(longer, levels)


def _level(levels: NoiseLevel, i: Array) -> NoiseLevel:
    return jax.tree.map(lambda a: jnp.asarray(a)[i], levels)  # numpy's take no traced index
