"""A LoRA: a style or a subject taught to a model from some images, beside its frozen weights.

    python tools/train.py --config configs/lora.py:emoji32 --workdir runs/contrast --config.data.path=data/contrast
    python tools/train.py --config configs/lora.py --workdir runs/style --config.data.path=photos
    python tools/sample.py --model emoji32 --prompt "a lemon, contrast style" --lora runs/contrast/contrast.safetensors

The first takes minutes on two CPU cores (experiments/lora_style). The workdir gets the adapter as NAME.safetensors, as
A1111 and ComfyUI read it, and diffusers/pytorch_lora_weights.safetensors. Variants and where their numbers are from:

    (none)    Stable Diffusion 1.5 as in diffusers' train_text_to_image_lora.py: rank 4, attention, AdamW 1e-4
    kohya     as in kohya's train_network.py with the rates that people give: rank 4, alpha 1, all linear layers of the
              transformers and the text encoder, 1600 steps of one image; one rate for both, 1e-4
    locon     kohya's with the convolutions of residual blocks
    dora      diffusers' with magnitudes (DoRA)
    sdxl      SDXL as in diffusers' train_text_to_image_lora_sdxl.py
    emoji32   the shipped model
"""

from ml_collections import ConfigDict

from configs import common

SD15, SDXL = 'stable-diffusion-v1-5/stable-diffusion-v1-5', 'stabilityai/stable-diffusion-xl-base-1.0'
VARIANTS = ('kohya', 'locon', 'dora', 'sdxl', 'emoji32')


def get_config(arg: str = '') -> ConfigDict:
    config = ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                encode='memory',
                conditioning=dict(text=dict(drop_rate=0.0)),
                adapter=dict(kind='lora', rank=4, targets=('attention',), parts=('unet',), init='gaussian'),
                samples=dict(count=4),
            ),
            models={},
            pretrained=dict(
                unet=dict(model=SD15, **common.sd1_unet()),
                first_stage=dict(model=SD15, **common.kl_f8()),
                text_encoder=dict(model=SD15, **common.clip_l_text()),
            ),
            tokenizer=common.clip_tokenizer(pad_id=49407),
            data=dict(name='image_folder', path='data/style', image_size=512, text='{caption}'),
            optimizer=dict(name='adamw', lr=1e-4, weight_decay=0.01, curve='constant'),
            run=common.run(num_steps=1000, batch_size=1, ema={}, save_every=250),
        )
    )
    if arg in ('kohya', 'locon'):
        config.stage.encode = 'step'  # the text encoder is trained
        config.stage.adapter = dict(
            kind='lora',
            rank=4,
            alpha=1.0,
            targets=('transformers' if arg == 'kohya' else 'all',),
            parts=('unet', 'text_encoder'),
            init='kaiming',
        )
        config.run.num_steps = 1600
    if arg == 'dora':
        config.stage.adapter.kind = 'dora'
    if arg == 'sdxl':
        config.pretrained = dict(
            unet=dict(model=SDXL, **common.sdxl_unet()),
            first_stage=dict(model=SDXL, **common.kl_f8()),
            text_encoder=dict(model=SDXL, **common.clip_l_text(output_layer=-2, final_norm=False)),
            text_encoder_2=dict(model=SDXL, **common.open_clip_bigg_text()),
        )
        config.tokenizer_2 = common.clip_tokenizer(pad_id=0)
        config.stage.conditioning = dict(text=dict(drop_rate=0.0, pooled=True), sizes=dict(drop_rate=0.0))
        config.data.image_size = 1024
    if arg == 'emoji32':
        config.pretrained = dict(unet='emoji32', first_stage='emoji32', text_encoder='emoji32')
        del config.tokenizer
        config.stage.conditioning.text.drop_rate = 0.1
        config.stage.adapter = dict(kind='lora', rank=16, targets=('all',), parts=('unet',), init='kaiming')
        config.stage.samples = dict(count=4, guidance_scale=2.0)
        config.data = dict(
            name='image_folder', path='data/contrast', image_size=32, text='a {caption}, contrast style'
        )
        config.optimizer = dict(name='adamw', lr=1e-3, curve='cosine', warmup_steps=20)
        config.run.num_steps = 400
        config.run.batch_size = 20
    return config
