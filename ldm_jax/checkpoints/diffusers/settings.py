"""A diffusers folder's JSON files as settings, and settings as a folder that diffusers loads.

    model_index.json                      the pipeline's class and its components
    unet/, vae/, text_encoder/, ...       config.json of each network
    scheduler/scheduler_config.json       schedule and parameterization
    tokenizer/                            padding; the vocabulary

A folder of one model has its config.json at the top, and its tokenizer or scheduler_config.json beside it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ldm_jax import atomic, build
from ldm_jax.checkpoints import default_tokenizers
from ldm_jax.checkpoints.diffusers import (
    conditional_unet,
    encoders,
    first_stages,
    pipelines,
    plain_unet,
    schedulers,
    tokenizers,
    writing,
)
from ldm_jax.checkpoints.diffusers.fields import Fields, Spec, load_json
from ldm_jax.models import bert

READERS = {
    'UNet2DConditionModel': ('unet', conditional_unet.read),
    'UNet2DModel': ('unet', plain_unet.read),
    'AutoencoderKL': ('first_stage', first_stages.read_kl),
    'VQModel': ('first_stage', first_stages.read_vq),
    'AutoencoderTiny': ('first_stage', first_stages.read_tiny),
    'CLIPTextModel': ('text_encoder', encoders.read_text),
    'CLIPTextModelWithProjection': ('text_encoder', encoders.read_text),
    'LDMBertModel': ('text_encoder', encoders.read_bert),
    'CLIPVisionModel': ('image_encoder', encoders.read_vision),
    'CLIPVisionModelWithProjection': ('image_encoder', encoders.read_vision),
    'StableUnCLIPImageNormalizer': (pipelines.NORMALIZER, encoders.read_normalizer),
}


def read_settings(folder: str | os.PathLike[str], prediction: str | None = None) -> dict[str, Any]:
    """The settings of a diffusers folder: of a pipeline, or of one model.

    Args:
        folder: with a model_index.json, or with the config.json of one model, or with the usual subfolders.
        prediction: 'eps' or 'v', what the network predicts; it goes before what the scheduler says. Needed where
            there is no scheduler and the network is like Stable Diffusion 2's, of which there are both.

    Returns:
        plain JSON data by the schema of configs/__init__.py; what the folder does not tell is left out, such as
        the tokenizer of a BERT whose vocabulary is not bert-base-uncased's.

    Raises:
        FileNotFoundError: neither model_index.json nor a config.json is there.
        ValueError: a component or a setting that ldm_jax does not have; the message names file, key and value.
    """
    if prediction not in (None, 'eps', 'v'):
        raise ValueError(f"prediction must be 'eps', 'v' or None; got {prediction!r}.")
    folder = pathlib.Path(folder)
    pipeline, configs = _configs(folder)
    xl = 'StableDiffusionXL' in pipeline or any(
        config.get('addition_embed_type') == 'text_time' for _, config in configs.values()
    )
    refiner = 'text_encoder_2' in configs and 'text_encoder' not in configs
    models: dict[str, Spec] = {}
    places: dict[str, str] = {}
    for name, (class_name, config) in configs.items():
        part, spec = network(config, class_name, str(folder / name / 'config.json'), xl)
        part = pipelines.PARTS.get(name, part)
        if refiner and part == 'text_encoder_2':
            part = 'text_encoder'
        models[part], places[part] = spec, name
    settings: dict[str, Any] = dict(models=models)
    settings |= _tokenizers(folder, models, places)
    settings |= _schedule(folder, models, prediction)
    settings |= _sizes(folder, models, places, configs, pipeline)
    return settings


def write_settings(settings: Mapping[str, Any], folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Writes all files of a diffusers folder but the weights, so that diffusers loads it as it is.

    Args:
        settings: of a model that diffusers has; one part alone makes a folder of one model.
        folder: an existing one. Each file appears whole; those there are replaced.

    Returns:
        what the folder lacks and cannot be had from settings: 'tokenizer/vocab.txt' of BERT, and the
        'depth_estimator' of the depth model, which `from_pretrained` takes as an argument (or None, when the
        pipeline is called with depth maps).

    Raises:
        ValueError: diffusers cannot express a setting; the message names it, and nothing is written.
        FileNotFoundError: there is no such folder.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'No folder {str(folder)!r}; make it first.')
    settings = default_tokenizers.completed(settings)
    kind = pipelines.kind_of(settings)
    files = writing.files(settings, kind)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text)
    lacking = [] if kind.pipeline != pipelines.DEPTH else ['depth_estimator']
    for ours, place in kind.tokenizers.items():
        name = os.path.join(place, 'vocab.txt')
        if settings.get(ours, {}).get('name') == 'bert' and name not in files:
            lacking.append(name)
    return tuple(lacking)


def network(
    config: Mapping[str, Any], class_name: str | None = None, where: str = 'config.json', xl: bool = False
) -> tuple[str, Spec]:
    """Part and spec of one network.

    Args:
        config: its config.json.
        class_name: its class; by default the one that the config names.
        where: what errors call the file.
        xl: SDXL reads this text encoder.

    Raises ValueError for a class or a setting that ldm_jax does not have, naming it.
    """
    class_name = class_name or _class_of(config, where)
    if class_name not in READERS:
        raise build.unknown(
            f'network class (_class_name, architectures) of {where}', str(class_name), sorted(READERS)
        )
    part, read = READERS[class_name]
    if read is encoders.read_text:
        return part, read(config, where, projected=class_name == encoders.PROJECTED_TEXT, xl=xl)
    if read is encoders.read_vision:
        return part, read(config, where, projected=class_name == encoders.PROJECTED_VISION)
    return part, read(config, where)


def _configs(folder: pathlib.Path) -> tuple[str, dict[str, tuple[str, dict[str, Any]]]]:
    """The pipeline's class ('' without), and subfolder -> (class, config.json) of its networks."""
    index = folder / 'model_index.json'
    if index.is_file():
        pipeline, classes = _components(load_json(index), str(index))
    elif (folder / 'config.json').is_file():
        pipeline, classes = '', {'': None}
    else:
        pipeline = ''
        classes = {name: None for name in pipelines.PARTS if (folder / name / 'config.json').is_file()}
    if not classes:
        raise FileNotFoundError(
            f'No diffusers folder {str(folder)!r}: it has neither model_index.json nor config.json.'
        )
    found = {}
    for name, class_name in classes.items():
        config = load_json(folder / name / 'config.json')
        # The class that wrote the weights, which is not always the one that the pipeline asks for.
        found[name] = _class_of(config, str(folder / name / 'config.json'), class_name), config
    return pipeline, found


