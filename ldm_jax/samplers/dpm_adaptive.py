"""DPM-Solver-12 and -23: steps as long as an error estimate allows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import dpm_solver
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Denoiser, NoiseLevel


@struct.dataclass
class State:
    """Where each image is: lam, h, inverse errors [B]."""

    x: Array  # [B, ...] at unit scale
    low: Array  # the last accepted answer of lower order, over its alpha
    lam: Array
    h: Array  # the step in lam to try next
    inverse: tuple[Array, Array]  # one over the errors of the last two accepted steps; 0 before there is one
    tries: Array  # integer []


@struct.dataclass
class Sampler:
    """Steps of max_order (2 or 3) in half the log-SNR, accepted if near those of one order less, one evaluation fewer.

    Only the ends of the table count, and num_steps says where it ends. Each image takes steps of its own, until
    the last has arrived. An end without signal or noise is joined to the table's level next to it by a step of DDIM.

    rtol, atol: tolerated difference of the two answers for x / alpha, relative and absolute. h_init: the first
    step. pcoeff, icoeff, dcoeff: of the controller of step sizes. accept_safety: accept if the controller would
    shrink the step to no less than this. eta: of fresh noise, s_noise its factor; 0 is deterministic. max_tries:
    images that have not arrived by then are NaN.
    Ref: Lu et al. 2022, arXiv:2206.00927, appendix C; k-diffusion's sample_dpm_adaptive, where a batch
    shares its steps.
    """

    rtol: float = 0.05
    atol: float = 0.0078
    h_init: float = 0.05
    pcoeff: float = 0.0
    icoeff: float = 1.0
    dcoeff: float = 0.0
    accept_safety: float = 0.81
    eta: float = 0.0
    s_noise: float = 1.0
    max_tries: int = 10_000
    max_order: int = struct.field(pytree_node=False, default=3)

    def __post_init__(self):
        if self.max_order not in (2, 3):
            raise ValueError(f'max_order must be 2 or 3; got {self.max_order}.')

    @property
    def order(self) -> int:
        return self.max_order

    def solve(self, denoise: Denoiser, x: Array, levels: NoiseLevel, num_steps: Array, keys: Array) -> Array:
        """x at levels[num_steps]."""
        ends = dpm_solver.Ends.of(levels, num_steps)
        ready = ends.stop - 1e-5  # there to within what float32 can tell, as in k-diffusion
        until = jnp.where(jnp.isinf(ends.last), ends.last, ready)
        each = jnp.ones_like(x, shape=len(x))
        start = State(
            x=x / ends.scale,
            low=x / levels.alpha[0],
            lam=ends.first * each,
            h=jnp.abs(self.h_init) * each,
            inverse=(0 * each, 0 * each),
            tries=jnp.zeros((), jnp.int32),
        )

        def going(state):
            return jnp.any(state.lam < until) & (state.tries < self.max_tries)

        def body(state):
            return self._attempt(denoise, state, ends, ready, until, keys)

        end = jax.lax.while_loop(going, body, start)
        arrived = per_example(end.lam >= until, x)
        return jnp.where(arrived, end.x * ends.last_scale, jnp.nan)

    def _attempt(self, denoise, state, ends, ready, until, keys):
        opening, closing = jnp.isinf(state.lam), state.lam >= ready
        bridging = opening | closing
        there = jnp.minimum(ends.stop, state.lam + state.h)
        there = jnp.where(opening, ends.start, jnp.where(closing, ends.last, there))
        down, fresh = dpm_solver.split_noise(state.lam, there, ends.stop, self.eta)
        size = self.max_order
        r1 = jnp.asarray({2: 1 / 2, 3: 1 / 3}[size], state.lam.dtype)
        answers = dpm_solver.step(denoise, state.x, state.lam, down, jnp.asarray(size), size, r1)

        alpha = per_example(dpm_solver.level_at(down).alpha, state.x)
        low, high = answers[size - 2] / alpha, answers[size - 1] / alpha
        tolerance = jnp.maximum(self.atol, self.rtol * jnp.maximum(jnp.abs(low), jnp.abs(state.low)))
        squares = jnp.square((low - high) / tolerance)
        inverse = 1 / (jnp.sqrt(squares.reshape(len(squares), -1).mean(1)) + 1e-8)
        factor, before = self._factor(inverse, state.inverse)

        accepted = bridging | (factor >= self.accept_safety)
        active = state.lam < until
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, state.tries)
        noise = per_example(fresh, state.x) * self.s_noise * normal(step_keys, state.x)
        arrival = jnp.where(per_example(bridging, state.x), answers[0], answers[size - 1])
        arrival = dpm_solver.raised(arrival, down, there, noise)
        low = jnp.where(per_example(bridging, state.x), answers[0] / alpha, low)

        def moved(new, old):
            return jnp.where(per_example(active & accepted, new), new, old)

        return State(
            x=moved(arrival, state.x),
            low=moved(low, state.low),
            lam=moved(there, state.lam),
            h=jnp.where(bridging, state.h, state.h * factor),
            inverse=tuple(
                jnp.where(bridging, old, jnp.where(accepted, new, kept))
                for new, kept, old in zip((inverse, before[0]), before, state.inverse, strict=True)
            ),
            tries=state.tries + 1,
        )

    def _factor(self, inverse: Array, before: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        """What the controller would multiply the step by, and the errors before, the first one standing in."""
        last, previous = (jnp.where(e > 0, e, inverse) for e in before)
        order = jnp.where(self.eta > 0, 1.5, self.max_order)
        product = (
            inverse ** ((self.pcoeff + self.icoeff + self.dcoeff) / order)
            * last ** (-(self.pcoeff + 2 * self.dcoeff) / order)
            * previous ** (self.dcoeff / order)
        )
        return 1 + jnp.arctan(product - 1), (last, previous)
