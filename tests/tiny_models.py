"""A tiny model of each kind that a task is for, as a model directory of random parameters."""

from __future__ import annotations

import pathlib

from ldm_jax.checkpoints import store
from tests.checkpoints.folders import clip_tokenizer
from tests.pipelines.pairs import random_params

SCHEDULE = dict(name='scaled_linear', beta_start=0.0009, beta_end=0.0125, num_train_steps=1000)
UNET = dict(name='unet', channels=8, channel_mult=[1], num_res_blocks=1, depth=[1], num_groups=4, num_heads=2)
VAE = dict(name='vae', channels=4, channel_mult=[1, 1], num_res_blocks=1, num_groups=2, mid_attention=False)
VQ = dict(VAE, name='vq', num_codes=11)
TEXT = dict(name='clip_text', width=8, num_layers=2, num_heads=2)
XL = dict(TEXT, output_layer=-2, final_norm=False)
VISION = dict(
    name='clip_vision', image_size=8, patch_size=4, width=8, num_layers=1, num_heads=2, projection_width=6
)
BERT = dict(name='bert', vocab_size=64, context_length=8, width=8, num_layers=1, num_heads=1, head_width=4)


def _settings(models, **more):
    found = dict(models=models, schedule=SCHEDULE, parameterization='eps', latent_size=8, image_size=16)
    return found | dict(scaling_factor=0.5) | more


def _text(more=None, text=TEXT, **unet):
    models = dict(unet=dict(UNET, context_width=8) | unet, first_stage=VAE, text_encoder=text)
    return _settings(models | (more or {}), tokenizer=clip_tokenizer(0))


def _pixels(in_channels=3, context_width=None, **models):
    unet = dict(UNET, in_channels=in_channels, out_channels=3, context_width=context_width)
    return _settings(dict(unet=unet, first_stage=VQ, **models))


# Kind of model, as in `model_kinds.KINDS` -> settings; 'sizes' is a text model conditioned on sizes, as SDXL.
SETTINGS = {
    'text': _text(),
    'sizes': _text(
        dict(text_encoder_2=dict(XL, width=12, projection_width=10)), XL, context_width=20, vector_width=34
    )
    | dict(tokenizer_2=clip_tokenizer(0)),
    'inpaint': _text(in_channels=9),
    'edit': _text(in_channels=8),
    'depth': _text(in_channels=5),
    'upscale': _text(in_channels=7, num_classes=30),
    'variation': _text(
        dict(image_encoder=VISION, image_normalizer=dict(name='image_normalizer', width=6)), vector_width=12
    ),
    'class': _pixels(context_width=4, class_embedder=dict(name='class_embedder', num_classes=1001, width=4)),
    'unconditional': _pixels(),
    'super_resolution': _pixels(6),
    'hole': _pixels(7),
    'semantic': _pixels(
        6, rescaler=dict(name='spatial_rescaler', num_stages=1, in_channels=5, out_channels=3)
    ),
    'layout': _pixels(context_width=8, text_encoder=BERT),
}


def save(folder: pathlib.Path, kind: str, seed: int = 0) -> str:
    """Writes the model of a kind into the folder, its parameters drawn by the seed: its directory."""
    path = folder / f'{kind}_{seed}'
    if not path.exists():
        store.save_model(str(path), SETTINGS[kind], random_params(SETTINGS[kind], seed))
    return str(path)