def _components(found: Mapping[str, Any], where: str) -> tuple[str, dict[str, str]]:
    """The pipeline's class ('' without) and component -> class, of a model_index.json."""
    pipeline = found.get('_class_name', '')
    if not isinstance(pipeline, str):
        raise ValueError(f'{where}: _class_name is {pipeline!r}; it must be a text.')
    classes = {}
    for name, value in found.items():
        known = name in pipelines.PARTS or name in pipelines.LEFT
        if (
            name.startswith('_')
            or (not known and not isinstance(value, list))
            or value in (None, [None, None])
        ):
            continue  # a note, a setting, or a component that is not there
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(word, str) for word in value):
            raise ValueError(
                f'{where}: {name} is {str(value)[:80]!r}; it must be [library, class] or [null, null].'
            )
        if name in pipelines.PARTS:
            classes[name] = value[1]
        elif not known:
            raise ValueError(
                f'{where}: the pipeline {pipeline} has {name!r} ({value[1]}), which is not supported; have '
                f'{sorted(pipelines.PARTS)}.'
            )
    return pipeline, classes


def _class_of(config: Mapping[str, Any], where: str, default: str | None = None) -> str | None:
    """The class that a config.json names, in diffusers' way or transformers'."""
    name = config.get('_class_name')
    if name is None:
        names = config.get('architectures')
        if names is None:
            return default
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise ValueError(f'{where}: architectures is {str(names)[:80]!r}; it must be a list of names.')
        name = names[0]
    if not isinstance(name, str):
        raise ValueError(f'{where}: _class_name is {str(name)[:80]!r}; it must be a text.')
    return name


