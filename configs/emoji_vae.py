"""The first stage of the emoji model: a small KL autoencoder for 32 x 32 images, f = 4.

python tools/train.py --config configs/emoji_vae.py --workdir runs/emoji_vae
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            stage=dict(name='first_stage', image_size=32, kl_weight=1e-5, perceptual_weight=0.0),
            models=dict(
                first_stage=dict(
                    name='vae',
                    z_channels=4,
                    channels=32,
                    channel_mult=(1, 2, 2),
                    num_res_blocks=1,
                    num_groups=16,
                ),
            ),
            data=common.emoji(),
            # The loss is a sum of 32 x 32 x 3 numbers.
            optimizer=dict(
                lr=1e-3, warmup_steps=100, curve=dict(name='cosine', final_lr=1e-5), clip_norm=3072.0
            ),
            run=common.run(num_steps=3000, batch_size=16, save_every=500),
            export=dict(dtype='float16'),
        )
    )
