"""How the published models were trained, a variant each: data, objective, learning rate, batch, drops and warm start.

    python tools/train.py --config configs/originals.py:inpainting_sd15 --workdir runs/inpainting \\
        --config.data.path=photographs

Learning rates of latent diffusion's models are those of one example (lr_batch_size=1), so that batch, devices and
accumulation scale them as --scale_lr does in the original code. First stages and encoders come from the model that
`pretrained` names: --config.pretrained.first_stage takes any file, folder or hub id. Where instruct-pix2pix leaves out
the text, the image or both of 5 % each, text and image are left out of 10 % each here, both of 1 %.
Ref: Rombach et al. 2022, arXiv:2112.10752, tables 12 and 15, and CompVis/latent-diffusion, models/ldm; Brooks et al.
2023, arXiv:2211.09800, section 3.2; the model cards of Stable Diffusion 1.5 inpainting, 2 depth and the x4 upscaler.
"""

from typing import Any

from ml_collections import ConfigDict

import configs
from configs import common

SD15 = 'stable-diffusion-v1-5/stable-diffusion-v1-5'
SD2 = 'stabilityai/stable-diffusion-2-base'
UPSCALER = 'stabilityai/stable-diffusion-x4-upscaler'
VQ_F4 = 'models/vq_f4'  # of latent diffusion's own first stages, from its repository


def _images(size: int, text: str = '', **fields: Any) -> dict[str, Any]:
    return dict(name='image_folder', path='data/images', image_size=size, text=text) | fields


def _windows(size: int, **fields: Any) -> dict[str, Any]:
    """Squares that show half of the image's shorter side at least."""
    whole = dict(name='image_folder', path='data/images', text=fields.pop('text', ''))
    return dict(name='crops', source=whole, image_size=size) | fields


def _beside(kind: str, size: int, text: str = '') -> dict[str, Any]:
    return dict(name='beside', source=_images(size, text), folder=f'data/{kind}', kind=kind)


def _stable(steps: int, warmup: int = 10_000, batch: int = 2048) -> dict[str, Any]:
    """Stable Diffusion's: AdamW, 1e-4 after a warm-up, an average of decay 0.9999."""
    return dict(
        optimizer=dict(name='adamw', lr=1e-4, weight_decay=0.01, warmup_steps=warmup, curve='constant'),
        run=common.pod_run(num_steps=steps, batch_size=batch),
    )


def _latent(lr: float, batch: int, steps: int, scaled: bool = True) -> dict[str, Any]:
    """Latent diffusion's: AdamW at a constant rate of an example, or of a batch where scaled is False."""
    optimizer = dict(name='adamw', lr=lr, weight_decay=0.01, warmup_steps=0, curve='constant', clip_norm=None)
    ema = dict(main=dict(name='constant', decay=0.9999))
    return dict(
        optimizer=optimizer | (dict(lr_batch_size=1) if scaled else {}),
        run=common.run(num_steps=steps, batch_size=batch, ema=ema),
    )


TEXT = dict(text=dict(drop_rate=0.1))
# Variant -> the config of its networks, kinds of conditioning, and what else is its own.
RECIPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    'instruct_pix2pix': (
        'instruct_pix2pix',
        dict(text=dict(drop_rate=0.1), source=dict(drop_rate=0.1)),
        dict(data=_beside('source', 256, '{caption}'), warm_start=SD15, latent_size=32)
        | _stable(10_000, warmup=0, batch=1024),
    ),
    'inpainting_sd15': (
        'sd15_inpainting',
        TEXT | dict(inpainting=dict(full_rate=0.25)),
        dict(data=_images(512, '{caption}'), warm_start=SD15) | _stable(440_000),
    ),
    'depth_sd2': (
        'sd2_depth',
        TEXT | dict(depth={}),
        dict(data=_beside('depth', 512, '{caption}'), warm_start=SD2) | _stable(200_000),
    ),
    'x4_upscaler': (
        'x4_upscaler',
        TEXT | dict(low_resolution=dict(factor=4, max_noise_level=350)),
        dict(data=_windows(512, text='{caption}'), pretrained=UPSCALER) | _stable(1_250_000),
    ),
    'super_resolution': (
        'ldm_bsr_sr',
        dict(low_resolution=dict(factor=4)),
        dict(data=dict(name='degraded', source=_windows(256, min_share=0.5), factor=4))
        | _latent(1e-6, 64, 860_000),
    ),
    'inpainting_ldm': (
        'ldm_inpainting_big',
        dict(inpainting=dict(form='latent_diffusion', full_rate=0.0)),
        dict(data=_images(256), pretrained='models/vq_f4_noattn') | _latent(1e-6, 128, 360_000, scaled=False),
    ),
    'layout': (
        'ldm_layout2img',
        dict(boxes={}),
        dict(data=_beside('boxes', 256), trained=('text_encoder',)) | _latent(2e-6, 24, 4_400_000),
    ),
    'semantic': (
        'ldm_semantic_synthesis256',
        dict(label_map={}),
        dict(data=_beside('map', 256), trained=('rescaler',)) | _latent(1e-6, 48, 360_000),
    ),
    'class_conditional': (
        'ldm_cin256_v2',
        dict(class_label=dict(drop_rate=0.1)),
        dict(data=_images(256, label='folder'), trained=('class_embedder',))
        | _latent(1e-4, 1200, 178_000, scaled=False),
    ),
    'celeba': ('ldm_celeba256', {}, dict(data=_images(256)) | _latent(2e-6, 48, 410_000)),
    'ffhq': ('ldm_ffhq256', {}, dict(data=_images(256)) | _latent(2e-6, 42, 635_000)),
    'bedrooms': ('ldm_lsun_beds256', {}, dict(data=_images(256)) | _latent(2e-6, 48, 1_900_000)),
    'churches': (
        'ldm_lsun_churches256',
        {},
        dict(data=_images(256), pretrained='models/kl_f8', scaling_factor=1.0)
        | _latent(5e-5, 96, 500_000, scaled=False),
    ),
}
VARIANTS = tuple(RECIPES)


def get_config(arg: str = 'inpainting_sd15') -> ConfigDict:
    base, conditioning, own = RECIPES[arg]
    own, model = dict(own), configs.plain(configs.load(base))
    trained = {'unet', *own.pop('trained', ())}
    latent_size = own.pop('latent_size', model['latent_size'])
    taken = own.pop('pretrained', own.get('warm_start', VQ_F4))
    found = dict(
        stage=dict(
            name='latent_diffusion',
            encode='step',
            latent_size=latent_size,
            objective=dict(parameterization=model['parameterization'], loss=model['loss']),
            conditioning=conditioning,
        ),
        models={part: spec for part, spec in model['models'].items() if part in trained},
        pretrained={part: taken for part in model['models'] if part not in trained},
        schedule=model['schedule'],
        scaling_factor=model['scaling_factor'],
    )
    found |= {key: model[key] for key in ('tokenizer',) if key in model}
    return ConfigDict(found | own)
