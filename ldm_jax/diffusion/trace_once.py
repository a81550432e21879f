"""The network once in the program of a step, however often the step evaluates it.

A step is written as a pure function that calls its denoiser as often as it likes. Compiled as written, each call is a
copy of the network, and compiling the network is nearly all of the time that compiling a sampler takes. So the step
is replayed instead, with a stand-in for the denoiser that knows the answers so far, in n + 1 rounds for n evaluations:

    round j < n:  the stand-in answers calls 0 .. j - 1 as recorded; what call j asks is put to the network
    round n:      all answers are known, and what the step returns is its result

A replay is arithmetic on a few arrays of x's shape, which is little beside an evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax.extend.core import get_opaque_trace_state

from ldm_jax.diffusion.changing import ChangingDenoiser
from ldm_jax.diffusion.probability_flow import eps_of
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


def again(denoise: Denoiser, wanted: Array, x: Array, level: NoiseLevel, otherwise: Array) -> Array:
    """denoise(x, level) where `wanted` (bool [], traced); otherwise that array [B, ...], without an evaluation.

    In place of a lax.cond around the evaluation, which `once` cannot see into.
    """
    if hasattr(denoise, 'again'):
        return denoise.again(wanted, x, level, otherwise)
    return jax.lax.cond(wanted, lambda: denoise(x, level), lambda: otherwise)


def parts_again(
    denoise: Denoiser, wanted: Array, x: Array, level: NoiseLevel, otherwise: tuple[Array, Array]
) -> tuple[Array, Array]:
    """(x0_hat, eps_hat) of x where `wanted`; otherwise those that are given, without an evaluation.

    A level that is not wanted may have sigma = 0: neither value nor gradient is NaN for it.
    """
    x0, eps = otherwise
    x0 = again(denoise, wanted, x, level, x0)
    level = dataclasses.replace(level, sigma=jnp.where(wanted, level.sigma, 1))
    return x0, jnp.where(wanted, eps_of(x, x0, level), eps)


@struct.dataclass
class Question:
    """An evaluation that a step asks for."""

    x: Array  # [B, ...]
    level: NoiseLevel
    wanted: Array  # bool []
    # The answer if it is not: x0_hat, and the unguided one where both are asked for.
    otherwise: tuple[Array, ...]


def count(step: Callable[[Denoiser], PyTree], x: Array) -> int:
    """How many evaluations a step asks for, those that it may do without among them; nothing is run."""
    asked: list[Question] = []

    def guided(x, level):
        return x

    guided.both = guided  # type: ignore[attr-defined]  # of samplers that ask for it
    jax.eval_shape(lambda: step(_stand_in(guided, (), asked)))
    return len(asked)


def once(
    step: Callable[[Denoiser], PyTree],
    denoise: Denoiser | ChangingDenoiser,
    x: Array,
    number: Array | int = 0,
) -> PyTree:
    """step(denoise), with denoise traced once.

    Where gradients go through several evaluations, each is recomputed in the backward pass: one's activations are
    held at a time.

    Args:
        step: a pure function of the denoiser, which it calls by itself, by its method `both`, by `again` or by
            `parts_again`. One that calls it in a single place is run as it is.
        x: [B, ...], whose shape and dtype x0_hat has.
        number: of the step, by which a denoiser that changes counts its evaluations.

    Raises ValueError where one of several calls is inside a lax.cond, a loop or another transformation.
    """
    asked: list[Question] = []
    example = denoise.of(jnp.zeros((), jnp.int32)) if isinstance(denoise, ChangingDenoiser) else denoise
    result = jax.eval_shape(lambda: step(_stand_in(example, (), asked)))
    count = len(asked)

    def at(k: Array | int) -> Denoiser:
        return denoise.of(number * count + k) if isinstance(denoise, ChangingDenoiser) else denoise

    if count < 2:
        return step(at(0))

    width = max(len(question.otherwise) for question in asked)

    def ask(k: Array, x: Array, level: NoiseLevel) -> tuple[Array, ...]:
        return tuple(at(k).both(x, level)) if width == 2 else (at(k)(x, level),)  # type: ignore[attr-defined]

    def round_(carry, j):
        answers, _ = carry
        asked: list[Question] = []
        result = step(_stand_in(example, answers, asked))
        asked = [
            dataclasses.replace(question, otherwise=(question.otherwise * 2)[:width]) for question in asked
        ]
        question = jax.tree.map(lambda *each: jnp.stack(each)[jnp.minimum(j, count - 1)], *asked)
        answer = jax.lax.cond(
            question.wanted & (j < count),
            lambda: ask(j, question.x, question.level),
            lambda: question.otherwise,
        )
        answers = [
            jax.tree.map(lambda new, old, k=k: jnp.where(j == k, new, old), answer, known)
            for k, known in enumerate(answers)
        ]
        return (answers, result), None

    # zeros_like, for what shard_map knows of an array besides: along which axes it varies.
    blank = [(jnp.zeros_like(x),) * width] * count
    start = blank, jax.tree.map(jnp.zeros_like, result)
    return jax.lax.scan(jax.checkpoint(round_), start, jnp.arange(count + 1))[0][1]


def _stand_in(denoise, answers, asked):
    """A denoiser like `denoise` whose k-th call is answered by answers[k], or by x where there are none.

    asked: a list to which it adds the Question of each call.
    """
    outside = get_opaque_trace_state()

    def ask(x, level, wanted, otherwise):
        if answers and get_opaque_trace_state() != outside:
            raise ValueError(
                f'A step that evaluates the network in {len(answers)} places does so within a lax.cond, a loop or '
                'another transformation. Call it outside: diffusion.trace_once.again evaluates under a condition.'
            )
        asked.append(Question(x, level, jnp.asarray(wanted), otherwise))
        return answers[len(asked) - 1] if answers else (x, x)

    def stand_in(x, level):
        return ask(x, level, True, (x,))[0]

    stand_in.again = lambda wanted, x, level, otherwise: ask(x, level, wanted, (otherwise,))[0]  # type: ignore[attr-defined]
    if hasattr(denoise, 'both'):  # of guided denoisers
        stand_in.both = lambda x, level: ask(x, level, True, (x, x))  # type: ignore[attr-defined]
    return stand_in
