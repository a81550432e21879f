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
    tx = optimizer.adamw(num_steps=run.num_steps, **config.optimizer)
    discriminator_tx = None
    if getattr(stage, 'discriminator', None) is not None:
        steps = max(1, run.num_steps - stage.disc_start)  # its optimizer begins when it does
        fields = {**config.optimizer, **config.get('discriminator_optimizer', {})}
        fields['warmup_steps'] = min(fields.get('warmup_steps', 0), steps - 1)
        discriminator_tx = optimizer.adamw(num_steps=steps, **fields)
    examples = stage.prepare(source)
    state = loop.train(stage, examples, tx, WORKDIR.value, run, discriminator_tx)
    measured, params = stage.export(state.ema_params, pipeline.in_order(examples, run.batch_size))
    settings['models'] = {part: settings['models'][part] for part in params}  # not those of the losses
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
    if config.stage.name == 'first_stage':
        initial = store.load_model(config.initial, ['first_stage'])[1] if 'initial' in config else {}
        fields['pretrained'] = frozen | initial
    elif 'initial' in config:
        fields['initial'] = store.load_model(config.initial, ['unet'])[1]['unet']
    if frozen and config.stage.name != 'first_stage':
        fields |= {'frozen': frozen, 'latent_scale': settings['latent_scale']}
    return build('training', {**config.stage, **fields}), settings


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
