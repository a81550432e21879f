"""SDXL inpainting: text, image and mask to 1024 x 1024 images.

unet 2,567,478,084, first_stage 83,653,863, text_encoder 123,060,480, text_encoder_2 694,659,840 parameters.
Channels behind the latents: mask 1 (1 is repainted), latents of the masked image 4 (grey in the hole).
Ref: Podell et al. 2023, arXiv:2307.01952; diffusers/stable-diffusion-xl-1.0-inpainting-0.1.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sdxl(in_channels=9))
