"""The settings of a run that are neither model nor data: the config's `run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax.training import ema
from ldm_jax.training.monitoring import profiler, writers
from ldm_jax.training.parallel.backend import Parallel

NONFINITE = ('skip', 'stop')


@dataclasses.dataclass(frozen=True)
class Loader:
    """How examples are read, see data.pipeline.batches; batches do not depend on it, but for max_corrupt."""

    threads: int = 4
    workers: int = 0
    prefetch: int = 4
    max_corrupt: float = 0.1

    def __post_init__(self):
        for field, low in (('threads', 1), ('workers', 0), ('prefetch', 0)):
            if getattr(self, field) < low:
                raise ValueError(f'run.loader.{field} must be at least {low}; got {getattr(self, field)}.')
        if not 0 <= self.max_corrupt <= 1:
            raise ValueError(f'run.loader.max_corrupt is a share, from 0 to 1; got {self.max_corrupt}.')


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """What is measured while a run trains, with the average ema.MAIN: `run.evaluate`.

    every: steps between measurements, a multiple of run.log_every, whose lines hold the numbers; the last step too.
    metrics: names of ldm_jax/evaluation, or specs with their settings.
    num_images: that are made each time, always of the same examples and noise.
    batch_size: images at a time.
    """

    every: int
    metrics: Sequence[Any] = ()
    num_images: int = 256
    batch_size: int = 64

    def __post_init__(self):
        for field in ('every', 'num_images', 'batch_size'):
            if getattr(self, field) < 1:
                raise ValueError(f'run.evaluate.{field} must be at least 1; got {getattr(self, field)}.')
        if not self.metrics:
            raise ValueError(
                "run.evaluate.metrics names none: give some, such as ('psnr',) for a first stage."
            )


@dataclasses.dataclass(frozen=True)
class Run:
    """Counts are of steps.

    batch_size: examples of an update, on all devices; accumulate: the micro-batches that they are gone through in.
    ema: moving averages by name, see training/ema.py; 'main' is for images and export.
    save_every has a checkpoint written, of which the newest `keep` and every multiple of keep_every stay;
    image_every is save_every unless given; 0 is no images.
    nonfinite says what happens at a step whose loss or gradient is not finite: 'skip' counts it, 'stop' saves its
    batch and ends the run.
    profile is the steps to trace, (first, last).
    writers is where metrics go beside the files: 'tensorboard', 'wandb', or with settings as
    dict(name='wandb', project='x').
    evaluate holds the fields of Evaluate; keep_best is a number that it measures, as it is called in the log, by which
    the best state is kept in workdir/best and exported to workdir/best_model.
    parallel holds the fields of parallel.Parallel, loader those of Loader.

    Raises ValueError for values out of range.
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
    image_every: int | None = None
    keep: int = 2
    keep_every: int | None = None
    nonfinite: str = 'skip'
    profile: Sequence[int] = ()
    writers: Sequence[str | Mapping[str, Any]] = ()
    evaluate: Evaluate | None = None
    keep_best: str | None = None
    parallel: Parallel = dataclasses.field(default_factory=Parallel)
    loader: Loader = dataclasses.field(default_factory=Loader)

    def __post_init__(self):
        for field in (
            'num_steps',
            'batch_size',
            'accumulate',
            'log_every',
            'save_every',
            'keep',
            'keep_every',
        ):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f'run.{field} must be at least 1; got {value}.')
        if not 0 <= self.seed < 2**63:
            raise ValueError(f'run.seed must be at least 0 and below 2^63; got {self.seed}.')
        if self.image_every is not None and self.image_every < 0:
            raise ValueError(
                f'run.image_every must be at least 0, which is no images; got {self.image_every}.'
            )
        if self.nonfinite not in NONFINITE:
            raise ValueError(f'run.nonfinite is one of {NONFINITE}; got {self.nonfinite!r}.')
        profiler.check(self.profile)
        for spec in self.writers:
            writers.named(spec)
        for field, kind in (('parallel', Parallel), ('loader', Loader), ('evaluate', Evaluate)):
            if isinstance(getattr(self, field), Mapping):  # as a config has it
                object.__setattr__(self, field, kind(**getattr(self, field)))
        if self.evaluate is not None and self.evaluate.every % self.log_every:
            raise ValueError(
                f'run.evaluate.every must be a multiple of run.log_every, whose lines hold the numbers; got '
                f'{self.evaluate.every} and {self.log_every}.'
            )
        if self.keep_best is not None and self.evaluate is None:
            raise ValueError('run.keep_best is a number that run.evaluate measures: give that too.')
