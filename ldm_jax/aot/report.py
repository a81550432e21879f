"""What a program compiled for a TPU slice needs of each chip, and how fast it can be at best.

Three times bound a step from below: its FLOPs at the chip's peak rate, its traffic at the memory's, and what it sends
to other chips at the links'. If all three overlap perfectly it takes the longest (the roofline), if nothing overlaps
their sum; a real step lies between, or above where products are too small for the matrix units, which neither knows.
A collective's ring is taken to run along one dimension of the torus, in both directions: two links a chip.
Utilisation is the model's own FLOPs over what the chips could do in the time; recomputation does not count.
Ref: Williams et al. 2009, "Roofline"; Chowdhery et al. 2022, arXiv:2204.02311, appendix B (utilisation).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax.aot import hlo, work
from ldm_jax.aot.collectives import ACTIVATIONS, Collective, Row, collectives, rows
from ldm_jax.aot.topology import GIB, Topology

LINKS = 2  # of a chip that one ring uses


@dataclasses.dataclass(frozen=True)
class Work:
    """What one chip does in one execution: FLOPs, bytes of memory traffic, and each exchange with other chips."""

    flops: float
    traffic: float
    collectives: tuple[Collective, ...]
    unknown_loops: int = 0
    kernels: tuple[str, ...] = ()

    @property
    def sent(self) -> float:
        return sum(one.sent for one in self.collectives)


def measured(text: str, mesh: Mapping[str, int], arguments: Sequence[str]) -> Work:
    """The work in a compiled program's text; arguments is the name of each of them, 'state' of those with weights."""
    module = hlo.parse(text)
    return Work(
        work.flops(module),
        work.traffic(module),
        tuple(collectives(module, mesh, arguments)),
        module.unknown_loops(),
        tuple(work.kernels(module)),
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """A program on a slice.

    flops: the model's, of all chips together. memory: bytes of one chip, by what they are for; 'peak' is all that is
    there at the worst moment.
    """

    what: str
    topology: Topology
    mesh: Mapping[str, int]
    batch_size: int
    flops: float
    memory: Mapping[str, int]
    work: Work

    @property
    def computed(self) -> float:
        """FLOPs of a chip: the program's, and no fewer than the model asks for.

        Those inside of kernels are not seen, and the model's count has products with padding's zeros.
        """
        return max(self.work.flops, self.flops / math.prod(self.mesh.values()))

    @property
    def times(self) -> dict[str, float]:
        """Seconds by what they would be spent on."""
        chip = self.topology.chip
        return {
            'compute': self.computed / chip.flops,
            'memory': self.work.traffic / chip.hbm_bandwidth,
            'links': self.work.sent / (LINKS * chip.link_bandwidth),
        }

    @property
    def seconds(self) -> dict[str, float]:
        """The time of one execution if everything overlaps, and if nothing does."""
        return {'overlapped': max(self.times.values()), 'serial': sum(self.times.values())}

    @property
    def utilisation(self) -> dict[str, float]:
        chips = math.prod(self.mesh.values())
        return {name: self.flops / (chips * self.topology.chip.flops * s) for name, s in self.seconds.items()}

    @property
    def rows(self) -> list[Row]:
        return rows(list(self.work.collectives))

    @property
    def gathered(self) -> list[Collective]:
        """All-gathers of anything but weights."""
        return [c for c in self.work.collectives if c.kind == 'all-gather' and c.moves == ACTIVATIONS]


def of(program: Any, compiled: Any, topology: Topology) -> Report:
    """The report of a programs.Program that jax has compiled."""
    stats = compiled.memory_analysis()
    memory = {
        'arguments': stats.argument_size_in_bytes,
        'results': stats.output_size_in_bytes
        - stats.alias_size_in_bytes,  # that are not written over arguments
        'temporaries': stats.temp_size_in_bytes,
        'program': stats.generated_code_size_in_bytes,
    }
    memory['peak'] = stats.peak_memory_in_bytes or sum(memory.values())
    found = measured(compiled.as_text(), program.mesh, program.names(compiled))
    return Report(program.what, topology, program.mesh, program.batch_size, program.flops, memory, found)


def data(report: Report) -> dict[str, Any]:
    """A report as plain data, for JSON: bytes, FLOPs, seconds."""
    return dict(
        what=report.what,
        topology=dict(
            name=report.topology.name, jax=report.topology.description, chips=report.topology.chips
        ),
        chip=dataclasses.asdict(report.topology.chip),
        mesh=dict(report.mesh),
        batch_size=report.batch_size,
        memory=dict(report.memory),
        flops=dict(model=report.flops / report.topology.chips, program=report.work.flops),
        traffic=report.work.traffic,
        sent=report.work.sent,
        collectives=[dataclasses.asdict(row) for row in report.rows],
        gathered_activations=[dataclasses.asdict(one) for one in report.gathered],
        unknown_loops=report.work.unknown_loops,
        kernels=list(report.work.kernels),
        times=report.times,
        seconds=report.seconds,
        utilisation=report.utilisation,
        images_per_second={name: report.batch_size / s for name, s in report.seconds.items()},
    )


def table(report: Report) -> str:
    """A report as Markdown."""
    topology, chip = report.topology, report.topology.chip
    mesh = ' x '.join(f'{axis} {size}' for axis, size in report.mesh.items())
    unit = 'step' if report.what == 'train' else 'run'
    lines = [
        f'{report.what} on {topology.name}: {topology.chips} chips ({topology.description}), mesh {mesh}, '
        f'{report.batch_size} images a {unit} ({report.batch_size / topology.chips:g} a chip)',
        '',
        f'| memory of a chip | GiB | of {chip.hbm / GIB:g} GiB |',
        '|---|---:|---:|',
    ]
    lines += [
        f'| {name} | {size / GIB:.2f} | {size / chip.hbm:.0%} |' for name, size in report.memory.items()
    ]
    lines += ['', f'| work of a chip in one {unit} | |', '|---|---:|']
    lines += [
        f'| {name} | {value} |'
        for name, value in {
            'TFLOPs that the model needs': f'{report.flops / topology.chips / 1e12:.2f}',
            'TFLOPs of the program, with recomputation': f'{report.work.flops / 1e12:.2f}',
            'GB read and written in memory': f'{report.work.traffic / 1e9:.1f}',
            'GB sent to other chips': f'{report.work.sent / 1e9:.2f}',
        }.items()
    ]
    lines += ['']
    if report.rows:
        lines += [
            '| collective | along | moves | lines | runs | GB in all | largest, MB | GB sent |',
            '|---|---|---|---:|---:|---:|---:|---:|',
        ]
        lines += [
            f'| {row.kind} | {" x ".join(row.axes)} | {row.moves} | {row.lines} | {row.times:g} | '
            f'{row.nbytes / 1e9:.3f} | {row.largest / 1e6:.2f} | {row.sent / 1e9:.3f} |'
            for row in report.rows
        ]
        lines += ['', f'All-gathers of activations: {len(report.gathered)}.']
    else:
        lines += ['No collectives: chips do not talk to each other.']
    lines += ['', f'| time of a {unit} | ms | utilisation | images/s |', '|---|---:|---:|---:|']
    lines += [f'| {name} alone | {1e3 * seconds:.1f} | | |' for name, seconds in report.times.items()]
    lines += [
        f'| {words} | {1e3 * report.seconds[name]:.1f} | {report.utilisation[name]:.0%} | '
        f'{report.batch_size / report.seconds[name]:.0f} |'
        for name, words in {'overlapped': 'if all overlap', 'serial': 'if nothing does'}.items()
    ]
    if report.work.unknown_loops:
        lines += ['', f'{report.work.unknown_loops} loops of unknown length are counted as one round.']
    if report.work.kernels:
        lines += [
            '',
            'FLOPs inside of fused attention kernels are not seen: the time is for what the model needs.',
        ]
    return '\n'.join(lines)
