"""The texts of a diffusers folder's files, from settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.checkpoints.diffusers import (
    conditional_unet,
    encoders,
    first_stages,
    pipelines,
    plain_unet,
    schedulers,
    tokenizers,
)
from ldm_jax.checkpoints.diffusers.fields import unsupported
from ldm_jax.models import bert, clip_text, vq


def files(settings: Mapping[str, Any], kind: pipelines.Kind) -> dict[str, str]:
    """Name -> text of every file but the weights.

    Raises ValueError for a setting that diffusers cannot express, naming it.
    """
    models = build.parts(settings)
    configs = {kind.subfolders[part]: _network(part, settings, kind, models) for part in settings['models']}
    found = {}
    if kind.pipeline is None:
        has_schedule = 'unet' in models and settings.get('schedule') is not None
        schedule = schedulers.write(settings, kind) if has_schedule else {}
        if 'scheduler' in schedule:
            found['scheduler_config.json'] = tokenizers.text(schedule['scheduler'])
        found['config.json'] = tokenizers.text(configs[''])
    else:
        for key in ('scaling_factor', 'latent_size'):
            if settings.get(key) is None:
                raise ValueError(f'Settings without {key!r} cannot be written: the pipeline needs its value.')
        length = getattr(models.get('text_encoder'), 'context_length', None)
        if settings.get('context_length', length) != length:
            raise unsupported(
                'context_length',
                settings['context_length'],
                f'pipelines attend to all {length} tokens of a text',
            )
        schedule = schedulers.write(settings, kind)
        for ours in kind.tokenizers:
            if ours not in settings:
                raise ValueError(f'Settings without {ours!r} cannot be written: {kind.pipeline} needs one.')
        found['model_index.json'] = tokenizers.text(pipelines.index(settings, kind, configs | schedule))
        found |= {f'{place}/config.json': tokenizers.text(config) for place, config in configs.items()}
        found |= {
            f'{place}/scheduler_config.json': tokenizers.text(config) for place, config in schedule.items()
        }
        if 'image_encoder' in models:
            found['feature_extractor/preprocessor_config.json'] = tokenizers.text(
                encoders.preprocessor(models['image_encoder'])
            )
    for ours, place in kind.tokenizers.items():
        if ours in settings:
            written = tokenizers.write(settings[ours])
            found |= {os.path.join(place, name): content for name, content in written.items()}
    return found


def _network(
    part: str, settings: Mapping[str, Any], kind: pipelines.Kind, models: Mapping[str, Any]
) -> dict[str, Any]:
    """The config.json of a part."""
    model = models[part]
    if part == pipelines.NORMALIZER:
        return encoders.write_normalizer(model)
    if part == 'unet' and model.context_width is None:
        return plain_unet.write(model, settings.get('latent_size'))
    if part == 'unet':
        sizes = 256
        if kind.xl:
            sizes = pipelines.sizes_width(model, models.get('text_encoder_2', models['text_encoder']), kind)
        unclip = kind.pipeline == pipelines.UNCLIP
        return conditional_unet.write(
            model, settings.get('latent_size'), class_projection=unclip, sizes=sizes
        )
    if part == 'first_stage':
        scale = settings.get('scaling_factor')
        if kind.pipeline == pipelines.SUPER_RESOLUTION and scale != 1.0:
            raise unsupported('scaling_factor', scale, f'{kind.pipeline} has none, which is 1.0')
        if kind.pipeline == pipelines.UPSCALE and scale != pipelines.UPSCALE_FACTOR:
            raise unsupported(
                'scaling_factor', scale, f'{kind.pipeline} always takes {pipelines.UPSCALE_FACTOR}'
            )
        if kind.pipeline is None and isinstance(model, vq.Model) and scale is None:
            scale = 1.0  # the class's own default is another
        return first_stages.write(model, scale, settings.get('image_size'))
    if isinstance(model, bert.Model):
        return encoders.write_bert(model)
    if isinstance(model, clip_text.Model):
        ours = 'tokenizer_2' if part == 'text_encoder_2' else 'tokenizer'
        return encoders.write_text(model, kind.xl, settings.get(ours, {}).get('pad_id', 1))
    return encoders.write_vision(model)
