"""The U-Net of the emoji model: text-conditional latent diffusion at 8 x 8 latents, on top of the other two.

python tools/train.py --config configs/emoji_ldm.py --workdir runs/emoji_ldm
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            stage=dict(name='latent_diffusion', latent_size=8, parameterization='v', drop_rate=0.1),
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
            data=dict(
                name='image_folder',
                path='../shared/data/emoji64.zip',
                image_size=32,
                text='{caption}, {style} style',
                select=dict(split=('train',), group=('food-drink', 'animals-nature')),
            ),
            optimizer=dict(lr=1e-3, warmup_steps=200, final_lr=1e-5),
            run=dict(num_steps=5000, batch_size=32, save_every=500),
            export=dict(dtype='float16'),
        )
    )
