"""Stable Diffusion 2 depth: text and a depth map to 512 x 512 images.

unet 865,913,604, first_stage 83,653,863, text_encoder 340,387,840 parameters.
Channels behind the latents: MiDaS (dpt_hybrid) inverse depth 1, at the latents' size, scaled to [-1, 1].
Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-2-depth.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd2(in_channels=5))
