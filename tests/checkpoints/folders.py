"""Diffusers folders of tiny models, as our settings and as pipelines of diffusers, for the tests of both ways."""

from __future__ import annotations

import copy
import functools
import importlib
import json
from pathlib import Path

import numpy as np

from ldm_jax import build, trees
from ldm_jax.checkpoints.layouts import rules

SCHEDULE = dict(name='scaled_linear', beta_start=0.0009, beta_end=0.0125, num_train_steps=1000)
UNET = dict(
    name='unet',
    channels=32,
    channel_mult=[1, 2],
    num_res_blocks=1,
    depth=[1, 0],
    num_groups=8,
    context_width=16,
)
VAE = dict(name='vae', channels=16, channel_mult=[1, 2], num_res_blocks=1, num_groups=8)
VQ = dict(VAE, name='vq', num_codes=11)
TEXT = dict(name='clip_text', width=16, num_layers=2, num_heads=2)
VISION = dict(name='clip_vision', image_size=8, patch_size=4, width=16, num_layers=1, num_heads=2)
XL = dict(output_layer=-2, final_norm=False)


def clip_tokenizer(pad_id):
    return dict(name='clip', context_length=77, pad_id=pad_id)


def settings(models, parameterization='eps', scaling_factor=0.2, **more):
    found = dict(
        models=models, schedule=SCHEDULE, parameterization=parameterization, scaling_factor=scaling_factor
    )
    return found | dict(latent_size=8, image_size=16) | more


def sd(text=TEXT, pad_id=49407, first_stage=VAE, more=None, parameterization='eps', **unet):
    models = dict(unet=UNET | unet, first_stage=first_stage, text_encoder=text) | (more or {})
    return settings(models, parameterization, tokenizer=clip_tokenizer(pad_id))


OPEN_CLIP = dict(TEXT, activation='gelu')
XL_UNET = dict(depth=[0, 2], mid_depth=2, head_width=16)
# Our settings: one of each kind of folder that diffusers has.
TINY = {
    'StableDiffusionPipeline': sd(num_heads=2),
    'StableDiffusionPipeline (2)': sd(OPEN_CLIP, 0, parameterization='v', head_width=16),
    'StableDiffusionPipeline (tiny VAE)': sd(
        first_stage=dict(name='taesd', channels=8, num_blocks=[1, 2]), num_heads=2
    ),
    'StableDiffusionPipeline (projected)': sd(dict(TEXT, projection_width=24), num_heads=2),
    'StableDiffusionInpaintPipeline': sd(num_heads=2, in_channels=9),
    'StableDiffusionInstructPix2PixPipeline': sd(num_heads=2, in_channels=8),
    'StableDiffusionDepth2ImgPipeline': sd(OPEN_CLIP, 0, head_width=16, in_channels=5),
    'StableDiffusionUpscalePipeline': sd(
        OPEN_CLIP,
        0,
        parameterization='v',
        num_heads=2,
        in_channels=7,
        num_classes=30,
        depth=[1, 1],
        cross_attention_only=[True, False],
    )
    | dict(scaling_factor=0.08333),
    'StableUnCLIPImg2ImgPipeline': sd(
        OPEN_CLIP,
        0,
        parameterization='v',
        head_width=16,
        vector_width=24,
        more=dict(
            image_encoder=dict(VISION, activation='gelu', projection_width=12),
            image_normalizer=dict(name='image_normalizer', width=12),
        ),
    ),
    'StableDiffusionXLPipeline': sd(
        TEXT | XL,
        **XL_UNET,
        context_width=36,
        vector_width=12 + 6 * 4,
        more=dict(text_encoder_2=dict(OPEN_CLIP, **XL, width=20, projection_width=12)),
    )
    | dict(tokenizer_2=clip_tokenizer(0)),
    'StableDiffusionXLImg2ImgPipeline': sd(
        dict(OPEN_CLIP, **XL, projection_width=12), 0, **XL_UNET, vector_width=12 + 5 * 4
    ),
    'LDMTextToImagePipeline': settings(
        dict(
            unet=dict(UNET, num_heads=2),
            first_stage=VAE,
            text_encoder=dict(name='bert', vocab_size=30, width=16, num_layers=2, num_heads=2, head_width=4),
        ),
        tokenizer=dict(name='bert', context_length=77),
    ),
    'LDMPipeline': settings(
        dict(
            unet=dict(UNET, context_width=None, depth=[0, 1], head_width=16, in_channels=3, out_channels=3),
            first_stage=VQ,
        ),
        scaling_factor=1.0,
    ),
    'LDMSuperResolutionPipeline': settings(
        dict(
            unet=dict(UNET, context_width=None, depth=[0, 1], head_width=16, in_channels=6, out_channels=3),
            first_stage=VQ,
        ),
        scaling_factor=1.0,
    ),
}
TINY['StableDiffusionXLInpaintPipeline'] = copy.deepcopy(TINY['StableDiffusionXLPipeline'])
TINY['StableDiffusionXLInpaintPipeline']['models']['unet']['in_channels'] = 9


@functools.cache  # many folders share a part
def _shapes(model):
    return trees.named(trees.shapes(model, size=getattr(model, 'downscale', None)))


def shapes(settings):
    """'<part>/<path>' -> shape and dtype of all parameters."""
    found = {}
    for part, model in build.parts(settings).items():
        found |= {f'{part}/{path}': leaf for path, leaf in _shapes(model).items()}
    return found


def random_params(settings):
    """A combined tree of random parameters."""
    generator = np.random.default_rng(0)
    return rules.unflatten(
        {path: generator.standard_normal(leaf.shape, np.float32) for path, leaf in shapes(settings).items()}
    )


def listing(layout, shapes):
    """Torch key -> shape of an export; arrays of stride 0 stand in for the parameters."""
    assert {path for rule in layout.rules for path in rule.flax} == shapes.keys()
    found = {}
    for rule in layout.rules:
        blanks = tuple(np.broadcast_to(np.int8(0), shapes[path].shape) for path in rule.flax)
        arrays = rule.to_torch(blanks)
        found |= {key: array.shape for key, array in zip(rule.torch, arrays, strict=True)}
    return found


def class_of(name):
    """A network's class in diffusers or transformers."""
    places = {
        'LDMBertModel': 'diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion',
        'StableUnCLIPImageNormalizer': 'diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer',
    }
    place = places.get(name, 'transformers' if name.startswith('CLIP') else 'diffusers')
    return getattr(importlib.import_module(place), name)


def module(config):
    """The network of a config.json."""
    import torch

    name = config.get('_class_name') or config['architectures'][0]
    cls = class_of(name)
    if hasattr(cls, 'from_config'):
        return cls.from_config(config)
    if name == 'LDMBertModel':
        place = importlib.import_module(cls.__module__)
        return cls(place.LDMBertConfig(**config))
    torch.manual_seed(0)
    return cls(cls.config_class(**config))


def configs_in(folder):
    """Subfolder ('' for the top) -> config.json of each network of a folder."""
    found = {}
    for path in sorted(Path(folder).rglob('config.json')):
        name = str(path.parent.relative_to(folder))
        found['' if name == '.' else name] = json.loads(path.read_text('utf-8'))
    return found


def older(key):
    """A key of one of CLIP's towers with the level that transformers lost in 5.6."""
    folder, _, rest = key.rpartition('/')
    if rest.startswith(('embeddings.', 'encoder.layers.', 'final_layer_norm.')) and 'text_encoder' in folder:
        rest = f'text_model.{rest}'
    return f'{folder}/{rest}' if folder else rest
