"""One pure step on one device, on all by pmap, or on a mesh of devices by jit.

    single   the first device
    pmap     data parallel: every device holds the whole state and a slice of the batch, gradients are averaged
             by the step itself over the axis AXIS
    mesh     jit over a mesh with axes data, fsdp and tensor: the batch is cut along data x fsdp; parameters, their
             averages and the optimizer's memory along fsdp and tensor, as RULES say of their logical axes (with
             fsdp alone that is ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054)

The state that checkpoints see has the same arrays whichever it is, so a run may go on under another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ldm_jax import trees
from ldm_jax.build import unknown
from ldm_jax.types import Array, PyTree

AXIS = 'batch'  # the name of pmap's axis
MESH_AXES = ('data', 'fsdp', 'tensor')
KINDS = ('single', 'pmap', 'mesh')

# Logical axis of a parameter -> mesh axis. A mesh axis is used once in an array and only where it divides the size.
# What fsdp cuts is gathered before use: weights move and activations do not, since every module's output is held to
# the cut along the batch (`Sharded.traced`). Left to itself the compiler would cut activations as the weights are
# whose axes they share, and move them from one cut to the other around every residual sum.
RULES = {
    'vocab': 'tensor',
    'heads': 'tensor',
    'mlp': 'tensor',
    'embed': 'fsdp',
    'conv_in': 'fsdp',
    'time': 'fsdp',
    'conv_out': 'tensor',
}

Step = Callable[
    ..., tuple[PyTree, dict[str, Array]]
]  # (state, batch, key, axis_name=None) -> (state, metrics)


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a run is spread: the config's run.parallel.

    data, fsdp, tensor are the sizes of the mesh; -1 (one of them) is what is left of the devices.
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
        if self.kind != 'mesh' and (self.fsdp, self.tensor) != (1, 1):
            raise ValueError(f"fsdp and tensor need run.parallel.kind='mesh'; got {self}.")


class Backend(Protocol):
    """Where a state lives and how its step runs."""

    devices: int
    copies: int  # how often the traced step runs: once for all devices, or once on each
    replicated: jax.sharding.Sharding  # of an array that every device, or the one there is, holds

    def init(self, make: Callable[[Array], PyTree], key: Array) -> PyTree: ...

    def like(
        self, make: Callable[[Array], PyTree], key: Array
    ) -> PyTree: ...  # what `whole` returns, abstract

    def placed(self, whole: PyTree) -> PyTree: ...  # the inverse of whole

    def whole(self, state: PyTree) -> PyTree: ...  # each array once, as checkpoints and pictures want it

    def shard(self, batch: PyTree) -> PyTree: ...  # of the global batch [B, ...], which every host has

    def traced(
        self, step: Step, *args: PyTree
    ) -> tuple[jax.stages.Lowered, ClosedJaxpr]: ...  # state is donated

    def metrics(self, metrics: PyTree) -> PyTree: ...  # one value of each


def logical_axes(parts: Mapping[str, nn.Module]) -> dict[str, tuple[str | None, ...]]:
    """Of every parameter of some networks, by path: 'unet/conv_in/kernel' -> (None, None, 'conv_in', 'conv_out')."""
    return {
        f'{part}/{name}': tuple(spec)
        for part, module in parts.items()
        for name, spec in trees.named(trees.logical_axes(module)).items()
    }


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
    """
    if parallel.kind == 'pmap':
        built: Backend = Replicated(jax.device_count())
        shards = jax.device_count()
    else:
        built = Sharded(_mesh(parallel, jax.devices() if devices is None else devices), axes)
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


