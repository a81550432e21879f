"""The U-Net of the emoji model: text-conditional latent diffusion at 8 x 8 latents, on top of the other two.

The second run trains on from the first with half of the captions as 'a red apple, noto style'.

    python tools/train.py --config configs/emoji_ldm.py --workdir runs/emoji_ldm
    python tools/train.py --config configs/emoji_ldm.py:articles --workdir runs/emoji_articles
"""

from ml_collections import ConfigDict

from configs import common

# Sampled while it trains; the last two are emoji whose image in that style is held out.
PROMPTS = (
    'red apple, noto style',
    'carrot, twemoji style',
    'penguin, noto-v1 style',
    'lemon, emojione style',
    'cactus, fluent-emoji-flat style',
    'hamburger, fluent-emoji-3d style',
    'tropical fish, emojione style',
    'watermelon, fluent-emoji-flat style',
)
VARIANTS = ('articles',)


def get_config(arg: str = '') -> ConfigDict:
    config = ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                latent_size=8,
                objective=dict(parameterization='v'),
                conditioning=dict(text=dict(drop_rate=0.1)),
                samples=dict(guidance_scale=2.0, prompts=PROMPTS),
            ),
            models=dict(
                unet=dict(
                    name='unet',
                    channels=48,
                    channel_mult=(1, 2),
                    depth=(1, 1),
                    head_width=24,
                    num_groups=16,
                    context_width=128,
                ),
            ),
            pretrained=dict(first_stage='runs/emoji_vae/model', text_encoder='runs/emoji_clip/model'),
            schedule=dict(name='scaled_linear'),
            data=common.emoji(group=('food-drink', 'animals-nature')),
            optimizer=dict(lr=1e-3, warmup_steps=200, curve=dict(name='cosine', final_lr=1e-5)),
            run=common.run(
                num_steps=5000,
                batch_size=32,
                save_every=500,
                # The last two become any other average after the run (training/ema.py).
                ema=dict(
                    main=dict(name='constant', decay=0.999),
                    power_05=dict(name='power', sigma_rel=0.05),
                    power_10=dict(name='power', sigma_rel=0.1),
                ),
            ),
            export=dict(dtype='float16'),
        )
    )
    if arg == 'articles':
        config.warm_start = 'runs/emoji_ldm/model'
        config.data.text += tuple(f'a {text}' for text in config.data.text)
        config.optimizer.lr = 5e-4
        config.run.num_steps = 1500
    return config
