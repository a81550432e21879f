"""Trains a stage by its config; run again with the same workdir, it resumes.

    python tools/train.py --config configs/emoji_vae.py --workdir runs/emoji_vae [--config.run.num_steps=100]

workdir gets checkpoints/, metrics.jsonl, pictures/ and, at the end, model/ for sampling or the next stage.
"""

import json
import pathlib

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, 'What to train: a file of configs/.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints, metrics, pictures and the model go.')
flags.mark_flags_as_required(['config', 'workdir'])
SHARED = ('tokenizer', 'tokenizer_2', 'latent_scale')  # settings that a trained part brings with it


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'No positional arguments are taken; got {argv[1:]}.')
    from ldm_jax.build import build
    from ldm_jax.checkpoints import store
    from ldm_jax.data import pipeline
    from ldm_jax.training import loop, optimizer

    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its thoughts at INFO
    config = CONFIG.value
    check_same_settings(pathlib.Path(WORKDIR.value), config)
    run = loop.Run(**config.run)
    source = build('data', config.data)
    stage, settings = assemble(config)
    tx = optimizer.optimizer(run.num_steps, run.batch_size, **config.optimizer)
    examples = stage.prepare(source)
    state = loop.train(stage, examples, tx, WORKDIR.value, run)
    measured, params = stage.export(state.ema_params, pipeline.in_order(examples, run.batch_size))
    path = pathlib.Path(WORKDIR.value) / 'model'
    store.save_model(path, settings | measured, params, **config.get('export', {}))
    print(f'model written to {path}')


def assemble(config):
    """The stage of a config, and the settings that its exported model will carry.

    pretrained: part -> a model of which it is, as it is; or dict(model=..., **fields of the network to change).
    initial: a model to train on from: its settings are the config's where that says nothing.
    """
    from ldm_jax.build import build, parts
    from ldm_jax.checkpoints import loading

    config = json.loads(config.to_json())
    models, settings, frozen, initial = {}, {}, {}, {}
    for part, source in config.get('pretrained', {}).items():
        source = {'model': source} if isinstance(source, str) else dict(source)
        loaded = loading.load(source.pop('model'), [part])
        models[part] = loaded.settings['models'][part] | source
        settings |= {key: loaded.settings[key] for key in SHARED if key in loaded.settings}
        frozen |= loaded.params
    trained = config.get('models', {})
    if 'initial' in config:
        loaded = loading.load(config['initial'], list(trained))
        initial = loaded.params
        trained = {part: loaded.settings['models'][part] | spec for part, spec in trained.items()}
        settings |= {key: value for key, value in loaded.settings.items() if key != 'models'}
    settings |= {key: config[key] for key in ('schedule', *SHARED) if key in config}
    settings['models'] = models | trained
    fields = parts(settings)
    if config['stage']['name'] == 'latent_diffusion':
        fields |= {'frozen': frozen, 'initial': initial}
        fields |= {key: settings[key] for key in ('latent_scale', 'latent_size') if key in settings}
    families = {'schedule': 'schedules', 'tokenizer': 'text', 'tokenizer_2': 'text'}
    fields |= {key: build(family, settings[key]) for key, family in families.items() if key in settings}
    stage = config['stage']
    if 'initial' in config:
        known = {key: settings[key] for key in ('parameterization', 'loss') if key in settings}
        stage['objective'] = known | stage.get('objective', {})
    return build('training', {**fields, **stage}), settings


def check_same_settings(workdir, config):
    """Writes the config into a new workdir; raises ValueError when an old one was started with another config."""
    path = workdir / 'config.json'
    new = json.loads(config.to_json())
    if not path.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(new, indent=2) + '\n')
        return
    old = json.loads(path.read_text())
    changed = {
        key: (old.get(key), new.get(key)) for key in old.keys() | new.keys() if old.get(key) != new.get(key)
    }
    if changed:
        raise ValueError(
            f'{workdir} was started with other settings (old, new): {changed}. Choose another --workdir, or give '
            'the old settings to resume.'
        )


if __name__ == '__main__':
    app.run(main)
