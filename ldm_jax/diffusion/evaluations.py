"""The evaluations of one step, made by one copy of the network however many there are.

Written out, a step of three evaluations is a program of three networks, three times as long to compile. Here a step is
replayed instead, with the answers that are known so far, to find its next question: networks cost much, steps nothing.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree, Sampler


def again(denoise: Denoiser, wanted: Array, x: Array, level: NoiseLevel, otherwise: Array) -> Array:
    """denoise(x, level) where `wanted`, a traced bool [], says so; else `otherwise`, without an evaluation.

    For the evaluations of a step behind its first. lax.cond around one would compile the network once more.
    """
    if isinstance(denoise, _Replay):
        return jnp.where(wanted, denoise.answer(wanted, x, level)[0], otherwise)
    return jax.lax.cond(wanted, lambda: denoise(x, level), lambda: otherwise)


def step(
    sampler: Sampler,
    denoise: Denoiser,
    x: Array,
    state: PyTree,
    here: NoiseLevel,
    there: NoiseLevel,
    keys: Array,
) -> tuple[Array, PyTree]:
    """sampler.step, arguments and result, with the network once in its program.

    What the denoiser answers has x's shape and dtype. A step of several evaluations makes them by denoise(...) and
    `again`, none of them inside lax.cond or a loop; a step of one may make it anywhere.
    """
    guided = hasattr(denoise, 'both')  # both of its answers are kept
    none = (jnp.zeros_like(x),) * (2 if guided else 1)

    def replay(answers):
        asked = (_GuidedReplay if guided else _Replay)(answers)
        return sampler.step(asked, x, state, here, there, keys), asked.questions

    def count():
        nonlocal size
        size = len(replay(itertools.repeat(none))[1])

    size = 0
    jax.eval_shape(count)
    if size <= 1:
        return sampler.step(denoise, x, state, here, there, keys)

    def ask(j, answers):
        _, questions = replay(zip(*answers, strict=True))
        wanted, *question = jax.tree.map(lambda *each: jax.lax.select_n(j, *each), *questions)
        network = denoise.both if guided else lambda *question: (denoise(*question),)
        answer = jax.lax.cond(wanted, network, lambda *_: none, *question)
        return jax.tree.map(lambda all, new: all.at[j].set(new), answers, answer)

    answers = tuple(jnp.stack([each] * size) for each in none)
    answers = jax.lax.fori_loop(0, size, ask, answers)
    return replay(zip(*answers, strict=True))[0]


class _Replay:
    """A denoiser that knows its answers beforehand and keeps the questions."""

    def __init__(self, answers):
        self.questions = []
        self._answers = iter(answers)

    def __call__(self, x: Array, level: NoiseLevel) -> Array:
        return self.answer(True, x, level)[0]

    def answer(self, wanted, x, level):
        self.questions.append(jax.tree.map(jnp.asarray, (wanted, x, level)))
        return next(self._answers)


class _GuidedReplay(_Replay):
    """Of a guided denoiser."""

    def both(self, x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        return self.answer(True, x, level)