def _tokenizers(
    folder: pathlib.Path, models: Mapping[str, Spec], places: Mapping[str, str]
) -> dict[str, Spec]:
    found = {}
    for ours, part in default_tokenizers.TOKENIZED.items():
        if part not in models:
            continue
        place = folder / pipelines.tokenizer_folder(places[part])
        model = build.build('models', models[part])
        if not any((place / name).is_file() for name in ('tokenizer_config.json', 'vocab.json', 'vocab.txt')):
            spec = default_tokenizers.of_encoder(model)
        elif isinstance(model, bert.Model):
            spec = tokenizers.read_bert(place, model.context_length)
        else:
            spec = tokenizers.read_clip(place, model.context_length)
        if spec is not None:
            found[ours] = spec
    return found


def _schedule(folder: pathlib.Path, models: Mapping[str, Spec], prediction: str | None) -> dict[str, Any]:
    if 'unet' not in models:
        return {}
    for path in (folder / 'scheduler' / 'scheduler_config.json', folder / 'scheduler_config.json'):
        if path.is_file():
            schedule, said = schedulers.read(load_json(path), str(path))
            return dict(schedule=schedule, parameterization=prediction or said) | _few_steps(
                path, build.build('models', models['unet'])
            )
    if prediction is None and build.build('models', models['unet']).context_width == 1024:
        raise ValueError(
            f'{folder} has no scheduler, and networks like this one (Stable Diffusion 2: context_width 1024) '
            "predict eps or v. Give prediction='eps' or 'v'."
        )
    return dict(parameterization=prediction or 'eps')


def _few_steps(path: pathlib.Path, network: Any) -> dict[str, Any]:
    """How a distilled model is sampled, which its scheduler tells."""
    sampling = schedulers.few_steps(load_json(path))
    if not sampling:
        return {}
    learned = getattr(network, 'guidance_width', None) is not None
    return dict(sampling=sampling) | ({} if learned else dict(guidance_scale=1.0))


def _sizes(
    folder: pathlib.Path,
    models: Mapping[str, Spec],
    places: Mapping[str, str],
    files: Mapping[str, tuple[str, Mapping[str, Any]]],
    pipeline: str,
) -> dict[str, Any]:
    """scaling_factor, latent_size, image_size and context_length, as far as the folder tells."""
    found: dict[str, Any] = {}
    configs = {part: files[name] for part, name in places.items()}
    if 'first_stage' in models:
        class_name, config = configs['first_stage']
        if 'unet' in models or 'scaling_factor' in config:
            default = (
                pipelines.UPSCALE_FACTOR if pipeline == pipelines.UPSCALE else first_stages.SCALES[class_name]
            )
            found['scaling_factor'] = _scale(
                config, default, str(folder / places['first_stage'] / 'config.json')
            )
        if pipeline == pipelines.SUPER_RESOLUTION:
            found['scaling_factor'] = 1.0  # the pipeline reads no factor
        if 'unet' not in models and _is_size(config.get('sample_size')):
            found['image_size'] = config['sample_size']
    if 'unet' in models:
        size = configs['unet'][1].get('sample_size')
        if _is_size(size):
            found['latent_size'] = size
            if 'first_stage' in models:
                found['image_size'] = size * build.build('models', models['first_stage']).downscale
    if 'unet' in models and 'text_encoder' in models:
        length = build.build('models', models['text_encoder']).context_length
        if length != 77:
            found['context_length'] = length
    return found


def _scale(config: Mapping[str, Any], default: float, where: str) -> float:
    """The scaling_factor of a first stage's config.json."""
    fields = Fields(config, where, dict(scaling_factor=default))
    value = fields('scaling_factor')
    if value <= 0:
        raise fields.error('scaling_factor', value, 'it must be above 0')
    return value


def _is_size(value: Any) -> bool:
    """Whether a sample_size, which changes no network, is one; some files have two sides, or none."""
    return type(value) is int and value > 0
