"""The loop around a training step: data in, metrics and pictures out, checkpoints that resume."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax import pictures, trees
from ldm_jax.data import pipeline
from ldm_jax.progress import Meter
from ldm_jax.training import parallel, profiler, throughput, window, writers
from ldm_jax.training.checkpoints import Checkpoints
from ldm_jax.training.job import Job
from ldm_jax.training.parallel import Parallel
from ldm_jax.training.preemption import Preempted, Preemption, in_thread
from ldm_jax.types import PyTree

NONFINITE = ('skip', 'stop')


@dataclasses.dataclass(frozen=True)
class Run:
    """The settings of a run that are neither model nor data.

    Counts are of steps. save_every has a checkpoint written, of which the newest `keep` and every multiple of
    keep_every stay; picture_every is save_every unless given; nonfinite says what happens at a step whose loss or
    gradient is not finite: 'skip' counts it, 'stop' saves its batch and ends the run; profile is the steps to
    trace, (first, last); writers is where metrics go beside the files: 'tensorboard', 'wandb', or with settings as
    dict(name='wandb', project='x'); parallel holds the fields of parallel.Parallel.
    """

    num_steps: int
    batch_size: int
    seed: int = 0
    ema_decay: float = 0.999
    log_every: int = 50
    save_every: int = 1000
    picture_every: int | None = None
    keep: int = 2
    keep_every: int | None = None
    nonfinite: str = 'skip'
    profile: Sequence[int] = ()
    writers: Sequence[str | Mapping[str, Any]] = ()
    parallel: Parallel = dataclasses.field(default_factory=Parallel)

    def __post_init__(self):
        for field in (
            'num_steps',
            'batch_size',
            'log_every',
            'save_every',
            'picture_every',
            'keep',
            'keep_every',
        ):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f'run.{field} must be at least 1; got {value}.')
        if self.nonfinite not in NONFINITE:
            raise ValueError(f'run.nonfinite is one of {NONFINITE}; got {self.nonfinite!r}.')
        profiler.check(self.profile)
        for spec in self.writers:
            writers.parsed(spec)
        if isinstance(self.parallel, Mapping):  # as a config has it
            object.__setattr__(self, 'parallel', Parallel(**self.parallel))


def train(
    job: Job,
    examples: pipeline.Examples,
    workdir: str,
    run: Run,
    *,
    config: Mapping[str, Any] | None = None,
    preemption: Preemption | None = None,
) -> PyTree:
    """Trains to run.num_steps, from the newest readable checkpoint of workdir if there is one.

    workdir/checkpoints holds states, workdir/metrics.jsonl a JSON object for each log line, workdir/pictures what
    job.pictures makes of a batch. A run that was stopped, however and wherever, and started again goes through
    the same states as one that was not, and leaves the same metrics.

    Args:
        examples: as the step wants them, by index.
        config: of the run, as plain data, for writers that show it.
        preemption: in use as a context by the caller, who then handles Preempted.

    Returns:
        The last state, each array once, on the devices of run.parallel.

    Raises:
        Preempted: a signal came; the state has been saved.
        window.NonFinite: at a step that was not finite, if that is the policy.
        checkpoints.Damaged: there are checkpoints and none can be read.
        ValueError: the checkpoints are of other arrays or other data, or batch_size does not divide evenly.
    """
    root = pathlib.Path(workdir).absolute()
    root.mkdir(parents=True, exist_ok=True)
    spread = parallel.backend(run.parallel, run.batch_size, job.axes)
    with Checkpoints(root / 'checkpoints', run.keep, run.keep_every) as checkpoints:
        session = _Session(job, examples, root, run, spread, checkpoints, preemption or Preemption())
        session.begin(config or {})
        try:
            session.go_on()
        finally:
            session.close()
        return spread.whole(session.state)


class _Session:
    """One process's part of a run: from a checkpoint, or from nothing, to the end or a signal."""

    def __init__(
        self,
        job: Job,
        examples: pipeline.Examples,
        root: pathlib.Path,
        run: Run,
        spread: parallel.Backend,
        checkpoints: Checkpoints,
        preemption: Preemption,
    ):
        self._job, self._examples, self._root, self._run = job, examples, root, run
        self._spread, self._checkpoints, self._preemption = spread, checkpoints, preemption
        self._key = jax.random.key(run.seed)
        self._profiler = profiler.Profiler(root, run.profile)
        self._last_batch: PyTree | None = None  # the newest that was used, for its checksum

    def begin(self, config: Mapping[str, Any]) -> None:
        """The state to go on from, and the data and the log brought to the same step."""
        run, init_key = self._run, jax.random.fold_in(self._key, 0)
        job = self._job
        restored = self._checkpoints.restore(
            self._spread.like(lambda key: job.split(job.init(key))[0], init_key)
        )
        if restored is None:
            self.step, extra = 0, {'logged': 0, 'window': []}
            self.state = self._spread.init(job.init, init_key)
        else:
            self.step, extra = restored.step, restored.extra
            fixed = ()
            if jax.tree.leaves(jax.eval_shape(lambda key: job.split(job.init(key))[1], init_key)):
                fixed = self._spread.init(lambda key: job.split(job.init(key))[1], init_key)
            self.state = job.merge(self._spread.placed(restored.state), fixed)
            self._say(f'resumed at step {self.step}')
        self._logged = extra['logged']
        size = trees.count(self._spread.whole(self.state))
        self._say(
            f'{size:,} numbers in the state, {len(self._examples):,} examples, {self._spread.devices} devices'
        )
        self._window = window.Window(
            self._spread.metrics, extra['window'], stop=run.nonfinite == 'stop', folder=self._root
        )
        # A run that had ended keeps its last line, which need not be a regular one: nothing writes it again.
        shown = self.step if self.step >= run.num_steps else self._logged
        self._writer = (
            writers.build(run.writers, self._root, shown, config)
            if jax.process_index() == 0
            else writers.Nothing()
        )
        before = max(
            self.step - 1, 0
        )  # the last batch that was used is read again, to see that it is the same
        self._batches = pipeline.batches(self._examples, run.batch_size, run.seed, start=before)
        if self.step:
            self._last_batch = next(self._batches)
            self._check_data(extra['data'])

    def go_on(self) -> None:
        """Trains to the end. On a signal the state is saved, and Preempted raised."""
        with self._preemption.deferred():
            try:
                self._train()
            except Preempted:
                self._save()
                self._finish_save()
                raise
        self._finish_save()

    def close(self) -> None:
        self._profiler.close()
        self._writer.close()

    def _train(self) -> None:
        run = self._run
        if self.step >= run.num_steps:
            return
        feed = _Feed(self._batches, self._spread, self._preemption)
        host_batch, batch = feed.take()
        step, flops = self._compiled(batch)
        clock = throughput.Clock(run.batch_size, flops, self._spread.devices)
        meter = Meter(run.num_steps, 'training', done=self.step)
        waited = 0.0
        while True:
            self._profiler.before(self.step)
            self.state, metrics = step(self.state, batch, self._key)
            self._profiler.after(self.step, metrics)
            self.step += 1
            self._last_batch = host_batch
            self._window.add(self.step, host_batch, metrics)
            clock.step(waited)
            meter.advance()
            last = self.step == run.num_steps
            if self.step % run.log_every == 0 or last:
                self._log(clock, regular=self.step % run.log_every == 0)
            started = time.monotonic()
            if self.step % (run.picture_every or run.save_every) == 0 or last:
                self._show(host_batch)
            if self.step % run.save_every == 0 or last:
                self._save()
            clock.aside(time.monotonic() - started)
            self._acknowledge(self._checkpoints.written())
            if last:
                break
            self._preemption.check(self.step)
            started = time.monotonic()
            host_batch, batch = feed.take()
            waited = time.monotonic() - started
        meter.close()

    def _compiled(self, batch: PyTree) -> tuple[Any, float | None]:
        """The step for these shapes, and its FLOPs. Compiled apart, so that a signal need not wait for it."""
        started = time.monotonic()
        lowered, program = self._spread.traced(self._job.step, self.state, batch, self._key)
        compiled = self._preemption.wait(in_thread(lowered.compile))
        self._say(f'compiled in {time.monotonic() - started:.1f} s')
        flops = throughput.step_flops(program)
        return compiled, flops and flops * self._spread.copies

    def _log(self, clock: throughput.Clock, regular: bool) -> None:
        """A line of what happened since the last one.

        The line at the end of a run may be between two regular ones. A run that is extended later goes on from
        the steps since the last regular line, as if it had never ended.
        """
        values = self._window.values()
        record = self._window.close() | clock.close()
        if regular:
            self._logged = self.step
        else:
            self._window.put_back(values)
        self._writer.scalars(self.step, record)
        numbers = {name: value for name, value in record.items() if not isinstance(value, list)}
        text = ' '.join(f'{name} {value:.6g}' for name, value in numbers.items())
        self._say(f'step {self.step} {text}')

    def _say(self, text: str) -> None:
        if jax.process_index() == 0:
            print(text, flush=True)

    def _show(self, batch: PyTree) -> None:
        """Pictures of up to 16 examples of a batch, to the files and the writers."""
        if self._job.pictures is None:
            return
        shown = jax.tree.map(lambda array: array[:16], batch)
        state = self._spread.whole(self.state)
        made = self._preemption.wait(
            in_thread(lambda: jax.device_get(self._pictures(state, shown, self._key)))
        )
        for name, rows in made.items():
            self._writer.image(self.step, name, pictures.contact_sheet(np.asarray(rows, np.float32)))

    @functools.cached_property
    def _pictures(self) -> Any:
        return jax.jit(self._job.pictures, out_shardings=self._spread.replicated)

    def _save(self) -> None:
        self._acknowledge(self._checkpoints.wait())
        data = {'seed': self._run.seed, 'batch_size': self._run.batch_size, 'examples': len(self._examples)}
        if self._last_batch is not None:
            data['batch_crc32'] = _crc32(self._last_batch)
        extra = {'logged': self._logged, 'window': self._window.values(), 'data': data}
        self._checkpoints.save(self.step, self._spread.whole(self._job.split(self.state)[0]), extra)

    def _finish_save(self) -> None:
        self._acknowledge(self._checkpoints.wait())

    def _acknowledge(self, step: int | None) -> None:
        if step is not None:
            self._say(f'checkpoint {step} written')

    def _check_data(self, stored: Mapping[str, Any]) -> None:
        """Raises ValueError when the data that the run goes on with are not those that it began with.

        The batch of a step follows from (data, batch_size, seed, step), so the step is the position; whether the
        data are the same shows in their number and in the last batch that was used.
        """
        now = {'seed': self._run.seed, 'batch_size': self._run.batch_size, 'examples': len(self._examples)}
        if jax.process_index() == 0:  # which wrote the record
            now['batch_crc32'] = _crc32(self._last_batch)
        changed = {
            name: (stored.get(name), value) for name, value in now.items() if stored.get(name) != value
        }
        if changed:
            raise ValueError(
                f'The run cannot go on at step {self.step}: its data are not those that it began with (then, now): '
                f'{changed}. Give the old data, batch size and seed back, or start in another workdir.'
            )


class _Feed:
    """Batches, one read and put on the devices ahead of the step, in a thread that signals do not wait for."""

    def __init__(self, batches: Iterator[PyTree], spread: parallel.Backend, preemption: Preemption):
        self._batches, self._spread, self._preemption = batches, spread, preemption
        self._next = in_thread(self._read)

    def take(self) -> tuple[PyTree, PyTree]:
        """The next batch as it was read, and on the devices."""
        batch = self._preemption.wait(self._next)
        self._next = in_thread(self._read)
        return batch

    def _read(self) -> tuple[PyTree, PyTree]:
        batch = next(self._batches)
        return batch, self._spread.shard(batch)


def _crc32(batch: PyTree) -> str:
    value = 0
    for leaf in jax.tree.leaves(batch):
        value = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), value)
    return f'{value:08x}'
