"""KL autoencoder, 32 pixels a latent along each side, 64 channels.

first_stage 103,880,131 parameters. Published on ImageNet's validation set after 406,763 steps: rFID 2.04,
PSNR 22.27, PSIM 1.41.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/kl-f32.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.kl_f32()), image_size=256))
