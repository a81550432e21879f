"""Trains a stage by its config; run again with the same workdir, it resumes.

    python tools/train.py --config configs/emoji_vae.py --workdir runs/emoji_vae [--config.run.num_steps=100]

workdir gets checkpoints/, metrics.jsonl, pictures/ and, at the end, report.html and model/ for sampling or the next
stage. A run that has ended goes on when it is given more steps.

On SIGTERM or Ctrl-C the state is saved; once more ends the run at once. Exit codes: 0 done; 75 told to stop, run it
again to go on; 1 an error, 2 a wrong flag.
"""

import json
import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, 'What to train: a file of configs/.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints, metrics, pictures and the model go.')
flags.mark_flags_as_required(['config', 'workdir'])

# What may change when a run goes on: it trains the same.
FREE = ('run.save_every', 'run.picture_every', 'run.keep', 'run.keep_every', 'run.profile', 'run.writers')
FREE += ('run.parallel', 'export')  # other devices: the same to rounding


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'No positional arguments are taken; got {argv[1:]}.')
    from ldm_jax.training import preemption

    with preemption.Preemption() as signals:
        try:
            train(signals)
        except preemption.Preempted:
            print(f'stopped; run the same command again to go on from {WORKDIR.value}', flush=True)
            sys.stderr.flush()
            # A compilation or a read may be under way in a thread: the interpreter's own end could crash on it.
            os._exit(preemption.EXIT_CODE)


def train(signals):
    from ldm_jax.build import build
    from ldm_jax.checkpoints import store
    from ldm_jax.data import pipeline
    from ldm_jax.training import job, loop, optimizer, report

    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its thoughts at INFO
    config = json.loads(CONFIG.value.to_json())
    run = loop.Run(**config['run'])
    check_same_settings(pathlib.Path(WORKDIR.value), config)
    source = build('data', config['data'])
    stage, settings = assemble(CONFIG.value)
    tx = optimizer.adamw(num_steps=run.num_steps, **config['optimizer'])
    examples = stage.prepare(source)
    work = job.of_stage(stage, tx, run.ema_decay)
    state = loop.train(work, examples, WORKDIR.value, run, config=config, preemption=signals)
    print(f'report written to {report.write(WORKDIR.value, config)}')
    measured, params = stage.export(state.ema_params, pipeline.in_order(examples, run.batch_size))
    path = pathlib.Path(WORKDIR.value) / 'model'
    store.save_model(path, settings | measured, params, **config.get('export', {}))
    print(f'model written to {path}')


def assemble(config):
    """The stage of a config, and the settings that its exported model will carry."""
    from ldm_jax.build import build, parts
    from ldm_jax.checkpoints import store

    models, settings, fields, frozen = {}, {}, {}, {}
    for part, path in config.get('pretrained', {}).items():
        loaded, params = store.load_model(path, [part])
        models[part] = loaded['models'][part]
        settings |= {key: loaded[key] for key in ('tokenizer', 'latent_scale') if key in loaded}
        frozen |= params
    settings |= {key: json.loads(config[key].to_json()) for key in ('schedule', 'tokenizer') if key in config}
    settings['models'] = models | json.loads(config.models.to_json())
    fields |= parts(settings)
    if 'schedule' in settings:
        fields['schedule'] = build('schedules', settings['schedule'])
    if 'tokenizer' in settings:
        fields['tokenizer'] = build('text', settings['tokenizer'])
    if 'initial' in config:
        fields['initial'] = store.load_model(config.initial, ['unet'])[1]['unet']
    if frozen:
        fields |= {'frozen': frozen, 'latent_scale': settings['latent_scale']}
    return build('training', {**config.stage, **fields}), settings


def check_same_settings(workdir, config):
    """Writes the config into a new workdir; raises ValueError when an old one was started with another config.

    More steps may be asked for, and what FREE names may change: the workdir then keeps the new config.
    """
    path = workdir / 'config.json'
    if path.exists():
        old, new = flat(json.loads(path.read_text())), flat(config)
        changed = {
            key: (old.get(key), new.get(key))
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not any(f'{key}.'.startswith(f'{name}.') for name in FREE)
        }
        before, after = changed.get('run.num_steps', (0, 0))
        if after > before:
            print(
                f'run.num_steps is raised from {before} to {after}; a learning rate that falls to the end is higher'
            )
            del changed['run.num_steps']
        if changed:
            raise ValueError(
                f'{workdir} was started with other settings (old, new): {changed}. Choose another --workdir, or give '
                'the old settings to resume; only run.num_steps may be raised.'
            )
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    partial.write_text(json.dumps(config, indent=2) + '\n')
    partial.replace(path)


def flat(settings, prefix=''):
    """Nested settings by dotted name."""
    found = {}
    for key, value in settings.items():
        found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {f'{prefix}{key}': value}
    return found


if __name__ == '__main__':
    app.run(main)
