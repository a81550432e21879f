"""From a config, as plain data, to the job that the loop runs, and from its result to a model.

The schema is in configs/__init__.py.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ldm_jax import denoising
from ldm_jax.adapters import write
from ldm_jax.build import build, components, parts
from ldm_jax.conditioning import infer
from ldm_jax.conditioning.networks import PARTS
from ldm_jax.data import pipeline
from ldm_jax.training import ema, job, optimizer
from ldm_jax.training.loop import Run
from ldm_jax.training.parallel import distributed
from ldm_jax.types import PyTree

SHARED = ('tokenizer', 'tokenizer_2', 'scaling_factor')  # settings that a trained part brings with it
Load = Callable[[str, Sequence[str]], Any]  # (model, parts) -> its settings, and the params of the parts


def data(config: Mapping[str, Any], load: Load) -> dict[str, Any]:
    """The spec of a config's data. Where it leaves image_size at None beside a warm_start, it is that model's size."""
    spec = dict(config['data'])
    if 'image_size' in spec and spec['image_size'] is None and config.get('warm_start'):
        spec['image_size'] = _image_size(load(config['warm_start'], []).settings)
    return spec


def _image_size(settings: Mapping[str, Any]) -> int | None:
    """The side of a model's images in pixels; None for one that says nothing of it."""
    if settings.get('image_size') or not settings.get('latent_size'):
        return settings.get('image_size')
    first_stage = parts({'models': settings['models']}).get('first_stage')
    return settings['latent_size'] * (first_stage.downscale if first_stage is not None else 1)


def stage(config: Mapping[str, Any], load: Load, source: Any = None) -> tuple[Any, dict[str, Any]]:
    """The stage of a config, and the settings that its exported model will carry.

    load: which checkpoints.loading.load is.
    source: the data, where they were encoded (data/latents.py): what their scale is and what the empty text became.

    pretrained: part -> a model of which it is, as it is; or dict(model=..., **fields of the network to change).
    warm_start: a model to train on from: its settings are the config's where that says nothing, and in latent
        diffusion its parts that the config names nowhere come along as they are.

    Raises ValueError or FileNotFoundError for an unknown model, part or field.
    """
    first_stage = config['stage']['name'] == 'first_stage'
    diffusion = config['stage']['name'] == 'latent_diffusion'
    models, settings, frozen, warm_start = {}, {}, {}, {}
    for part, taken in config.get('pretrained', {}).items():
        fields = {'model': taken} if isinstance(taken, str) else dict(taken)
        loaded = load(fields.pop('model'), [part])
        models[part] = loaded.settings['models'][part] | fields
        settings |= {key: loaded.settings[key] for key in SHARED if key in loaded.settings}
        frozen |= loaded.params
    trained = config.get('models', {})
    if config.get('warm_start'):
        loaded = load(config['warm_start'], ['first_stage'] if first_stage else list(trained))
        warm_start = loaded.params
        trained = {part: loaded.settings['models'].get(part, {}) | spec for part, spec in trained.items()}
        kept = SHARED if first_stage else loaded.settings.keys() - {'models'}
        settings |= {key: loaded.settings[key] for key in kept if key in loaded.settings}
        if diffusion:
            known = loaded.settings['models']
            rest = {
                part: known[part] for part in PARTS if part in known and part not in {**trained, **models}
            }
            frozen |= load(config['warm_start'], list(rest)).params
            models |= rest
    if hasattr(source, 'manifest') and source.manifest['settings'].get('scaling_factor') is not None:
        settings['scaling_factor'] = source.manifest['settings']['scaling_factor']
    settings |= {key: config[key] for key in ('schedule', *SHARED) if config.get(key) is not None}
    for name in ('scaling_factor', 'latent_size'):
        value = (settings | config['stage']).get(name, 1)
        if not 0 < value < math.inf:
            raise ValueError(f'{name} must be above 0; got {value}.')
    settings['models'] = models | trained
    fields = parts(settings) | components(settings)
    spec = dict(config['stage'])
    if first_stage:
        fields = {part: fields[part] for part in settings['models']} | {'pretrained': frozen | warm_start}
    if config['stage']['name'] == 'contrastive':
        fields |= {'warm_start': warm_start}
    if diffusion:
        fields |= {'frozen': frozen, 'warm_start': warm_start, 'null': getattr(source, 'null', {})}
        fields |= {key: settings[key] for key in ('scaling_factor', 'latent_size') if key in settings}
        if config.get('warm_start'):
            known = {key: settings[key] for key in ('parameterization', 'loss') if key in settings}
            spec['objective'] = known | spec.get('objective', {})
            networks = {part: fields[part] for part in settings['models']}
            known_kinds = settings.get('conditioning')
            if known_kinds is None:  # not trained here
                known_kinds = infer.from_networks(networks, 'tokenizer' in settings)
            spec.setdefault('conditioning', known_kinds)
        denoising.check(fields['unet'], {**fields, **spec}['latent_size'])
    return build('training.stages', {**fields, **spec}), settings


