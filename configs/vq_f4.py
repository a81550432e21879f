"""VQ autoencoder, 4 pixels a latent along each side, 8192 codes of 3 channels.

first_stage 55,322,782 parameters. Published on ImageNet's validation set after 533,066 steps: rFID 0.58,
PSNR 27.43, PSIM 0.53.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/vq-f4.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.vq_f4()), image_size=256))
