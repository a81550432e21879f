"""A training run from its config, from the first check to the exported model: what tools/train.py does."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging

from ldm_jax.build import build
from ldm_jax.checkpoints import loading, store
from ldm_jax.training import from_config, loop
from ldm_jax.training.monitoring import report
from ldm_jax.training.parallel import distributed
from ldm_jax.training.preemption import Preemption
from ldm_jax.training.run import Run
from ldm_jax.training.saving import resume_check, workdir_lock

SECTIONS = ('stage', 'data', 'optimizer', 'run')  # that a training run's config has
DTYPES = ('float32', 'bfloat16', 'float16')


def train(
    config: Mapping[str, Any],
    workdir: pathlib.Path,
    preemption: Preemption,
    allowed: Sequence[str] = (),
    evaluator: Callable[..., loop.Evaluator] | None = None,
) -> None:
    """Trains a stage in a workdir, on from what is there, and exports its model to workdir/model.

    Args:
        config: as plain data, its fields known (overrides.check).
        preemption: in use as a context by the caller, who handles Preempted.
        allowed: settings that may differ from those the run was begun with, see resume_check.
        evaluator: (stage, examples, run.evaluate) -> what measures states; that of evaluation/in_training.py, which
            is of a higher room. Without one run.evaluate is refused.

    Raises ValueError, OSError or ModuleNotFoundError for what the user can mend, as early as it shows: a run that
    could not start leaves no config behind.
    """
    run = check(config)
    with workdir_lock.held(workdir):
        changed = resume_check.changes(workdir, config, allowed)
        source = build('data', from_config.data(config, loading.load))
        stage, settings = from_config.stage(config, loading.load, source)
        job = from_config.work(config, stage, run)
        examples = stage.prepare(source)
        measure = _evaluator(run, evaluator, stage, examples)
        resume_check.record(workdir, config)
        export = functools.partial(from_config.export, config, stage, settings)

        def keep_best(best: Any) -> None:
            averaged = distributed.gathered(best.ema_params)
            if distributed.first():
                folder = workdir / 'best_model'
                folder.mkdir(exist_ok=True)
                if not from_config.adapter(config, stage, averaged, folder):
                    export(averaged, examples, functools.partial(store.save_model, str(folder)))

        state = loop.train(
            job,
            examples,
            workdir,
            run,
            config=config,
            changed=changed,
            preemption=preemption,
            evaluator=measure,
            finished=keep_best,
        )
        averaged = distributed.gathered(state.ema_params)
        if not distributed.first():
            return
        print(f'report written to {report.write(str(workdir), config)}')
        if trained := from_config.adapter(config, stage, averaged, workdir):
            print(f'adapter written to {trained}')
            return
        model = workdir / 'model'
        export(averaged, examples, functools.partial(store.save_model, str(model)))
        print(f'model written to {model}')


def _evaluator(
    run: Run, make: Callable[..., loop.Evaluator] | None, stage: Any, examples: Any
) -> loop.Evaluator | None:
    """What measures the run's states. Raises ValueError where nobody can."""
    if run.evaluate is None:
        return None
    if make is None or jax.process_count() > 1:
        raise ValueError(
            'run.evaluate measures in one process, started by tools/train.py or a sweep: leave it out.'
        )
    return make(stage, examples, run.evaluate)


def check(config: Mapping[str, Any]) -> Run:
    """The run's settings, and all else of a config that can be checked without data and weights.

    Raises ValueError.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its thoughts at INFO
    missing = [name for name in SECTIONS if name not in config]
    if missing:
        raise ValueError(
            f'The config has no {missing[0]!r}: it is of a model, not of a training run, which has {list(SECTIONS)}.'
        )
    run = Run(**config['run'])
    adversary = 'discriminator' in {**config.get('models', {}), **config.get('pretrained', {})}
    from_config.optimizers(config, run, config['stage'].get('disc_start', 0) if adversary else None)
    from_config.averages(run)
    warmup = config['optimizer'].get('warmup_steps', 0)
    if warmup >= run.num_steps and distributed.first():
        print(
            f'optimizer.warmup_steps is {warmup}, clipped to the {run.num_steps} steps of the run',
            file=sys.stderr,
        )
    dtype = config.get('export', {}).get('dtype', 'float32')
    if dtype not in DTYPES:
        raise ValueError(f'export.dtype is one of {list(DTYPES)}; got {dtype!r}.')
    return run
