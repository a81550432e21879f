"""Latent diffusion of faces, CelebA-HQ at 256 x 256, unconditional.

unet 274,056,163, first_stage 55,322,782 parameters. Published FID 5.11 with 200 DDIM steps, eta 0.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/celeba256.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.unconditional_vq_f4())
