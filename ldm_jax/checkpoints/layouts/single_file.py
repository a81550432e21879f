"""Single files of the original code: every part of a model below a prefix of its own.

    unet              model.diffusion_model.
    first_stage       first_stage_model.    (vae. in some)
    text_encoder      cond_stage_model.transformer.  (SD 1, latent diffusion)   cond_stage_model.model.  (SD 2)
                      conditioner.embedders.0.       (SDXL and its refiner)
    text_encoder_2    conditioner.embedders.1.model.
    class_embedder, rescaler    cond_stage_model.
    image_encoder     embedder.model.       image_normalizer  noise_augmentor.  (unCLIP)

A file of one part has its keys bare. Beside them are buffers, losses and moving averages of the training,
which are left out with a reason. An average is called 'model_ema.' and the parameter's name without its dots.

Exports have the names that the original code, diffusers' from_single_file and the common user
interfaces read, and parameters only. The 24th layer of SD 2's text tower is never computed, so there is none to
export: the original code, which reads the last layer but one, takes a file without it (strict=False), and
diffusers leaves that layer out itself. MiDaS and the text tower beside unCLIP's image tower are not exported
either, by which some programs tell these models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn

from ldm_jax import build
from ldm_jax.checkpoints.layouts import (
    autoencoder,
    bert,
    class_embedder,
    compvis_unet,
    image_normalizer,
    open_clip,
    spatial_rescaler,
    taesd,
    transformers_clip,
)
from ldm_jax.checkpoints.layouts.rules import Layout, prefixed
from ldm_jax.models import bert as bert_model
from ldm_jax.models import taesd as taesd_model


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a file holds a part: below a prefix, in one kind of names."""

    prefix: str
    names: str


# part -> names -> a key that only files with these names have, below the prefix
MARKS = {
    'unet': {'compvis': 'input_blocks.0.0.weight'},
    'first_stage': {
        'compvis': 'encoder.mid.block_1.norm1.weight',
        'diffusers_old': 'encoder.mid_block.attentions.0.query.weight',
        'diffusers': 'encoder.mid_block.resnets.0.norm1.weight',
        'taesd': 'encoder.0.weight',
        'taesd_diffusers': 'encoder.layers.0.weight',
    },
    'text_encoder': {
        'transformers': 'text_model.embeddings.token_embedding.weight',
        'transformers_flat': 'embeddings.token_embedding.weight',
        'open_clip': 'token_embedding.weight',
        'bert': 'token_emb.weight',
    },
    'image_encoder': {
        'transformers': 'vision_model.embeddings.class_embedding',
        'transformers_flat': 'embeddings.class_embedding',
        'open_clip': 'visual.class_embedding',
    },
    'class_embedder': {'compvis': 'embedding.weight'},
    'rescaler': {'compvis': 'channel_mapper.weight'},
    'image_normalizer': {'compvis': 'data_mean'},
}
MARKS['text_encoder_2'] = MARKS['text_encoder']

# part -> where it may be, the likeliest first; '' is a file of its own
PREFIXES = {
    'unet': ('model.diffusion_model.', ''),
    'first_stage': ('first_stage_model.', 'vae.', ''),
    'text_encoder': (
        'cond_stage_model.transformer.',
        'cond_stage_model.model.',
        'conditioner.embedders.0.transformer.',
        'conditioner.embedders.0.model.',
        'transformer.',
        '',
    ),
    'text_encoder_2': ('conditioner.embedders.1.model.', 'conditioner.embedders.1.transformer.'),
    'image_encoder': ('embedder.model.', ''),
    'class_embedder': ('cond_stage_model.',),
    'rescaler': ('cond_stage_model.',),
    'image_normalizer': ('noise_augmentor.',),
}

