"""A request and a model, resolved once: what the rest carries out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ldm_jax.inference.opening import Described
from ldm_jax.inference.settings import Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.requests.adapters import Named
from ldm_jax.requests.inputs import Inputs
from ldm_jax.requests.request import Request


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a task needs, with nothing left open.

    Attributes:
        request: as it was asked, with a seed where one was to be drawn.
        inputs: the images that it names.
        task: the name of the row of TASKS.
        model, refiner: as their settings describe them; parameters are read when they are opened.
        sampling: the request's, its guidance scale a number, or None where there is no guidance.
        size: (H, W) that is asked for, or of the image to begin with as the model takes it; None is the model's own.
        adapters: by name and strength; the model has them in it.
        sizes: what SDXL is conditioned on for the prompt, and for the negative prompt.
    """

    request: Request
    inputs: Inputs
    task: str
    model: Described
    refiner: Described | None
    sampling: Sampling
    size: tuple[int, int] | None
    sizes: tuple[Sizes | None, Sizes | None]
    adapters: Sequence[Named] = ()

    @property
    def asked_size(self) -> tuple[int, int]:
        """(H, W) with which the same is asked for again; the image may be larger, as after a second pass."""
        if self.size is not None:
            return self.size
        if self.task in ('upscale', 'super_resolution', 'outpaint'):
            return self.inputs.image.shape[:2]
        if self.inputs.labels is not None:
            return self.inputs.labels.shape
        side = self.model.parts.latent_size * self.model.parts.downscale
        return side, side

    @property
    def prompts(self) -> list[str]:
        """The prompt of each image."""
        return self.request.repeated(self.request.rows)

    @property
    def seeds(self) -> list[int]:
        """The seed of each image."""
        return self.request.seeds
