"""TPU slices by name: how many chips, how they lie, and what one of them can do.

Cloud names count chips for v5e and v6e (v5e-16, v5litepod-256) and TensorCores, of which a chip has two, for v4 and
v5p: v5p-128 is 64 chips. A slice may also be given by its shape, as v5p:4x4x12.
Ref: cloud.google.com/tpu/docs (system architecture and accelerator types of each version).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re

from ldm_jax.build import unknown

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    flops: bfloat16 FLOP/s; hbm: bytes that the compiler (libtpu 0.0.42) lets a program have, a little less than
    the data sheet's; hbm_bandwidth, link_bandwidth: bytes/s, the latter of one link between chips in one direction;
    dims: of the torus that links make; cores: that a cloud name counts for it.
    Ref: the data sheets in cloud.google.com/tpu/docs/v4 (v5e, v5p, v6e); inter-chip bandwidth there is of all links,
    four or six, and here of one.
    """

    name: str
    flops: float
    hbm: float
    hbm_bandwidth: float
    link_bandwidth: float
    dims: int
    cores: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip('v4', 275e12, 30.75 * GIB, 1228e9, 50e9, dims=3, cores=2),
        Chip('v5e', 197e12, 15.75 * GIB, 819e9, 50e9, dims=2, cores=1),
        Chip('v5p', 459e12, 95.74 * GIB, 2765e9, 100e9, dims=3, cores=2),
        Chip('v6e', 918e12, 31.25 * GIB, 1638e9, 112e9, dims=2, cores=1),
    )
}
ALIASES = {'v5litepod': 'v5e', 'v5lite': 'v5e', 'v6lite': 'v6e', 'v5': 'v5p'}
CHIPS_PER_HOST = 4  # of the machines that slices of several are made of
EXAMPLES = ['v5e-16', 'v5litepod-256', 'v5p-128', 'v6e-256', 'v4-32', 'v5p:4x4x12']

# libtpu asks the metadata server of a cloud machine about these, and waits for it, unless they are set.
ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-16',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}


class NoCompiler(ModuleNotFoundError):
    """libtpu, TPUs' compiler, is not installed."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of so many chips in each direction."""

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def description(self) -> str:
        """As JAX names it: 'v5e:4x4'."""
        return f'{self.chip.name}:{"x".join(map(str, self.shape))}'

    def devices(self) -> list:
        """Its devices, one a chip, to compile for; no TPU is needed.

        Raises NoCompiler without libtpu.
        """
        check_compiler()
        from jax.experimental import topologies

        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options = {}
        if self.chip.name == 'v4':
            options['chip_config_name'] = 'megacore'  # two cores as one device, as JAX has them
        if self.chips < CHIPS_PER_HOST:
            options['chips_per_host_bounds'] = [*self.shape, *[1] * (3 - len(self.shape))]
        described = topologies.get_topology_desc(platform='tpu', topology_name=self.description, **options)
        return list(described.devices)


def named(name: str) -> Topology:
    """The slice of a name.

    Raises ValueError for an unknown generation, number of chips or shape.
    """
    match = re.fullmatch(r'([a-z0-9]+)(?:-(\d+)|:(\d+(?:x\d+)*))', name.lower())
    if not match:
        raise ValueError(f'No TPU topology {name!r}; write one as {EXAMPLES}.')
    generation = ALIASES.get(match[1], match[1])
    if generation not in CHIPS:
        raise unknown('TPU generation', match[1], sorted(CHIPS))
    chip = CHIPS[generation]
    if match[3]:
        shape = tuple(map(int, match[3].split('x')))
        if len(shape) != chip.dims or 0 in shape:
            raise ValueError(f'A slice of {generation} has {chip.dims} sides; got {name!r}.')
        return Topology(name, chip, shape)
    cores = int(match[2])
    chips, rest = divmod(cores, chip.cores)
    if rest or not chips or chips & (chips - 1) or (chip.dims == 3 and chips < CHIPS_PER_HOST):
        raise ValueError(
            f'{name!r} is no slice of {generation}: its number, of {"TensorCores" if chip.cores > 1 else "chips"}, '
            f'is a power of two{f", {2 * CHIPS_PER_HOST} or more" if chip.dims == 3 else ""}. Give other slices by '
            f'their sides, such as {generation}:{"x".join("4" * chip.dims)}.'
        )
    return Topology(name, chip, _sides(chips, chip.dims))


def check_compiler() -> None:
    """Raises NoCompiler where libtpu is not installed."""
    if importlib.util.find_spec('libtpu') is None:
        raise NoCompiler(
            "Compiling for TPUs needs libtpu, which runs on any x86 Linux machine: pip install 'ldm_jax[tpu]' "
            '(the extra is jax[tpu]; the libtpu that it brings belongs to that version of jax).'
        )


def _sides(chips: int, dims: int) -> tuple[int, ...]:
    """As the cloud lays a power of two out: v5e-8 is 2x4, v5p-8 2x2x1, v5p-128 4x4x4."""
    power = chips.bit_length() - 1
    if dims == 3 and power == 2:
        return 2, 2, 1
    # The extra factors of two go to the last sides.
    return tuple(2 ** ((power + i) // dims) for i in range(dims))
