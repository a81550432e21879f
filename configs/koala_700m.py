"""KOALA-700M: SDXL with one residual block a level on the way down and no middle.

unet 782,822,724, first_stage 83,653,863, text_encoder 123,060,480, text_encoder_2 694,659,840 parameters.
Ref: Lee et al. 2024, arXiv:2312.04005; etri-vilab/koala-700m, unet/config.json.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sdxl(num_res_blocks=1, depth=(0, 2, 5), mid_depth=0, mid_res_blocks=0))
