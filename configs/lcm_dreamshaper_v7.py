"""LCM-Dreamshaper v7: Stable Diffusion 1.5 distilled to one to eight steps; guidance is an input of the network.

unet 859,602,884, first_stage 83,653,863, text_encoder 123,060,480 parameters.
Ref: Luo et al. 2023, arXiv:2310.04378; SimianLuo/LCM_Dreamshaper_v7, unet/config.json (time_cond_proj_dim 256).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd1(guidance_width=256) | dict(sampling=common.LCM))
