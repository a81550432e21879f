"""One pure step on one device, on all by pmap, or on a mesh of devices by jit.

    single   the first device
    pmap     data parallel: every device holds the whole state and a slice of the batch, gradients are averaged
             by the step itself over the axis AXIS (replicated.py)
    mesh     jit over a mesh with axes data, fsdp and tensor: the batch is cut along data x fsdp; parameters, their
             averages and the optimizer's memory along fsdp and tensor, as sharded.RULES say of their logical axes
             (with fsdp alone that is ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054)

The devices may be those of several processes, on several hosts; each reads the rows of a batch that its devices want.
The state that checkpoints see has the same arrays whichever it is, so a run may go on under another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import jax
from jax.extend.core import ClosedJaxpr

from ldm_jax.build import unknown
from ldm_jax.training.parallel.placement import Step
from ldm_jax.training.parallel.replicated import Replicated
from ldm_jax.training.parallel.sharded import Sharded, mesh
from ldm_jax.types import Array, PyTree

KINDS = ('single', 'pmap', 'mesh')


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a run is spread: the config's run.parallel.

    data, fsdp, tensor are the sizes of the mesh; -1 (one of them) takes the remaining devices.
    """

    kind: str = 'single'
    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown('kind of run.parallel', self.kind, list(KINDS))
        sizes = (self.data, self.fsdp, self.tensor)
        if min(sizes) < -1 or 0 in sizes or sizes.count(-1) > 1:
            raise ValueError(
                f'data, fsdp and tensor are positive, and one may be -1 (the rest); got {sizes}.'
            )
        if self.kind != 'mesh' and self.cuts:
            raise ValueError(f"fsdp and tensor need run.parallel.kind='mesh'; got {self}.")

    @property
    def cuts(self) -> bool:
        """Whether parameters are cut, so that their logical axes matter."""
        return (self.fsdp, self.tensor) != (1, 1)


class Backend(Protocol):
    """Where a state lives and how its step runs."""

    @property
    def devices(self) -> int: ...

    @property
    def copies(self) -> int: ...  # how often the traced step runs: once for all devices, or once on each

    @property
    def replicated(
        self,
    ) -> jax.sharding.Sharding: ...  # of an array that every device, or the one there is, holds

    def init(self, make: Callable[[Array], PyTree], key: Array) -> PyTree: ...

    def like(
        self, make: Callable[[Array], PyTree], key: Array
    ) -> PyTree: ...  # what `whole` returns, abstract

    def placed(self, whole: PyTree) -> PyTree: ...  # the inverse of whole

    def whole(self, state: PyTree) -> PyTree: ...  # each array once, as checkpoints and images want it

    def rows(self, batch_size: int) -> list[int]: ...  # of a batch that this process's devices want

    def shard(self, batch: PyTree, batch_size: int) -> PyTree: ...  # of those rows, in their order

    def traced(
        self, step: Step, *args: PyTree
    ) -> tuple[jax.stages.Lowered, ClosedJaxpr]: ...  # state is donated

    def metrics(self, metrics: PyTree) -> PyTree: ...  # one value of each


def backend(
    parallel: Parallel,
    batch_size: int,
    axes: Mapping[str, tuple[str | None, ...]],
    devices: Sequence[jax.Device] | None = None,
) -> Backend:
    """The backend that the settings describe.

    Args:
        batch_size: of all devices together; it must divide evenly.
        axes: path of a parameter -> its logical axes; those of no network are replicated.
        devices: of a mesh; all there are by default. Programs may be compiled for others, see aot/.

    Raises ValueError for settings that the devices do not allow.
    """
    built: Backend
    if parallel.kind == 'pmap':
        built = Replicated()
        shards = built.devices
    else:
        if parallel.kind == 'single':
            if jax.process_count() > 1:
                raise ValueError(
                    f"run.parallel.kind='single' is for one process, and there are {jax.process_count()}; give "
                    '--config.run.parallel.kind=mesh (or pmap).'
                )
            built = Sharded(mesh(1, 1, 1, (devices or jax.devices())[:1]), axes)
        else:
            built = Sharded(mesh(parallel.data, parallel.fsdp, parallel.tensor, devices), axes)
        shards = built.mesh.shape['data'] * built.mesh.shape['fsdp']
        if parallel.kind == 'mesh' and not axes and built.mesh.size > built.mesh.shape['data']:
            raise ValueError(
                'This stage names no logical axes, so nothing can be cut by fsdp or tensor; use data alone.'
            )
    if batch_size % shards:
        raise ValueError(
            f'run.batch_size must be a multiple of the {shards} devices that share it; got {batch_size}.'
        )
    return built
