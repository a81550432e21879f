"""Stable Diffusion 1.5 inpainting: text, image and mask to 512 x 512 images.

unet 859,535,364, first_stage 83,653,863, text_encoder 123,060,480 parameters.
Channels behind the latents: mask 1 (1 is repainted), latents of the masked image 4 (grey in the hole).
Ref: Rombach et al. 2022, arXiv:2112.10752; stable-diffusion-v1-5/stable-diffusion-inpainting.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd1(in_channels=9))