def _mesh(parallel: Parallel, devices: Sequence[jax.Device]) -> Mesh:
    if parallel.kind == 'single':
        return Mesh(np.array(devices[:1]).reshape(1, 1, 1), MESH_AXES)
    sizes = [parallel.data, parallel.fsdp, parallel.tensor]
    if -1 in sizes:
        sizes[sizes.index(-1)] = max(len(devices) // -math.prod(sizes), 1)
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f'run.parallel is a mesh of {" x ".join(map(str, sizes))} (data x fsdp x tensor) and there are '
            f'{len(devices)} devices; -1 takes what is left.'
        )
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@contextlib.contextmanager
def _on_host() -> Iterator[None]:
    """Several devices start from what one host device makes: the same numbers however many they are, and a state
    that no one device could hold."""
    try:
        host = jax.local_devices(backend='cpu')[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        yield
        return
    with jax.default_device(host):
        yield


def _put(leaf: Array, sharding: jax.sharding.Sharding, change: Callable[[Array], Any] = np.asarray) -> Array:
    """The array, changed first, on the devices of a sharding, which may be those of several hosts."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), sharding, change)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    array = change(leaf)
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


@dataclasses.dataclass(frozen=True)
class Sharded:
    """jit over a mesh."""

    mesh: Mesh
    axes: Mapping[str, tuple[str | None, ...]]
    copies: ClassVar[int] = 1

    @property
    def devices(self) -> int:
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def init(self, make, key):
        with _on_host():
            state = make(key)
        return jax.tree.map(_put, state, self._shardings(state))

    def like(self, make, key):
        shapes = jax.eval_shape(make, key)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self._shardings(shapes),
        )

    def placed(self, whole):
        return whole

    def whole(self, state):
        return state

    @property
    def sharded(self) -> NamedSharding:
        """Of a batch, along its first axis."""
        return NamedSharding(self.mesh, PartitionSpec(('data', 'fsdp')))

    def shard(self, batch):
        return jax.tree.map(
            lambda array: jax.make_array_from_callback(array.shape, self.sharded, array.__getitem__), batch
        )

    def traced(self, step, *args):
        def sharded(state, batch, key):
            if self.devices == 1:
                return step(state, batch, key)
            # Attention asks the mesh over how many devices its scores are spread.
            with (
                jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh),
                nn.intercept_methods(self._along_the_batch),
            ):
                state, metrics = step(state, batch, key)
            # Without this the compiler may choose other shardings for the new state, and compile again for them.
            state = jax.lax.with_sharding_constraint(state, self._shardings(state))
            return state, jax.lax.with_sharding_constraint(metrics, self.replicated)

        traced = jax.jit(sharded, donate_argnums=0).trace(*args)
        return traced.lower(), traced.jaxpr

    def metrics(self, metrics):
        return metrics

    def _along_the_batch(self, call, args, kwargs, context):
        """A module's outputs [B, ...], cut along B; what else they are cut along is for the compiler."""
        shards = self.mesh.shape['data'] * self.mesh.shape['fsdp']

        def hold(leaf):
            if not isinstance(leaf, jax.Array) or not leaf.ndim or leaf.shape[0] % shards:
                return leaf  # such as the empty caption, encoded once for all
            rest = (PartitionSpec.UNCONSTRAINED,) * (leaf.ndim - 1)
            sharding = NamedSharding(self.mesh, PartitionSpec(('data', 'fsdp'), *rest))
            return jax.lax.with_sharding_constraint(leaf, sharding)

        return jax.tree.map(hold, call(*args, **kwargs))

    def _shardings(self, state: PyTree) -> PyTree:
        """Of a parameter's rule also for its averages and moments: the leaves whose paths end with its own."""
        named = {
            name: NamedSharding(self.mesh, self._spec(name, leaf.shape))
            for name, leaf in trees.named(state).items()
        }
        return jax.tree.unflatten(jax.tree.structure(state), list(named.values()))

    def _spec(self, name: str, shape: tuple[int, ...]) -> PartitionSpec:
        parts = name.split('/')
        for first in range(len(parts)):
            logical = self.axes.get('/'.join(parts[first:]))
            if logical is not None and len(logical) == len(shape):
                return self._rule(logical, shape)
        return PartitionSpec()

    def _rule(self, logical: tuple[str | None, ...], shape: tuple[int, ...]) -> PartitionSpec:
        spec: list[str | None] = []
        for axis, size in zip(logical, shape, strict=True):
            mesh_axis = RULES.get(axis)
            fits = mesh_axis is not None and size % self.mesh.shape[mesh_axis] == 0
            # A vector saves little and would be gathered by itself.
            fits = fits and not (mesh_axis == 'fsdp' and len(shape) == 1)
            spec.append(mesh_axis if fits and mesh_axis not in spec else None)
        return PartitionSpec(*spec)


@dataclasses.dataclass(frozen=True)
class Replicated:
    """pmap over all devices; leaves of the state are [local devices, ...]."""

    devices: int

    @property
    def copies(self) -> int:
        return self.devices

    @property
    def replicated(self) -> jax.sharding.Sharding:
        if jax.process_count() == 1:
            return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return NamedSharding(_line(), PartitionSpec())  # Orbax refuses arrays of one host

    def init(self, make, key):
        with _on_host():
            return self.placed(make(key))

    def like(self, make, key):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            jax.eval_shape(make, key),
        )

    def placed(self, whole):
        sharding = self._stacked()

        def stack(leaf):
            return np.broadcast_to(np.asarray(leaf)[None], (self.devices, *leaf.shape))

        return jax.tree.map(lambda leaf: _put(leaf, sharding, stack), whole)

    def whole(self, state):
        if jax.process_count() == 1:
            return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data[0], state)

        def unstack(leaf):
            shards = [shard.data[0] for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape[1:], self.replicated, shards)

        return jax.tree.map(unstack, state)

    def shard(self, batch):
        def cut(array):
            array = array.reshape(self.devices, -1, *array.shape[1:])
            return jax.make_array_from_callback(array.shape, self._stacked(), array.__getitem__)

        return jax.tree.map(cut, batch)

    def traced(self, step, *args):
        mapped = jax.pmap(
            functools.partial(step, axis_name=AXIS), axis_name=AXIS, in_axes=(0, 0, None), donate_argnums=0
        )
        return mapped.lower(*args), jax.make_jaxpr(mapped)(*args)

    def metrics(self, metrics):
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data[0], metrics)

    def _stacked(self) -> NamedSharding:
        return NamedSharding(_line(), PartitionSpec(AXIS))


def _line() -> Mesh:
    # Named as pmap names it: under another name the second call would compile everything again.
    return Mesh(np.array(jax.devices()), (AXIS,))
