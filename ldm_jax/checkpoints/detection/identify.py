"""What a single checkpoint file is: the settings of its model, from keys, shapes and a few small tensors.

Shapes tell most (infer_shapes.py), the file's own tables and marks some (metadata.py), and the rest is known by
family (families.py). Whether Stable Diffusion 2 predicts eps or v none of them tells: that must be said, and is
an error until it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.checkpoints.detection import file_schedules, infer_shapes, towers
from ldm_jax.checkpoints.detection import metadata as file_metadata
from ldm_jax.checkpoints.detection import sidecar as yaml
from ldm_jax.checkpoints.detection.families import (
    BY_WIDTH,
    FAMILIES,
    MODEL,
    OTHERS,
    Facts,
    Family,
    Tower,
    below,
)
from ldm_jax.checkpoints.layouts import single_file
from ldm_jax.checkpoints.layouts.single_file import Place

Settings = dict[str, Any]

EXPECTED = (
    'Expected is a checkpoint of Stable Diffusion 1 or 2, SDXL or latent diffusion in one file, or its U-Net, '
    'autoencoder or text encoder alone.'
)
NO_SCALE = (
    "the latent scale of this model is the buffer 'scale_factor' of its checkpoint, which is missing here. Put a "
    'YAML beside the file whose model.params says scale_factor.'
)


def identify(
    specs: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None = None,
    scalars: Mapping[str, Any] | None = None,
    read: file_schedules.Read | None = None,
    sidecar: Mapping[str, Any] | None = None,
    prediction: str | None = None,
    model: Mapping[str, Any] | None = None,
    name: str = 'The file',
) -> Settings:
    """The settings of the model in a single file.

    Args:
        specs: key -> object with a shape, of every tensor.
        metadata: what a safetensors file says of itself.
        scalars: a pickle's values that are no tensors ('global_step').
        read: key -> array; without it the tables of the noise schedule and the latents' scale are not read.
        sidecar: the original code's YAML of the model, parsed.
        prediction: 'eps' or 'v': what the U-Net predicts. It goes before the YAML, that before the metadata,
            those before marks in the file, and those before the family.
        model: settings of a named config, taken instead of what would be recognized, for the parts that the
            file holds. Shapes are checked when the tensors are imported.
        name: of the file, for errors.

    Returns:
        Settings in the schema of configs, as plain JSON data, with what the file fills of it.

    Raises:
        ValueError: a file of something else, or one that leaves a question open; says which, and what to give.
    """
    if prediction not in (None, 'eps', 'v'):
        raise ValueError(f"prediction must be 'eps' or 'v'; got {prediction!r}.")
    for what, fits in OTHERS:
        if fits(specs):
            raise ValueError(f'{name} looks like {what}. {EXPECTED}')
    places = single_file.places(specs)
    if not places:
        raise ValueError(f'{name} has no key that is known; it begins with {sorted(specs)[:5]}. {EXPECTED}')
    try:
        said = prediction or file_metadata.prediction(specs, metadata or {}, sidecar)
        if model is not None:
            return _named(model, specs, places, read, sidecar, said, metadata or {})
        parts = {part: _whole(part, place, specs) for part, place in places.items()}
        if 'unet' not in parts:
            return _plain(_alone(parts, specs))
        if 'first_stage' in parts:
            parts['first_stage'] = parts['first_stage'] | file_metadata.latents(specs, read)
        facts = Facts(specs, places, parts)
        family = next(family for family in FAMILIES if family.known_by(facts))
        settings = dict(models=_models(facts, family)) | _texts(parts, family)
        settings['schedule'] = file_schedules.schedule(specs, read, sidecar, family.betas, metadata)
        settings['parameterization'] = _parameterization(
            said or family.parameterization or file_metadata.prediction_by_step(scalars or {}),
            settings['schedule'],
        )
        settings['scaling_factor'] = file_metadata.scaling_factor(specs, read, sidecar, family.scaling_factor)
        settings |= _sizes(parts, family, settings['parameterization'], sidecar)
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error
    return _plain(_answered(settings, family, name))


def _whole(part: str, place: Place, specs: Mapping[str, Any]) -> dict[str, Any]:
    """`_fields`, with an error for a part that lacks tensors."""
    try:
        return _fields(part, place, specs)
    except KeyError as error:
        key = place.prefix + error.args[0]
        raise ValueError(f'Its {part} lacks the tensor {key}; is the file whole?') from error


def _fields(part: str, place: Place, specs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a part that its shapes tell."""
    shapes = below(specs, place.prefix)
    if part == 'first_stage':
        if place.names.startswith('taesd'):
            return infer_shapes.tiny_autoencoder(shapes, place.names)
        return infer_shapes.autoencoder(shapes, place.names)
    if part.startswith('text_encoder'):
        return (
            infer_shapes.bert(shapes)
            if place.names == 'bert'
            else infer_shapes.clip_text(shapes, place.names)
        )
    if part == 'image_encoder':
        return infer_shapes.clip_vision(shapes, place.names)
    return {
        'unet': infer_shapes.unet,
        'class_embedder': infer_shapes.class_embedder,
        'rescaler': infer_shapes.spatial_rescaler,
        'image_normalizer': infer_shapes.image_normalizer,
    }[part](shapes)


