"""KL autoencoder, 16 pixels a latent along each side, 16 channels.

first_stage 69,610,963 parameters. Published on ImageNet's validation set after 442,998 steps: rFID 0.87,
PSNR 24.08, PSIM 1.07.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/kl-f16.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.kl_f16()), image_size=256))
