"""The loop around a training step: data in, metrics and images out, checkpoints that resume."""

from __future__ import annotations

import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ldm_jax import trees
from ldm_jax.data import pipeline
from ldm_jax.diffusion import prng
from ldm_jax.images import contact_sheet
from ldm_jax.progress import Meter
from ldm_jax.training.batch_loader import Batch, BatchLoader
from ldm_jax.training.job import Job
from ldm_jax.training.monitoring import metric_buffer, profiler, throughput, writers
from ldm_jax.training.parallel import backend as parallel
from ldm_jax.training.parallel import distributed
from ldm_jax.training.preemption import Preempted, Preemption, in_thread
from ldm_jax.training.run import Run
from ldm_jax.training.saving.best import Best
from ldm_jax.training.saving.checkpoints import Checkpoints
from ldm_jax.types import PyTree


def train(
    job: Job,
    examples: pipeline.Examples,
    workdir: str | pathlib.Path,
    run: Run,
    *,
    config: Mapping[str, Any] | None = None,
    changed: Mapping[str, Any] | None = None,
    preemption: Preemption | None = None,
    evaluator: Evaluator | None = None,
    finished: Callable[[PyTree], None] | None = None,
) -> PyTree:
    """Trains to run.num_steps, from the newest readable checkpoint of workdir if there is one.

    workdir/checkpoints holds states, workdir/metrics.jsonl a JSON object for each log line, workdir/images what
    job.images makes of the same examples each time. A run that was stopped, however and wherever, and started again
    goes through the same states as one that was not, and leaves the same metrics.

    Args:
        examples: as the step wants them, by index.
        workdir: of all processes, where there are several.
        config: of the run, as plain data, for writers that show it.
        changed: dotted name -> (old, new) of settings with which the run goes on, for the metrics.
        preemption: in use as a context by the caller, who then handles Preempted.
        evaluator: measures a state, for run.evaluate: (state) -> numbers by name.
        finished: called with the best state when the run has ended, where run.keep_best names a number.

    Returns:
        The last state, each array once, on the devices of run.parallel.

    Raises:
        Preempted: a signal came; the state has been saved.
        metric_buffer.NonFinite: at a step that was not finite, if that is the policy.
        checkpoints.Damaged: there are checkpoints and none can be read.
        corrupt.TooManyCorrupt: beyond run.loader.max_corrupt.
        ValueError: the checkpoints are of other arrays or other data, or batch_size does not divide evenly.
    """
    if run.evaluate is not None and evaluator is None:
        raise ValueError(
            'run.evaluate needs an evaluator, such as that of ldm_jax/evaluation/in_training.py.'
        )
    root = pathlib.Path(workdir).absolute()
    root.mkdir(parents=True, exist_ok=True)
    spread = parallel.backend(run.parallel, run.batch_size, job.axes() if run.parallel.cuts else {})
    with Checkpoints(root / 'checkpoints', run.keep, run.keep_every) as checkpoints:
        session = _Session(
            job, examples, root, run, spread, checkpoints, preemption or Preemption(), evaluator
        )
        try:
            session.begin(config or {}, changed or {})
            session.go_on()
            if finished is not None and (best := session.best()) is not None:
                finished(best)
        finally:
            session.close()
        return spread.whole(session.state)


class Evaluator(Protocol):
    """Measures a state while a run trains."""

    def __call__(self, state: PyTree) -> Mapping[str, float]: ...

    def sign(self, name: str) -> int: ...  # 1 where more of a number is better, -1 where less is