def _models(facts: Facts, family: Family) -> dict[str, dict[str, Any]]:
    models = dict(facts.parts)
    unet = dict(facts.unet, name='unet', **family.heads)
    if family.cross_attention_only:
        levels = len(unet['channel_mult'])
        unet['cross_attention_only'] = [level < levels - 1 for level in range(levels)]
    models['unet'] = unet
    for part, tower in (('text_encoder', family.text), ('text_encoder_2', family.text_2)):
        if part in models and models[part]['name'] == 'clip_text':
            if tower is None:
                raise ValueError(f'{family.name} has no CLIP tower as {part}, and the file does. {MODEL}')
            models[part] = towers.text(models[part], tower)
    if 'image_encoder' in models:
        models['image_encoder'] = towers.image(models['image_encoder'])
    if 'rescaler' in models:
        # The map is of the image's size and becomes of the latents', so each level of the first stage is a halving.
        levels = facts.parts.get('first_stage', {}).get('channel_mult', (1, 2, 4))
        models['rescaler'] = dict(models['rescaler'], num_stages=len(levels) - 1)
    return {part: _short(spec) for part, spec in models.items()}


def _texts(parts: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Tokenizers, and how many tokens the U-Net attends to where they are not 77."""
    found = {}
    pairs = (('text_encoder', 'tokenizer', family.text), ('text_encoder_2', 'tokenizer_2', family.text_2))
    for part, tokenizer, tower in pairs:
        if part in parts and (spec := _tokenizer(parts[part], tower)) is not None:
            found[tokenizer] = spec
    length = family.context_length or parts.get('text_encoder', {}).get('context_length', 77)
    return found if length == 77 else found | dict(context_length=length)


def _tokenizer(fields: Mapping[str, Any], tower: Tower | None) -> dict[str, Any] | None:
    if fields['name'] == 'bert':  # another vocabulary is that of layouts, or of one's own
        words = fields['vocab_size'] == 30522
        return dict(name='bert', context_length=fields['context_length']) if words else None
    return dict(name='clip', context_length=fields['context_length'], pad_id=tower.pad_id)


def _sizes(
    parts: Mapping[str, Any], family: Family, parameterization: str | None, sidecar: Mapping[str, Any] | None
) -> dict[str, int]:
    """Sides of image and latents that the model was trained for."""
    downscale = family.downscale
    if 'first_stage' in parts:
        stage = parts['first_stage']
        downscale = 2 ** (len(stage.get('channel_mult') or stage['num_blocks']) - 1)
    image_size = family.v_image_size if parameterization == 'v' and family.v_image_size else family.image_size
    # Keys do not tell landscapes of 256 pixels from those of 512; the YAML does. Those of SD 2 are not kept up.
    latent_size = yaml.params(sidecar).get('image_size') if family.sidecar_size else None
    if latent_size:
        return dict(latent_size=latent_size, image_size=latent_size * downscale)
    return dict(latent_size=image_size // downscale, image_size=image_size)


def _answered(settings: Settings, family: Family, name: str) -> Settings:
    """The settings, once no question is open."""
    if settings['parameterization'] is None:
        raise ValueError(
            f'{name} is of the family {family.name}, which was published both with eps and with v-prediction, and '
            "the file does not say. Give prediction='eps' (--prediction eps: the 512 x 512 base models) or "
            "prediction='v' (768 x 768), or put the YAML of the original code beside the file."
        )
    if settings['scaling_factor'] is None:
        raise ValueError(f'{name}: {NO_SCALE}')
    return settings


def _alone(parts: Mapping[str, Any], specs: Mapping[str, Any]) -> Settings:
    """The settings of parts without a U-Net."""
    models, settings = dict(parts), {}
    text = models.get('text_encoder')
    if text is not None and text['name'] == 'clip_text':
        tower = BY_WIDTH.get(text['width'])
        if tower is None:
            raise ValueError(
                f'A CLIP text tower {text["width"]} wide is none of the published {sorted(BY_WIDTH)}. {MODEL}'
            )
        models['text_encoder'] = towers.text(text, tower)
        settings['tokenizer'] = _tokenizer(text, tower)
    elif text is not None and (tokenizer := _tokenizer(text, None)) is not None:
        settings['tokenizer'] = tokenizer
    if 'image_encoder' in models:
        models['image_encoder'] = towers.image(models['image_encoder'])
    # The first stages of latent diffusion, which still have their losses, were all trained on 256 x 256.
    if 'first_stage' in models and any(key.startswith('loss.') for key in specs):
        settings['image_size'] = 256
    return dict(models={part: _short(spec) for part, spec in models.items()}, **settings)


def _named(
    model: Mapping[str, Any],
    specs: Mapping[str, Any],
    places: Mapping[str, Place],
    read: file_schedules.Read | None,
    sidecar: Mapping[str, Any] | None,
    said: str | None,
    metadata: Mapping[str, str],
) -> Settings:
    """The settings of a config, for the parts that the file holds."""
    unknown = sorted(places.keys() - model['models'].keys())
    if unknown:
        raise ValueError(
            f'The file holds {sorted(places)}; the named config has {sorted(model["models"])}, not {unknown}.'
        )
    settings = {key: value for key, value in model.items() if key != 'loss'}
    settings['models'] = {part: dict(spec) for part, spec in model['models'].items() if part in places}
    if 'first_stage' in places and (latents := file_metadata.latents(specs, read)):
        settings['models']['first_stage'] |= latents
    if 'unet' in places:
        if model.get('schedule') is not None:
            settings['schedule'] = file_schedules.flagged(model['schedule'], specs, read, metadata)
        settings['parameterization'] = _parameterization(
            said or model.get('parameterization'), settings.get('schedule', {})
        )
        settings['scaling_factor'] = file_metadata.scaling_factor(
            specs, read, sidecar, model.get('scaling_factor')
        )
        if settings['scaling_factor'] is None:
            raise ValueError(NO_SCALE)
    return _plain(settings)


def _parameterization(said: Any, schedule: Mapping[str, Any]) -> Any:
    """The parameterization in the form that goes with a schedule: files say 'v' for EDM's form of it too."""
    if schedule.get('name') != 'edm' or said not in ('eps', 'v'):
        return said
    if said == 'eps':
        raise ValueError("With EDM's noise a file predicts v; leave the prediction 'eps' out.")
    return 'edm_v'


def _short(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec without the fields that have their default, once it can be built."""
    try:
        built = build.build('models', spec)
    except ValueError as error:
        raise ValueError(f'{error} {MODEL}') from error
    defaults = {field.name: field.default for field in dataclasses.fields(built)}
    return {
        key: value for key, value in spec.items() if key == 'name' or getattr(built, key) != defaults[key]
    }


def _plain(value: Any) -> Any:
    """JSON data: mappings become dicts, sequences lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
