"""A description of a run before it is one: its config as resolved, its arrays, and the memory that its step needs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ldm_jax import trees
from ldm_jax.build import build
from ldm_jax.checkpoints import loading
from ldm_jax.data import pipeline
from ldm_jax.diffusion import prng
from ldm_jax.training import from_config, start
from ldm_jax.training.parallel import backend
from ldm_jax.types import PyTree

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class First:
    """The first example of a source alone."""

    source: pipeline.Examples

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> pipeline.Example:
        return self.source[0]


def describe(config: Mapping[str, Any]) -> str:
    """The config, a batch's shapes, the parameters and the memory of a run, as text. Nothing is trained.

    The step is compiled for the devices that are there, and kept by the compilation cache for the run.

    Raises what the start of the run would.
    """
    run = start.check(config)
    source = build('data', from_config.data(config, loading.load))
    stage, _ = from_config.stage(config, loading.load, source)
    job = from_config.work(config, stage, run)
    spread = backend.backend(run.parallel, run.batch_size, job.axes() if run.parallel.cuts else {})
    key = prng.key(run.seed)
    state = spread.like(job.init, key)
    example = stage.prepare(First(source))[0]
    batch = {
        name: np.broadcast_to(value, (run.batch_size, *np.shape(value))) for name, value in example.items()
    }
    lines = [json.dumps(config, indent=2), f'{len(source):,} examples; a batch on {spread.devices} devices:']
    lines += [f'  {name} {list(array.shape)} {array.dtype}' for name, array in batch.items()]
    lines += [*_parameters(state), 'memory of the state, all devices together:', *_parts(state)]
    if run.parallel.kind == 'pmap':  # whose step takes a state for each device
        return '\n'.join([*lines, "the step's memory is known for run.parallel.kind single and mesh alone"])
    rows = {name: array[spread.rows(run.batch_size)] for name, array in batch.items()}
    lowered, _ = spread.traced(job.step, state, spread.shard(rows, run.batch_size), key)
    return '\n'.join([*lines, *_step(lowered.compile().memory_analysis())])


def _parameters(state: PyTree) -> list[str]:
    parts = [(part, tree, 'trained') for part, tree in state.params.items()]
    parts += [(part, tree, 'as it is') for part, tree in state.frozen.items()]
    return ['parameters:'] + [
        f'  {part}: {trees.count(tree):,} in {len(jax.tree.leaves(tree))} arrays, {how}'
        for part, tree, how in parts
    ]


def _parts(state: PyTree) -> list[str]:
    """A line for each field of a state, or of the states in it."""
    sizes: dict[str, int] = {}
    for name, leaf in trees.named(state).items():
        group = next(word for word in name.split('/') if word != 'generator')
        sizes[group] = sizes.get(group, 0) + leaf.size * leaf.dtype.itemsize
    return [_row(name, size) for name, size in sizes.items() if size >= MIB / 100]


def _step(found: Any) -> list[str]:
    if found is None:  # a backend that does not say
        return []
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    rows = {'state and batch': held, 'temporaries': found.temp_size_in_bytes}
    rows['together'] = sum(rows.values())
    return ['memory of a device during a step:', *(_row(name, size) for name, size in rows.items())]


def _row(name: str, size: int) -> str:
    return f'  {name}: {size / MIB:,.2f} MiB'
