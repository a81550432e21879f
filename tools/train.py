"""Trains a stage by its config; run again with the same workdir, it resumes.

    python tools/train.py --config configs/emoji_vae.py --workdir runs/emoji_vae [--config.run.num_steps=100]

workdir gets checkpoints/, metrics.jsonl, images/ and, at the end, report.html and model/ for sampling or the next
stage. A run that has ended goes on when it is given more steps.

On several hosts each runs the same command, in a folder that they share, with --distributed; tools/launch/ starts
them. It is meant where JAX_COORDINATOR_ADDRESS is set.

On SIGTERM or Ctrl-C the state is saved; once more ends the run at once. Exit codes: 0 done; 75 told to stop, run it
again to go on; 1 an error, 2 a wrong flag.
"""

import functools
import json
import os
import pathlib

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, 'What to train: a file of configs/.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints, metrics, images and the model go.')
DISTRIBUTED = flags.DEFINE_bool(
    'distributed', 'JAX_COORDINATOR_ADDRESS' in os.environ, 'This is one of several processes.'
)
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'No positional arguments are taken; got {argv[1:]}.')
    from ldm_jax.training import preemption
    from ldm_jax.training.parallel import distributed

    if DISTRIBUTED.value:
        distributed.start()
    with preemption.Preemption() as signals:
        try:
            train(signals)
        except preemption.Preempted:
            print(f'stopped; run the same command again to go on from {WORKDIR.value}', flush=True)
            distributed.leave(preemption.EXIT_CODE)
    if DISTRIBUTED.value:
        distributed.leave(0)


def train(signals):
    from ldm_jax.build import build
    from ldm_jax.checkpoints import loading, store
    from ldm_jax.training import from_config, loop
    from ldm_jax.training.monitoring import report
    from ldm_jax.training.parallel import distributed
    from ldm_jax.training.saving import resume_check

    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its thoughts at INFO
    config = json.loads(CONFIG.value.to_json())
    workdir = pathlib.Path(WORKDIR.value)
    run = loop.Run(**config['run'])
    resume_check.check(workdir, config)
    source = build('data', config['data'])
    stage, settings = from_config.stage(config, loading.load, source)
    work = from_config.work(config, stage, run)
    examples = stage.prepare(source)
    state = loop.train(work, examples, workdir, run, config=config, preemption=signals)
    averaged = distributed.gathered(state.ema_params)
    if not distributed.first():
        return
    print(f'report written to {report.write(workdir, config)}')
    target = workdir / 'model'
    save = functools.partial(store.save_model, str(target))
    from_config.export(config, stage, settings, averaged, examples, save)
    print(f'model written to {target}')


if __name__ == '__main__':
    app.run(main)
