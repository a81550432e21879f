"""Stable Diffusion 2.0 and 2.1 base: text to 512 x 512 images.

unet 865,910,724, first_stage 83,653,863, text_encoder 340,387,840 parameters.
Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-2-1-base.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd2())
