"""Stable Diffusion 2.0 and 2.1: text to 768 x 768 images, v-prediction.

unet 865,910,724, first_stage 83,653,863, text_encoder 340,387,840 parameters.
The attention of 2.1 overflows in float16; float32 and bfloat16 hold it.
Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-2-1.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd2('v', 768))
