"""A LoRA: a style or a subject taught to a model from some images, beside its frozen weights.

    python tools/train.py --config configs/lora.py --workdir runs/style --config.data.path=photos
    python tools/train.py --config configs/lora.py:emoji32 --workdir runs/contrast --config.data.path=data/contrast
    python tools/sample.py --model emoji32 --prompt "a lemon, contrast style" --lora runs/contrast/contrast.safetensors

The model is any that sample.py takes: --config.warm_start=MODEL. The last two take minutes on two CPU cores
(experiments/lora_style). The workdir gets the adapter as NAME.safetensors, as A1111 and ComfyUI read it, and as
diffusers/pytorch_lora_weights.safetensors. Variants and where their numbers are from:

    (none)    Stable Diffusion 1.5 as in diffusers' train_text_to_image_lora.py: rank 4, attention, AdamW 1e-4
    kohya     as in kohya's train_network.py with the rate that people give: rank 4, alpha 1, all linear layers of the
              transformers and of the text encoder, 1600 steps of one image, one rate of 1e-4 for both
    locon     kohya's with the convolutions of residual blocks
    dora      diffusers' with magnitudes (DoRA)
    sdxl      SDXL as in diffusers' train_text_to_image_lora_sdxl.py
    emoji32   the shipped model
"""

from ml_collections import ConfigDict, config_dict

from configs import common

SD15, SDXL = 'stable-diffusion-v1-5/stable-diffusion-v1-5', 'stabilityai/stable-diffusion-xl-base-1.0'
VARIANTS = ('kohya', 'locon', 'dora', 'sdxl', 'emoji32')


def get_config(arg: str = '') -> ConfigDict:
    adapter = dict(kind='lora', rank=4, targets=('attention',), parts=('unet',), init='gaussian')
    config = ConfigDict(
        dict(
            stage=dict(name='latent_diffusion', encode='memory', adapter=adapter, samples=dict(count=4)),
            models={},
            warm_start=SDXL if arg == 'sdxl' else SD15,
            data=dict(
                name='image_folder',
                path='data/style',
                image_size=config_dict.placeholder(int),  # the model's own
                text='{caption}',
            ),
            optimizer=dict(name='adamw', lr=1e-4, weight_decay=0.01, curve='constant', warmup_steps=0),
            run=common.run(num_steps=1000, batch_size=1, ema={}, save_every=250),
        )
    )
    if arg in ('kohya', 'locon'):
        config.stage.encode = 'step'  # the text encoder is trained
        targets = 'transformers' if arg == 'kohya' else 'all'
        config.stage.adapter = adapter | dict(
            alpha=1.0, targets=(targets,), parts=('unet', 'text_encoder'), init='kaiming'
        )
        config.run.num_steps = 1600
    if arg == 'dora':
        config.stage.adapter.kind = 'dora'
    if arg == 'emoji32':
        config.warm_start = 'emoji32'
        config.stage.adapter = adapter | dict(rank=16, targets=('all',), init='kaiming')
        config.stage.samples.guidance_scale = 2.0
        config.data.text = 'a {caption}, contrast style'
        config.optimizer = dict(name='adamw', lr=1e-3, curve='cosine', warmup_steps=20)
        config.run.num_steps = 200
        config.run.batch_size = 20
    return config
