"""VQ autoencoder, 16 pixels a latent along each side, 16384 codes of 8 channels.

first_stage 69,593,371 parameters. Published on ImageNet's validation set after 1,101,166 steps: rFID 5.15,
PSNR 20.83, PSIM 1.73.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/vq-f16.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.vq_f16()), image_size=256))
