"""DPM-Solver and DPM-Solver++ in groups of steps, each group a singlestep method of its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import (
    History,
    counted,
    ddim,
    eps_of,
    exponential_moments,
    half_log_snr,
    interpolatory,
)
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Memory:
    """The start of the group, and the predictions made since, it included."""

    start: Array  # x [B, ...]
    x0: Array  # prediction there
    level: NoiseLevel
    age: Array  # integer []: steps since
    history: History
    counts: tuple[Array, Array]


@struct.dataclass
class Sampler:
    """Groups of max_order (1 to 3) steps whose k-th goes from the group's start, at order k; one evaluation a step.

    variant: 'dpmsolver++' in x0_hat or 'dpmsolver' in eps_hat. solver_type: 'midpoint', the paper's, or 'heun',
    which differ in how differences are weighed. Order max_order, for a number of steps that max_order divides:
    others end with a smaller group. lower_order_final: where it does, the very last step still is of order 1. Steps
    to clean data always are.
    Ref: Lu et al. 2022, arXiv:2206.00927, algorithms 1 and 2, and arXiv:2211.01095; diffusers'
    DPMSolverSinglestepScheduler.
    """

    max_order: int = struct.field(pytree_node=False, default=2)
    variant: str = struct.field(pytree_node=False, default='dpmsolver++')
    solver_type: str = struct.field(pytree_node=False, default='midpoint')
    lower_order_final: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        if self.variant not in ('dpmsolver', 'dpmsolver++'):
            raise ValueError(f"variant must be 'dpmsolver' or 'dpmsolver++'; got {self.variant!r}.")
        if self.solver_type not in ('midpoint', 'heun'):
            raise ValueError(f"solver_type must be 'midpoint' or 'heun'; got {self.solver_type!r}.")

    @property
    def order(self) -> int:
        return self.max_order

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return Memory(
            start=x,
            x0=x,
            level=jax.tree.map(lambda a: a[0], levels),
            age=jnp.zeros((), jnp.int32),
            history=History.empty(x, levels, self.max_order),
            counts=counted(num_steps),
        )

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        i, num_steps = state.counts
        x0 = denoise(x, here)
        data = self.variant == 'dpmsolver++'
        history = state.history.push(x0 if data else eps_of(x, x0, here), half_log_snr(here))

        starts = (i % self.max_order == 0) | (there.sigma == 0) | (state.level.alpha == 0)
        if self.lower_order_final:
            starts |= (i == num_steps - 1) & (num_steps % self.max_order == 0)
        start, start_x0, level = jax.tree.map(
            lambda new, old: jnp.where(starts, new, old),
            (x, x0, here),
            (state.start, state.x0, state.level),
        )
        age = jnp.where(starts, 0, state.age)

        arrival = ddim(start_x0, eps_of(start, start_x0, level), there)
        values, weights = self._differences(history, level, there, age)
        change = sum(w * (value - values[0]) for w, value in zip(weights, values[1:], strict=True))
        arrival -= (there.alpha if data else there.sigma) * change
        return arrival, Memory(start, start_x0, level, age + 1, history, (i + 1, num_steps))

    def _differences(self, history: History, level: NoiseLevel, there: NoiseLevel, age: Array):
        """The group's predictions, its start's first and then newest to oldest, and weights of all but the first."""
        lam = half_log_snr(level)
        h = half_log_snr(there) - lam
        moments = exponential_moments(-h if self.variant == 'dpmsolver++' else h, self.max_order)
        order = age + 1
        if self.solver_type == 'midpoint':
            if self.max_order > 1:
                moments[1] = jnp.where(order == 2, moments[0] / 2, moments[1])
            order = jnp.minimum(order, 2)  # that of order 3 too weighs the newest difference alone
        position = [(node - lam) / h for node in history.nodes]
        # With the start in front: [start, newest, ...]; the start is `age` entries behind the newest.
        first = (
            jax.tree.map(lambda *a: jnp.stack(a)[age], *history.values)
            if self.max_order > 1
            else history.values[0]
        )
        nodes = [jnp.zeros(()), *position[: self.max_order - 1]]
        weights = interpolatory(nodes, moments, order)[1:]
        return (first, *history.values[: self.max_order - 1]), weights
