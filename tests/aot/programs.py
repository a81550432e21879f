"""Small programs on a mesh of the eight simulated devices, compiled."""

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

SIZES = {'data': 2, 'fsdp': 4}


def mesh():
    return jax.make_mesh(tuple(SIZES.values()), tuple(SIZES), axis_types=(AxisType.Auto,) * len(SIZES))


def like(shape, *spec, dtype='float32', on=None):
    """The shape of an argument, cut along axes of the mesh."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(on or mesh(), P(*spec)))


def text(function, *args):
    return jax.jit(function).lower(*args).compile().as_text()
