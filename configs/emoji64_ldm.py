"""The U-Net of the emoji64 model: text-conditional latent diffusion at 8 x 8 latents of 16 channels.

    python tools/encode_dataset.py --config configs/emoji64_ldm.py:images --model experiments/own_model/emoji64_vae \\
        --parts first_stage --views 2 --out data/emoji64_latents
    python tools/train.py --config configs/emoji64_ldm.py --workdir runs/emoji64_ldm
    python tools/train.py --config configs/emoji64_ldm.py:next --workdir runs/emoji64_ldm_2 --config.warm_start=MODEL
    python tools/train.py --config configs/emoji64_ldm.py:last --workdir runs/emoji64_ldm_last --config.warm_start=MODEL

The first command encodes the images once, each with two captions of each kind. In training the frozen text encoder
reads the captions in every step, which costs little beside the U-Net. The run is made in slices at one learning rate,
each with a --config.run.seed of its own and from the model of the one before; in the last the rate falls to zero.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ('images', 'next', 'last')

TEXTS = (
    '{caption}, {style} style',
    'a {caption}, {style} style',
    '{keywords}, {style} style',
    '{caption}',
    'a {caption}, {group}',
)
# Sampled while it trains; the last four are pairs that are held out, none of them with a twin in training.
PROMPTS = (
    'a red apple, noto style',
    'penguin, fluent-emoji-3d style',
    'hamburger, twemoji style',
    'cactus, fluent-emoji-flat style',
    'pizza, noto style',
    'cat, twemoji style',
    'tulip, twemoji style',
    'lion, emojione style',
)


def get_config(arg: str = '') -> ConfigDict:
    images = common.emoji64(text=TEXTS)
    curve = dict(name='linear', final_lr=0.0) if arg == 'last' else dict(name='constant')
    config = ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                encode='step',
                latent_size=8,
                objective=dict(parameterization='v'),
                conditioning=dict(text=dict(drop_rate=0.1)),
                samples=dict(guidance_scale=2.0, prompts=PROMPTS),
            ),
            models=dict(unet=common.small_unet()),
            pretrained=dict(
                first_stage='experiments/own_model/emoji64_vae', text_encoder='runs/emoji64_clip/model'
            ),
            schedule=dict(name='scaled_linear'),
            data=images if arg == 'images' else dict(name='latents', path='data/emoji64_latents'),
            optimizer=dict(lr=1e-3, warmup_steps=500, curve=curve),
            run=common.run(
                num_steps=15_000,
                batch_size=32,
                save_every=500,
                ema=dict(main=dict(name='constant', decay=0.9995)),
            ),
            export=dict(dtype='float16'),
        )
    )
    if arg in ('next', 'last'):
        config.warm_start = 'runs/emoji64_ldm/model'
        config.run.seed = 1
    if arg == 'last':
        # The last two become any other average after the run (training/ema.py).
        config.run.ema.power_05 = dict(name='power', sigma_rel=0.05)
        config.run.ema.power_10 = dict(name='power', sigma_rel=0.1)
    return config