class _Program(NamedTuple):
    """The step, compiled for batches of some shapes."""

    step: Any
    flops: float | None  # on all devices


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
        evaluator: Evaluator | None,
    ):
        self._job, self._examples, self._root, self._run = job, examples, root, run
        self._spread, self._checkpoints, self._preemption = spread, checkpoints, preemption
        self._key, self._evaluator = prng.key(run.seed), evaluator
        self._best = None
        if run.keep_best is not None:
            self._best = Best(root, run.keep_best, evaluator.sign(run.keep_best))
        self._profiler = profiler.Profiler(root, run.profile)
        self._writer: writers.Writer = writers.Nothing()
        self._loader: BatchLoader | None = None
        self._programs: dict[Any, _Program] = {}

    def begin(self, config: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        """The state to go on from, and the data and the log brought to the same step.

        Raises ValueError when the run's images cannot be drawn, before the first step.
        """
        run, job, init_key = self._run, self._job, jax.random.fold_in(self._key, 0)
        restored = self._checkpoints.restore(
            self._spread.like(lambda key: job.split(job.init(key))[0], init_key)
        )
        if restored is None:
            self.step, extra = 0, {'logged': 0, 'window': []}
            self.state = self._spread.init(job.init, init_key)
        else:
            self.step, extra = restored.step, restored.extra
            fixed = self._spread.init(job.fixed, init_key)
            self.state = job.merge(self._spread.placed(restored.state), fixed)
            self._say(f'resumed at step {self.step}')
        self._logged = extra['logged']
        size = trees.count(self._spread.whole(self.state))
        self._say(
            f'{size:,} numbers in the state, {len(self._examples):,} examples, {self._spread.devices} devices'
        )
        self._metrics = metric_buffer.MetricBuffer(
            self._spread.metrics,
            extra['window'],
            stop=run.nonfinite == 'stop',
            folder=self._root,
            together=distributed.together,
        )
        # A run that had ended keeps its last line, which need not be a regular one: nothing writes it again.
        shown = self.step if self.step >= run.num_steps else self._logged
        if distributed.first():
            self._writer = writers.build(run.writers, self._root, shown, config)
        self._loader = BatchLoader(self._examples, run, self._spread, self._preemption, self.step)
        if self.step:
            self._loader.check(extra['data'])
            if changed:
                self._writer.changed(self.step, changed)
        if self._draws:
            self._check_images()

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
        if self._loader.report().names:
            print(self._loader.report(), flush=True)  # each process has its own

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()
        self._profiler.close()
        self._writer.close()
        if self._best is not None:
            self._best.close()

    def best(self) -> PyTree | None:
        """The best state, whole; None where none is kept."""
        if self._best is None:
            return None
        changing = self._best.restore(
            self._spread.like(lambda key: self._job.split(self._job.init(key))[0], self._key)
        )
        if changing is None:
            return None
        fixed = self._spread.init(self._job.fixed, jax.random.fold_in(self._key, 0))
        return self._spread.whole(self._job.merge(self._spread.placed(changing), fixed))

    def _train(self) -> None:
        run, loader = self._run, self._loader
        if self.step >= run.num_steps:
            return
        batch = loader.take()
        program = self._program(batch)
        clock = throughput.Clock(run.batch_size, self._spread.devices)
        meter = Meter(run.num_steps, 'training', done=self.step)
        waited = 0.0
        while True:
            self._profiler.before(self.step)
            self.state, metrics = program.step(self.state, batch.devices, self._key)
            self._profiler.after(self.step, metrics)
            self.step += 1
            loader.used(batch)
            self._metrics.add(self.step, batch.host, metrics, batch.corrupt)
            clock.step(waited, program.flops)
            meter.advance()
            last = self.step == run.num_steps
            if self.step % run.log_every == 0 or last:
                self._log(clock, regular=self.step % run.log_every == 0)
            started = time.monotonic()
            if self.step % run.save_every == 0 or last:
                self._save()
            if self._draws and (self.step % (run.image_every or run.save_every) == 0 or last):
                self._show()
            clock.aside(time.monotonic() - started)
            self._acknowledge(self._checkpoints.written())
            if last:
                break
            self._preemption.check(self.step)
            started = time.monotonic()
            batch = loader.take()
            waited = time.monotonic() - started
            program = self._program(batch)
        meter.close()

    def _program(self, batch: Batch) -> _Program:
        """The step for the shapes of a batch. Compiled apart, so that a signal need not wait for it."""
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch.devices))
        if shapes not in self._programs:
            started = time.monotonic()
            lowered, program = self._spread.traced(self._job.step, self.state, batch.devices, self._key)
            compiled = self._preemption.wait(in_thread(lowered.compile))
            self._say(f'compiled in {time.monotonic() - started:.1f} s')
            flops = throughput.step_flops(program)
            self._programs[shapes] = _Program(compiled, flops and flops * self._spread.copies)
        return self._programs[shapes]

    def _log(self, clock: throughput.Clock, regular: bool) -> None:
        """A log line about the steps since the last one.

        The line at the end of a run may be between two regular ones. A run that is extended later goes on from
        the steps since the last regular line, as if it had never ended.
        """
        values = self._metrics.values()
        record = self._metrics.close() | clock.close() | self._evaluated()
        if regular:
            self._logged = self.step
        else:
            self._metrics.put_back(values)
        self._writer.scalars(self.step, record)
        numbers = {name: value for name, value in record.items() if not isinstance(value, list)}
        text = ' '.join(f'{name} {value:.6g}' for name, value in numbers.items())
        self._say(f'step {self.step} {text}')

    def _evaluated(self) -> dict[str, float]:
        """The numbers of run.evaluate, where they are due at this step; the best state so far is kept."""
        settings = self._run.evaluate
        due = settings is not None and (self.step % settings.every == 0 or self.step == self._run.num_steps)
        if not due:
            return {}
        state = self._spread.whole(self.state)
        measured = self._preemption.wait(in_thread(lambda: self._evaluator(state)))
        if self._best is not None and self._best.offer(self.step, self._job.split(state)[0], measured):
            self._say(f'best {self._run.keep_best} so far, {self._best.value:.6g}: kept')
        return dict(measured)

    def _say(self, text: str) -> None:
        if distributed.first():
            print(text, flush=True)

    @property
    def _draws(self) -> bool:
        return self._job.images is not None and self._run.image_every != 0

    def _check_images(self) -> None:
        state, shown = self._spread.whole(self.state), self._shown
        try:
            self._images.eval_shape(state, shown, self._key)
        except Preempted:
            raise
        except Exception as error:
            raise ValueError(
                f'The images of this run cannot be drawn ({_first_line(error)}). Mend that, or set run.image_every=0 '
                'to train without them.'
            ) from error

    def _show(self) -> None:
        """Draws images for the files and the writers; a failure is a warning, and training goes on."""
        state, shown = self._spread.whole(self.state), self._shown
        try:
            made = self._preemption.wait(
                in_thread(lambda: jax.device_get(self._images(state, shown, self._key)))
            )
            for name, rows in made.items():
                self._writer.image(self.step, name, contact_sheet(np.asarray(rows, np.float32)))
        except Preempted:
            raise
        except Exception as error:
            text = f'the images of step {self.step} failed, and training goes on: {_first_line(error)}'
            print(text, file=sys.stderr, flush=True)

    @functools.cached_property
    def _shown(self) -> PyTree:
        return self._loader.shown()

    @functools.cached_property
    def _images(self) -> Any:
        return jax.jit(self._job.images, out_shardings=self._spread.replicated)

    def _save(self) -> None:
        self._acknowledge(self._checkpoints.wait())
        extra = {'logged': self._logged, 'window': self._metrics.values(), 'data': self._loader.summary()}
        self._checkpoints.save(self.step, self._spread.whole(self._job.split(self.state)[0]), extra)

    def _finish_save(self) -> None:
        self._acknowledge(self._checkpoints.wait())

    def _acknowledge(self, step: int | None) -> None:
        if step is not None:
            self._say(f'checkpoint {step} written')


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.partition('\n')[0][:300]