SCHEDULE = 'a table of the noise schedule, which the settings say'
FLAG = 'a mark of how the model was trained, which the settings say'
IGNORE = {
    **dict.fromkeys(
        ('betas', 'alphas_cumprod', 'alphas_cumprod_prev', 'sqrt_*', 'log_one_minus_*', 'posterior_*'),
        SCHEDULE,
    ),
    'denoiser.*': SCHEDULE,
    'lvlb_weights': 'weights of a loss that is not used',
    'logvar': "the loss's variances",
    'scale_factor': 'in the settings as scaling_factor',
    **dict.fromkeys(('v_pred', 'ztsnr', 'edm_vpred.*', 'edm_mean', 'edm_std'), FLAG),
    'model_ema.*': 'moving averages: decay and count, and weights that were not asked for',
    'first_stage_model.model_ema.*': "moving averages of the first stage's own training",
    'first_stage_model.loss.*': autoencoder.IGNORE['loss.*'],
    'vae.loss.*': autoencoder.IGNORE['loss.*'],
    'embedding_manager.*': 'new words of a textual inversion (embedding_manager), which go into prompts',
    'safety_checker.*': 'a classifier of what to hide, which takes no part in making images',
    **{
        f'{prefix}{old}.*': 'the text encoder once more, in old names'
        for prefix in ('cond_stage_model.transformer.', 'conditioner.embedders.0.transformer.')
        for old in ('embeddings', 'encoder', 'final_layer_norm')
    },
    'depth_model.*': 'the network that measures depth (MiDaS), which works on its own',
    'low_scale_model.*': "a table of the small image's noise schedule",
    'noise_augmentor.*': "a table of the image embedding's noise schedule",
    **dict.fromkeys(
        ('cond_stage_model.logit_scale', 'conditioner.embedders.0.logit_scale'),
        transformers_clip.SCALE['logit_scale'],
    ),
}
LAST_STEP = 'the weights of the last training step; their moving averages are read instead'


def places(keys: Collection[str]) -> dict[str, Place]:
    """Which parts a file holds, by its keys: part -> Place. Empty for a file of none of them."""
    found = {}
    for part, prefixes in PREFIXES.items():
        for prefix in prefixes:
            names = [names for names, mark in MARKS[part].items() if prefix + mark in keys]
            if names:
                found[part] = Place(prefix, names[0])
                break
    return found


def layout(
    settings: Mapping[str, Any],
    keys: Collection[str] | Mapping[str, Any] | None = None,
    weights: str = 'main',
) -> Layout:
    """The layout of a single file; paths are '<part>/<path>'.

    Args:
        settings: of the model; 'models' is what counts.
        keys: those of the file that is read, or better the mapping of its keys to objects with a shape, which
            tell how transformers project. None for the file to export.
        weights: 'main', or 'ema' for the moving averages of the U-Net (or of a first stage alone in its file).

    Raises:
        ValueError: the file lacks a part of the settings; or weights='ema' and it has no averages, or not all;
            or no such weights.
    """
    if weights not in ('main', 'ema'):
        raise ValueError(f"weights must be 'main' or 'ema'; got {weights!r}.")
    models = build.parts(settings)
    where = canonical_places(models) if keys is None else places(keys)
    missing = sorted(models.keys() - where.keys())
    if missing:
        raise ValueError(f'The file holds {sorted(where)}; it lacks {missing}, which the settings name.')
    keys = () if keys is None else keys
    linear = _is_linear(models, where, keys)
    rules, ignore = [], _copies(where, keys)
    for part, model in models.items():
        one = _part_layout(part, model, where[part], keys, linear)
        if weights == 'ema' and part == _averaged(models):
            ignore |= {key: LAST_STEP for rule in one.rules for key in rule.torch}
            one = _ema(one, part, where[part].prefix)
            absent = [key for rule in one.rules for key in rule.torch if key not in keys]
            if absent:
                raise ValueError(
                    f"weights='ema' needs moving averages of the whole {part}; of {len(one.rules)} tensors the "
                    f"file lacks {len(absent)}, such as {absent[0]}. weights='main' reads what it has."
                )
        rules += one.rules
        ignore |= one.ignore
    return Layout(tuple(rules), ignore | IGNORE)


def ema(settings: Mapping[str, Any], keys: Collection[str]) -> str:
    """Whether a file has moving averages of the part that is trained: 'complete', 'partial' or 'none'."""
    models, where = build.parts(settings), places(keys)
    part = _averaged(models)
    if part not in where:
        return 'none'
    one = _part_layout(part, models[part], where[part], keys, _is_linear(models, where, keys))
    wanted = [key for rule in _ema(one, part, where[part].prefix).rules for key in rule.torch]
    have = sum(key in keys for key in wanted)
    return 'complete' if have == len(wanted) else 'partial' if have else 'none'


def canonical_places(models: Mapping[str, nn.Module]) -> dict[str, Place]:
    """Where an exported file holds the parts of a model: part -> Place."""
    stage = 'taesd' if isinstance(models.get('first_stage'), taesd_model.Model) else 'compvis'
    if 'unet' not in models:
        alone = {'first_stage': stage, 'class_embedder': 'compvis', 'rescaler': 'compvis'}
        names = alone | dict.fromkeys(('text_encoder', 'text_encoder_2', 'image_encoder'), 'transformers')
        where = {part: Place('', names.get(part, 'compvis')) for part in models}
        if isinstance(models.get('text_encoder'), bert_model.Model):
            where['text_encoder'] = Place('', 'bert')
    else:
        where = {
            'unet': Place('model.diffusion_model.', 'compvis'),
            'first_stage': Place('first_stage_model.', stage),
            'text_encoder': _text_place(models),
            'text_encoder_2': Place('conditioner.embedders.1.model.', 'open_clip'),
            'image_encoder': Place('embedder.model.', 'open_clip'),
        }
    return {part: where.get(part, Place(PREFIXES[part][0], 'compvis')) for part in models}