def work(config: Mapping[str, Any], stage: Any, run: Run) -> job.Job:
    """The job of training a stage as the config says. Raises ValueError for settings that do not exist."""
    adversary = stage.disc_start if stage.discriminator is not None else None
    tx, discriminator_tx = optimizers(config, run, adversary)
    return job.of_stage(stage, tx, averages(run), run.accumulate, discriminator_tx)


def optimizers(
    config: Mapping[str, Any], run: Run, adversary: int | None = None
) -> tuple[optimizer.Optimizer, optimizer.Optimizer | None]:
    """A config's optimizer and its discriminator's, which is None without an adversary.

    A discriminator's is that of the config with the fields of discriminator_optimizer, and its learning rate begins
    when the adversary does, at the step `adversary`.

    Raises ValueError for settings that do not exist.
    """
    fields = dict(config['optimizer'])
    tx = optimizer.optimizer(run.num_steps, run.batch_size, **fields)
    if adversary is None:
        return tx, None
    fields |= config.get('discriminator_optimizer', {})
    return tx, optimizer.optimizer(max(1, run.num_steps - adversary), run.batch_size, **fields)


def averages(run: Run) -> dict[str, ema.Decay]:
    """The decays of a run's moving averages, by name. Raises ValueError for settings that do not exist."""
    return {name: ema.named(spec) for name, spec in run.ema.items()}


def adapter(
    config: Mapping[str, Any], stage: Any, params: PyTree, workdir: pathlib.Path
) -> pathlib.Path | None:
    """Writes the adapter that a stage trained into a workdir, as kohya and diffusers do: the former's path.

    None where it trained none.
    """
    found = stage.adapter_of(params, workdir.name) if hasattr(stage, 'adapter_of') else None
    if found is None:
        return None
    dtype = config.get('export', {}).get('dtype', 'float32')
    context = denoising.conditioned_on(stage.unet).context
    path = workdir / f'{workdir.name}.safetensors'
    form = dict(context=context, parameterization=stage.objective['parameterization'], dtype=dtype)
    write.write(path, found, 'kohya', **form)
    folder = workdir / 'diffusers'
    folder.mkdir(exist_ok=True)
    write.write(folder / 'pytorch_lora_weights.safetensors', found, 'diffusers', **form)
    return path


def export(
    config: Mapping[str, Any],
    stage: Any,
    settings: Mapping[str, Any],
    params: PyTree,
    examples: pipeline.Examples,
    save: Callable[[dict[str, Any], dict[str, PyTree], str], None],
) -> None:
    """Saves a stage's parameters, trained and frozen, as a model, with the settings measured on its examples.

    settings: those of `stage`.
    save: (settings, params, dtype) to disk, which checkpoints.store.save_model does at a path.
    """
    batches = pipeline.in_order(examples, config['run']['batch_size'], every_caption=True)
    measured, params = stage.export(params, batches)
    # Not those of the loss.
    models = {part: spec for part, spec in settings['models'].items() if part in params}
    dtype = config.get('export', {}).get('dtype', 'float32')
    settings = settings | {'models': models} | measured
    distributed.apart(save, settings, jax.device_get(params), dtype)
