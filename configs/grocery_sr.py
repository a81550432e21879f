"""Photographs of fruit made four times larger, 24 x 24 to 96 x 96: diffusion of pixels beside the enlarged small image.

Small images are made by BSRGAN's light degradation, as for latent diffusion's upscaler. experiments/grocery_sr tells
what it can do after an hour on a share of two CPU cores.

    python tools/train.py --config configs/grocery_sr.py --workdir runs/grocery_sr \\
        --config.data.source.source.path=grocery96.zip
    python tools/sample.py --model runs/grocery_sr/model --init_image small.png
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    photographs = dict(name='image_folder', path='data/grocery96.zip', text='', select=dict(split=('train',)))
    windows = dict(name='crops', source=photographs, image_size=48, min_share=0.5, flip=True)
    return ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                encode='step',
                latent_size=48,
                objective=dict(parameterization='v'),
                conditioning=dict(low_resolution=dict(factor=4)),
            ),
            models=dict(
                unet=dict(
                    name='unet',
                    in_channels=6,
                    out_channels=3,
                    channels=32,
                    channel_mult=(1, 2, 3),
                    num_res_blocks=1,
                    depth=(0, 0, 0),
                    mid_depth=1,
                    head_width=32,
                    num_groups=16,
                ),
            ),
            schedule=dict(name='scaled_linear'),
            scaling_factor=1.0,
            data=dict(name='degraded', source=windows, factor=4, degradation='bsrgan_light'),
            optimizer=dict(lr=5e-4, warmup_steps=100, curve=dict(name='cosine', final_lr=1e-5)),
            run=common.run(
                num_steps=1400,
                batch_size=16,
                save_every=250,
                ema=dict(main=dict(name='constant', decay=0.995)),
            ),
        )
    )
