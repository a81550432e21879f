"""Segmind-Vega: SDXL with a fifth of its transformer blocks and one residual block in the middle.

unet 745,225,604, first_stage 83,653,863, text_encoder 123,060,480, text_encoder_2 694,659,840 parameters.
Ref: Gupta et al. 2024, arXiv:2401.02677; segmind/Segmind-Vega, unet/config.json.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sdxl(depth=(0, 1, 2), mid_depth=0, mid_res_blocks=1))
