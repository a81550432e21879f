"""The loop around a training step: data in, metrics and pictures out, checkpoints that resume."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from ldm_jax import pictures, trees
from ldm_jax.data import pipeline
from ldm_jax.progress import progress
from ldm_jax.training import ema
from ldm_jax.training import state as train_state
from ldm_jax.training import step as train_step
from ldm_jax.training.state import TrainState
from ldm_jax.types import Array, PyTree


class Trained(Protocol):
    """What is trained and on what: class Stage of first_stage, contrastive and latent_diffusion."""

    def init(self, key: Array) -> PyTree: ...

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples: ...  # as draw and loss want them

    def draw(self, key: Array, batch: PyTree) -> PyTree: ...

    def loss(self, params: PyTree, batch: PyTree, draws: PyTree) -> tuple[Array, dict[str, Array]]: ...

    def picture(self, params: PyTree, batch: PyTree, draws: PyTree) -> Array: ...  # [R, C, H, W, 3]


@dataclasses.dataclass(frozen=True)
class Run:
    """The settings of a run that are neither model nor data.

    batch_size: examples of an update; accumulate: the micro-batches that they are gone through in.
    ema: moving averages by name, see training/ema.py; 'main' is for pictures and export.
    """

    num_steps: int
    batch_size: int
    seed: int = 0
    accumulate: int = 1
    ema: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=lambda: {ema.MAIN: dict(name='constant', decay=0.999)}
    )
    log_every: int = 50
    save_every: int = 1000

    def __post_init__(self):
        for field in ('num_steps', 'batch_size', 'accumulate', 'log_every', 'save_every'):
            if getattr(self, field) < 1:
                raise ValueError(f'{field} must be at least 1; got {getattr(self, field)}.')


def train(
    stage: Trained, examples: pipeline.Examples, tx: optax.GradientTransformation, workdir: str, run: Run
) -> TrainState:
    """Trains to run.num_steps, from the newest checkpoint of workdir if there is one; returns the last state.

    examples are those that stage.prepare has made of a source.
    workdir/checkpoints holds the two newest states, workdir/metrics.jsonl a JSON object a line,
    workdir/pictures what the averaged parameters make of a batch. A run that was stopped and started again
    goes through the same states as one that was not.
    """
    root = pathlib.Path(workdir).absolute()
    root.mkdir(parents=True, exist_ok=True)
    key = jax.random.key(run.seed)
    decays = {name: ema.named(spec) for name, spec in run.ema.items()}
    state = train_state.of(stage, jax.random.fold_in(key, 0), tx, decays)
    print(f'{trees.count(state.params):,} parameters, {len(examples):,} examples', flush=True)
    step = jax.jit(train_step.of(stage, tx, decays, run.accumulate), donate_argnums=0)
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    draw_picture = jax.jit(lambda params, batch: stage.picture(params, batch, stage.draw(key, batch)))
    with ocp.CheckpointManager(root / 'checkpoints', options=options) as manager:
        if manager.latest_step() is not None:
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(state))
            print(f'resumed at step {int(state.step)}', flush=True)
        first = int(state.step)
        batches = pipeline.batches(examples, run.batch_size, run.seed, start=first)
        steps = zip(range(first, run.num_steps), batches, strict=False)
        with open(root / 'metrics.jsonl', 'a') as log:
            window = _Window()
            for n, batch in progress(steps, run.num_steps, 'training', done=first):
                state, metrics = step(state, batch, key)
                window.add(metrics)
                if (n + 1) % run.log_every == 0 or n + 1 == run.num_steps:
                    record = {'step': n + 1, **window.close(run.batch_size)}
                    log.write(json.dumps(record) + '\n')
                    log.flush()
                    numbers = {name: value for name, value in record.items() if not isinstance(value, list)}
                    print(' '.join(f'{name} {value:.6g}' for name, value in numbers.items()), flush=True)
                if (n + 1) % run.save_every == 0 or n + 1 == run.num_steps:
                    manager.save(n + 1, args=ocp.args.StandardSave(state))
                    shown = jax.tree.map(lambda a: a[:16], batch)
                    rows = np.asarray(draw_picture(state.ema_params, shown))
                    (root / 'pictures').mkdir(exist_ok=True)
                    pictures.save_png(
                        root / 'pictures' / f'{n + 1:07}.png', pictures.contact_sheet(rows), scale=2
                    )
    return state


class _Window:
    """Metrics since the last log line. The device is asked once per window, so that steps overlap."""

    def __init__(self):
        self.start, self.metrics = time.monotonic(), []

    def add(self, metrics: dict[str, Array]) -> None:
        self.metrics.append(metrics)

    def close(self, batch_size: int) -> dict[str, float]:
        with np.errstate(all='ignore'):
            values = {
                name: np.ma.masked_invalid([m[name] for m in self.metrics]).mean(0).filled(np.nan).tolist()
                if np.ndim(self.metrics[0][name])
                else float(np.mean([m[name] for m in self.metrics]))
                for name in self.metrics[0]
            }
        values['images_per_second'] = batch_size * len(self.metrics) / (time.monotonic() - self.start)
        self.__init__()
        return values
