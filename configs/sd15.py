"""Stable Diffusion 1.1 to 1.5: text to 512 x 512 images.

unet 859,520,964, first_stage 83,653,863, text_encoder 123,060,480 parameters;
401.6 GMACs for one evaluation of the U-Net.
Ref: Rombach et al. 2022, arXiv:2112.10752; stable-diffusion-v1-5/stable-diffusion-v1-5.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd1())
