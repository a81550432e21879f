"""The interface of a training stage, with neutral defaults of the members that most stages do without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from ldm_jax.data import pipeline
from ldm_jax.training.monitoring.metrics import Metrics
from ldm_jax.types import Array, PyTree

Axes = Mapping[str, tuple[str | None, ...]]  # path of a parameter -> its logical axes, for sharded.RULES


class Trained(Protocol):
    """A stage: `class Stage(Trained)` of a module in stages/, or of any by its dotted name. Images are in [-1, 1]."""

    compares: ClassVar[bool] = False  # its loss compares examples with each other, see step.py
    discriminator: Any = None  # the network of an adversary, see stages/adversarial.py
    frozen: Mapping[str, PyTree] = {}  # part -> parameters that the loss needs and nothing changes

    def init(self, key: Array) -> PyTree: ...

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples: ...  # as draw and loss want them

    def draw(self, key: Array, batch: PyTree) -> PyTree: ...  # given the memory too, if that has arrays

    def loss(self, params: PyTree, batch: PyTree, draws: PyTree) -> tuple[Array, Metrics]: ...

    def image(self, params: PyTree, batch: PyTree, draws: PyTree) -> Array: ...  # [R, C, H, W, 3]

    def axes(self) -> Axes: ...  # of all its parameters, by path within those that `loss` is given

    def export(self, params: PyTree, batches: Any) -> tuple[dict[str, Any], dict[str, PyTree]]: ...

    def memory(self) -> PyTree:
        """What is remembered from step to step, before the first; nothing."""
        return ()

    def remember(self, memory: PyTree, observed: PyTree) -> PyTree:
        """The memory after a step, from what the loss observed in the whole batch; as it was."""
        return memory

    def sample(self, params: PyTree, batch: PyTree, key: Array) -> dict[str, Array]:
        """Further images by name, each [R, C, H, W, 3]; none."""
        return {}