def _text_place(models: Mapping[str, nn.Module]) -> Place:
    model = models.get('text_encoder')
    if isinstance(model, bert_model.Model):
        return Place('cond_stage_model.transformer.', 'bert')
    if 'text_encoder_2' in models:
        return Place('conditioner.embedders.0.transformer.', 'transformers')
    if _is_open_clip(models):
        refiner = models['unet'].vector_width is not None and 'image_encoder' not in models
        return Place('conditioner.embedders.0.model.' if refiner else 'cond_stage_model.model.', 'open_clip')
    return Place('cond_stage_model.transformer.', 'transformers')


def _is_open_clip(models: Mapping[str, nn.Module]) -> bool:
    return getattr(models.get('text_encoder'), 'activation', None) == 'gelu' and not isinstance(
        models['text_encoder'], bert_model.Model
    )


def _is_linear(models: Mapping[str, nn.Module], where: Mapping[str, Place], keys: Any) -> bool:
    """Whether transformers of the U-Net project by matrices: by the file's shapes, else by the model."""
    if 'unet' not in models:
        return False
    if isinstance(keys, Mapping):
        prefix = where['unet'].prefix
        projections = (key for key in keys if key.startswith(prefix) and key.endswith('.1.proj_in.weight'))
        return any(len(keys[key].shape) == 2 for key in projections)
    # The code that brought matrices is that of SD 2, with OpenCLIP or heads of width 64 or embedded labels.
    unet = models['unet']
    labelled = unet.vector_width is not None or unet.num_classes is not None
    return unet.context_width is not None and (_is_open_clip(models) or labelled or unet.head_width == 64)


def _part_layout(part: str, model: nn.Module, place: Place, keys: Collection[str], linear: bool) -> Layout:
    """The table of one part, below its prefix in the file and its name in the paths."""
    names = place.names
    if part == 'unet':
        one = compvis_unet.layout(model, linear)
    elif names == 'open_clip':
        one = open_clip.layout(model, _extra_layers(model, place.prefix, keys))
    elif names.startswith('transformers'):
        one = transformers_clip.layout(model, nested=names == 'transformers')
    elif part == 'first_stage':
        tiny = names.startswith('taesd')
        one = (
            taesd.layout(model, 'diffusers' if names == 'taesd_diffusers' else 'taesd')
            if tiny
            else autoencoder.layout(model, names)
        )
    else:
        one = {
            'text_encoder': bert.layout,
            'class_embedder': class_embedder.layout,
            'rescaler': spatial_rescaler.layout,
            'image_normalizer': image_normalizer.layout,
        }[part](model)
    return prefixed(one, torch=place.prefix, flax=f'{part}/')


def _extra_layers(model: nn.Module, prefix: str, keys: Collection[str]) -> int:
    """How many layers the file's text tower has behind those that are used."""
    extra = 0
    while f'{prefix}transformer.resblocks.{model.num_layers + extra}.ln_1.weight' in keys:
        extra += 1
    return extra


def _averaged(models: Mapping[str, nn.Module]) -> str:
    """The part that training averages."""
    return 'unet' if 'unet' in models else 'first_stage'


def _ema(one: Layout, part: str, prefix: str) -> Layout:
    """A part's layout by the names of its moving averages."""

    def rename(key):
        name = f'diffusion_model.{key.removeprefix(prefix)}' if part == 'unet' else key
        return f'model_ema.{name.replace(".", "")}'

    rules = (dataclasses.replace(rule, torch=tuple(map(rename, rule.torch))) for rule in one.rules)
    return Layout(tuple(rules), one.ignore)


def _copies(where: Mapping[str, Place], keys: Collection[str]) -> dict[str, str]:
    """Latent inpainting encodes the masked image with its first stage, and stores that twice."""
    stage = where.get('first_stage')
    if stage is None or f'cond_stage_model.{MARKS["first_stage"][stage.names]}' not in keys:
        return {}
    return {'cond_stage_model.*': 'the first stage once more, which encodes the condition too'}
