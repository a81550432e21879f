"""UniPC: a multistep predictor, corrected by the next step's evaluation."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax.build import unknown
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

VARIANTS = ['bh1', 'bh2']


@struct.dataclass
class Memory:
    """What the next step corrects: where the last one's first order arrived, and its order; and its predictions."""

    base: Array  # x [B, ...]
    order: Array
    history: History
    counts: tuple[Array, Array]


@struct.dataclass
class Sampler:
    """UniP of max_order (1 to 3) with UniC of the same order; one evaluation a step.

    It is made where the predictor arrives, and corrects that arrival before the next prediction starts from it.
    predict_x0: extrapolates x0_hat, or else eps_hat.
    variant: B(h) of the paper, 'bh1' or 'bh2'; it matters in predictors of order 2 and correctors of order 1 only,
    whose weight is taken to be 1/2, as published. lower_order_final: the last steps' orders fall to 1, as there
    is no corrector after the last; steps to clean data are always of order 1.
    disable_corrector: the steps, from 0, whose arrival is left as predicted; with all of them it is UniP.
    It is of order 2, or 3 for max_order 2 and 3 without lower_order_final, where the first step limits it.
    Ref: Zhao et al. 2023, arXiv:2302.04867; diffusers' UniPCMultistepScheduler.

    Raises ValueError for another variant.
    """

    max_order: int = struct.field(pytree_node=False, default=2)
    variant: str = struct.field(pytree_node=False, default='bh2')
    lower_order_final: bool = struct.field(pytree_node=False, default=True)
    predict_x0: bool = struct.field(pytree_node=False, default=True)
    disable_corrector: tuple[int, ...] = struct.field(pytree_node=False, default=())

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise unknown('variant', self.variant, VARIANTS)

    @property
    def order(self) -> int:
        return 2 if self.lower_order_final or self.max_order == 1 else 3

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return Memory(
            base=x,
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
        newest = x0 if self.predict_x0 else eps_of(x, x0, here)

        kept = jnp.isin(i - 1, np.asarray(self.disable_corrector, int))
        corrected = jnp.where((history.length > 0) & ~kept, self._corrected(newest, state, here), x)
        if not self.predict_x0:  # the noise stays, so the correction is of x0_hat
            alpha = jnp.where(history.length > 0, here.alpha, 1.0)  # 0 at a first level without signal
            x0 = jnp.where(history.length > 0, (corrected - here.sigma * newest) / alpha, x0)
        base = ddim(x0, eps_of(corrected, x0, here), there)

        lam, lam_there = half_log_snr(here), half_log_snr(there)
        order = lowered(self.max_order, i, num_steps, there, few=self.lower_order_final)
        order = jnp.minimum(order, history.length + 1)
        moments = self._moments(lam_there - lam, self.max_order, simplified=order == 2)
        weights = multistep_weights(history, lam, lam_there, order, moments)
        arrival = base - self._scale(there) * history.correction(weights, newest)
        return arrival, Memory(base, order, history.push(newest, lam), (i + 1, num_steps))

    def _corrected(self, newest: Array, last: Memory, here: NoiseLevel) -> Array:
        """The last step again, with the prediction `newest` at its end."""
        before, *older = last.history.values
        lam, *older_nodes = last.history.nodes
        # Where there is no last step, nor a use of this, it must not be NaN: gradients pass through here too.
        h = jnp.where(last.history.length > 0, half_log_snr(here) - lam, 1.0)
        nodes = [jnp.zeros(()), jnp.ones(()), *((node - lam) / h for node in older_nodes)]
        moments = self._moments(h, self.max_order + 1, simplified=last.order == 1)
        weights = interpolatory(nodes, moments, last.order + 1)[1:]
        change = sum(w * (value - before) for w, value in zip(weights, (newest, *older), strict=True))
        return last.base - self._scale(here) * change

    def _scale(self, level: NoiseLevel) -> Array:
        return level.alpha if self.predict_x0 else level.sigma

    def _moments(self, h: Array, count: int, simplified: Array) -> list[Array]:
        z = -h if self.predict_x0 else h
        moments = exponential_moments(z, count)
        if count > 1:
            b = z if self.variant == 'bh1' else moments[0]
            moments[1] = jnp.where(simplified, b / 2, moments[1])
        return moments
