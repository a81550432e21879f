"""UniPC: a multistep predictor, corrected by the next step's evaluation."""

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
    lowered,
    multistep_weights,
)
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Memory:
    """What the next step corrects: the last one's start and order; and its predictions."""

    start: Array  # x [B, ...], corrected
    level: NoiseLevel
    order: Array
    history: History
    counts: tuple[Array, Array]


@struct.dataclass
class Sampler:
    """UniP of max_order (1 to 3) in x0_hat with UniC of the same order; one evaluation a step.

    It is made where the predictor arrives, and corrects that arrival before the next prediction starts from it.
    variant: B(h) of the paper, 'bh1' or 'bh2'; it matters in predictors of order 2 and correctors of order 1 only,
    whose weight is taken to be 1/2, as published. lower_order_final: the last steps' orders fall to 1, as there
    is no corrector after the last; steps to clean data are always of order 1.
    Of order 2, or 3 for max_order 2 and 3 without lower_order_final, where the first step limits it.
    Ref: Zhao et al. 2023, arXiv:2302.04867; diffusers' UniPCMultistepScheduler, predict_x0.
    """

    max_order: int = struct.field(pytree_node=False, default=2)
    variant: str = struct.field(pytree_node=False, default='bh2')
    lower_order_final: bool = struct.field(pytree_node=False, default=True)

    def __post_init__(self):
        if self.variant not in ('bh1', 'bh2'):
            raise ValueError(f"variant must be 'bh1' or 'bh2'; got {self.variant!r}.")

    @property
    def order(self) -> int:
        return 2 if self.lower_order_final or self.max_order == 1 else 3

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return Memory(
            start=x,
            level=jax.tree.map(lambda a: a[0], levels),
            order=jnp.ones((), jnp.int32),
            history=History.empty(x, levels, self.max_order),
            counts=counted(num_steps),
        )

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        i, num_steps = state.counts
        history = state.history
        x0 = denoise(x, here)
        x = jnp.where(history.length > 0, self._corrected(x0, state, here), x)
        lam, lam_there = half_log_snr(here), half_log_snr(there)
        order = lowered(self.max_order, i, num_steps, there, few=self.lower_order_final)
        order = jnp.minimum(order, history.length + 1)
        moments = self._moments(lam_there - lam, self.max_order, simplified=order == 2)
        weights = multistep_weights(history, lam, lam_there, order, moments)
        arrival = ddim(x0, eps_of(x, x0, here), there) - there.alpha * history.correction(weights, x0)
        return arrival, Memory(x, here, order, history.push(x0, lam), (i + 1, num_steps))

    def _corrected(self, x0: Array, last: Memory, here: NoiseLevel) -> Array:
        """The last step again, with the prediction x0 at its end."""
        before, *older = last.history.values
        lam, *older_nodes = last.history.nodes
        # Where there is no last step, nor a use of this, it must not be NaN: gradients pass through here too.
        h = jnp.where(last.history.length > 0, half_log_snr(here) - lam, 1.0)
        nodes = [jnp.zeros(()), jnp.ones(()), *((node - lam) / h for node in older_nodes)]
        moments = self._moments(h, self.max_order + 1, simplified=last.order == 1)
        weights = interpolatory(nodes, moments, last.order + 1)[1:]
        change = sum(w * (value - before) for w, value in zip(weights, (x0, *older), strict=True))
        return ddim(before, eps_of(last.start, before, last.level), here) - here.alpha * change

    def _moments(self, h: Array, count: int, simplified: Array) -> list[Array]:
        moments = exponential_moments(-h, count)
        if count > 1:
            b = -h if self.variant == 'bh1' else moments[0]
            moments[1] = jnp.where(simplified, b / 2, moments[1])
        return moments
