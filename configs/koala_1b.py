"""KOALA-1B: SDXL with one residual block a level on the way down and six transformer blocks at the lowest.

unet 1,161,184,324, first_stage 83,653,863, text_encoder 123,060,480, text_encoder_2 694,659,840 parameters.
Ref: Lee et al. 2024, arXiv:2312.04005; etri-vilab/koala-1b, unet/config.json.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sdxl(num_res_blocks=1, depth=(0, 2, 6), mid_depth=6))
