"""VQ autoencoder, 8 pixels a latent along each side, 16384 codes of 4 channels.

first_stage 67,717,295 parameters. Published on ImageNet's validation set after 971,043 steps: rFID 1.14,
PSNR 23.07, PSIM 1.17.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/vq-f8.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.vq_f8()), image_size=256))
