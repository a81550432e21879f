"""SDXL base: text to 1024 x 1024 images.

unet 2,567,463,684, first_stage 83,653,863, text_encoder 123,060,480, text_encoder_2 694,659,840 parameters;
3380.6 GMACs for one evaluation of the U-Net. The first stage overflows in float16.
The context is both encoders' last layer but one, side by side; the vector is the second one's projected
text, then 256 sinusoids each of the original height and width, the crop's top and left, and the height
and width that are wanted.
Ref: Podell et al. 2023, arXiv:2307.01952; stabilityai/stable-diffusion-xl-base-1.0.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sdxl())
