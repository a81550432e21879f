"""The functions of a model without compiled programs around them, for gradients and for programs of one's own.

    pipeline = open_pipeline('emoji32').traced()

    def loss(params, x):
        latents = dataclasses.replace(pipeline, params=params).sample(sampling, x, levels, conds, seeds)
        return jnp.mean((latents - wanted) ** 2)

    slopes = jax.jit(jax.grad(loss))(pipeline.params, x)

Methods of such a pipeline, and the tasks that use them, take and give JAX arrays that may be traced. Each step is
computed again in the backward pass, so memory grows by one latent a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ldm_jax.inference.model import Params, Parts
from ldm_jax.inference.programs import SamplerRun, advance, begin
from ldm_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Traced:
    """What `programs.Programs` is, of one share that holds all images, where its arrays are."""

    parts: Parts

    def place(self, params: Params) -> Params:
        """The parameters, left where they are."""
        return params

    def shares(self, batch: int) -> int:
        """All images at a time."""
        return batch

    def begin(self, params: Params, job: SamplerRun) -> PyTree:
        """`programs.begin`. Raises ValueError for a sampler that makes its own steps."""
        if hasattr(job.sampler, 'solve'):
            raise ValueError(
                f'{type(job.sampler).__module__} makes its own steps, through which there are no gradients. '
                'Take a sampler that walks the table.'
            )
        return begin(self.parts, params, job)

    def advance(self, params: Params, job: SamplerRun, carry: PyTree, start: int, stop: int) -> PyTree:
        """`programs.advance`, through which gradients flow."""
        return advance(self.parts, params, job, carry, start, stop, differentiable=True)

    def latents(self, carry: PyTree) -> Array:
        """The latents [B, h, w, Z] of a carry."""
        return carry[0]

    def map(self, function: Callable[..., PyTree], params: Params, *batches: PyTree) -> PyTree:
        """function(parts, params, *batches)."""
        return function(self.parts, params, *batches)
