"""The U-Net of the emoji64 model: text-conditional latent diffusion at 8 x 8 latents of 16 channels.

    python tools/encode_dataset.py --config configs/emoji64_ldm.py:images --model runs/emoji64_vae_edges/model \\
        --parts first_stage --views 2 --out data/emoji64_latents
    python tools/train.py --config configs/emoji64_ldm.py --workdir runs/emoji64_ldm

The first command encodes the images once, each with two captions of each kind. In training the frozen text encoder
reads the captions in every step, which costs little beside the U-Net.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ('images',)

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
    return ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                encode='step',
                latent_size=8,
                objective=dict(parameterization='v'),
                conditioning=dict(text=dict(drop_rate=0.1)),
                samples=dict(guidance_scale=2.0, prompts=PROMPTS),
            ),
            models=dict(
                unet=dict(
                    name='unet',
                    in_channels=16,
                    out_channels=16,
                    channels=72,
                    channel_mult=(1, 2),
                    depth=(1, 1),
                    head_width=24,
                    num_groups=24,
                    context_width=128,
                ),
            ),
            pretrained=dict(
                first_stage='runs/emoji64_vae_edges/model', text_encoder='runs/emoji64_clip/model'
            ),
            schedule=dict(name='scaled_linear'),
            data=images if arg == 'images' else dict(name='latents', path='data/emoji64_latents'),
            optimizer=dict(lr=1e-3, warmup_steps=500, curve=dict(name='cosine', final_lr=1e-5)),
            run=common.run(
                num_steps=46_875,
                batch_size=32,
                save_every=1000,
                # The last two become any other average after the run (training/ema.py).
                ema=dict(
                    main=dict(name='constant', decay=0.9995),
                    power_05=dict(name='power', sigma_rel=0.05),
                    power_10=dict(name='power', sigma_rel=0.1),
                ),
            ),
            export=dict(dtype='float16'),
        )
    )
