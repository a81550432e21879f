"""Latent diffusion of landscapes from a semantic map at 512 x 512.

unet 215,229,315, first_stage 55,322,782, rescaler 546 parameters.
Channels behind the latents: the map of 182 classes, rescaled to 3.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/semantic_synthesis512.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.semantic_synthesis(image_size=512))
