"""jit over a mesh of devices: the state is cut as rules say of its logical axes, the compiler does the rest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ldm_jax import trees
from ldm_jax.models.fused_attention import HEADS_AXIS
from ldm_jax.training.parallel import placement
from ldm_jax.types import PyTree

MESH_AXES = ('data', 'fsdp', HEADS_AXIS)

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


def mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of these sizes, one of which may be -1 (the remaining devices), of all devices by default.

    Raises ValueError when they are not the devices that there are.
    """
    count = jax.device_count() if devices is None else len(devices)
    sizes = [data, fsdp, tensor]
    if -1 in sizes:
        sizes[sizes.index(-1)] = max(count // -math.prod(sizes), 1)
    if math.prod(sizes) != count:
        raise ValueError(
            f'run.parallel is a mesh of {" x ".join(map(str, sizes))} (data x fsdp x tensor) and there are '
            f'{count} devices; -1 takes the rest.'
        )
    if count == 1:
        return Mesh(np.array(devices or jax.devices()).reshape(sizes), MESH_AXES)
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@dataclasses.dataclass(frozen=True)
class Sharded:
    """A parallel.Backend."""

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
        with placement.on_host():
            state = make(key)
        return jax.tree.map(placement.put, state, self._shardings(state))

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

    def rows(self, batch_size):
        return placement.rows(self.batch, batch_size)

    def shard(self, batch, batch_size):
        return jax.tree.map(lambda array: placement.shard(array, self.batch, batch_size), batch)

    def traced(self, step, *args):
        def train_step(state, batch, key):
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

        traced = jax.jit(train_step, donate_argnums=0).trace(*args)
        return traced.lower(), traced.jaxpr

    def metrics(self, metrics):
        return metrics

    @property
    def batch(self) -> NamedSharding:
        """The sharding of a batch, along its first axis."""
        return NamedSharding(self.mesh, PartitionSpec(('data', 'fsdp')))

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
        """The sharding of each leaf; averages and moments, whose paths end with their parameter's, are cut as it is."""
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
