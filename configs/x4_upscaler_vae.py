"""The x4 upscaler's autoencoder: KL, 4 pixels a latent along each side, 4 channels.

first_stage 55,325,927 parameters.
Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-x4-upscaler.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.kl_f4(z_channels=4)), image_size=512))
