"""KL autoencoder, 4 pixels a latent along each side, 3 channels.

first_stage 55,312,063 parameters. Published on ImageNet's validation set after 176,991 steps: rFID 0.27,
PSNR 27.53, PSIM 0.55.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/kl-f4.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.kl_f4()), image_size=256))
