"""Trains a small model of your own images from nothing: a folder with x.txt, its caption, beside each x.png or x.jpg.

    python tools/train.py --config configs/from_scratch.py:first_stage --workdir runs/scratch/first_stage \\
        --config.data.path=my_images
    python tools/train.py --config configs/from_scratch.py --workdir runs/scratch/model --config.data.path=my_images
    python tools/sample.py --model runs/scratch/model/model --prompt "a caption like yours"

The first run makes an autoencoder of 64 x 64 images, the second a U-Net on its latents, with a text encoder that is
trained along; both begin with random numbers, so they want thousands of images (configs/finetune.py is content with
few). On two CPU cores the first takes an hour; how long the second is worth going on its samples show
(--config.run.num_steps, --config.run.batch_size). Captions: as configs/finetune.py says.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ('first_stage', 'latent_diffusion')


def get_config(arg: str = 'latent_diffusion') -> ConfigDict:
    data = dict(name='image_folder', path='my_images', image_size=64)
    if arg == 'first_stage':
        return ConfigDict(
            dict(
                stage=dict(name='first_stage', image_size=64, kl_weight=1e-5, perceptual_weight=0.0),
                models=dict(first_stage=common.small_vae()),
                data=data | dict(text=''),
                optimizer=common.small_vae_adam(),
                run=common.run(num_steps=6250, batch_size=16, save_every=250),
                export=dict(dtype='float16'),
            )
        )
    return ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                encode='step',
                latent_size=8,
                objective=dict(parameterization='v'),
                conditioning=dict(text=dict(drop_rate=0.1)),
                samples=dict(guidance_scale=2.0),
            ),
            models=dict(unet=common.small_unet(), text_encoder=common.small_clip_text()),
            pretrained=dict(first_stage='runs/scratch/first_stage/model'),
            tokenizer=dict(name='clip', context_length=24),
            schedule=dict(name='scaled_linear'),
            data=data | dict(text='{caption}'),
            optimizer=dict(lr=1e-3, warmup_steps=500, curve=dict(name='cosine', final_lr=1e-5)),
            run=common.run(
                num_steps=20_000,
                batch_size=32,
                save_every=500,
                ema=dict(main=dict(name='constant', decay=0.9995)),
            ),
            export=dict(dtype='float16'),
        )
    )
