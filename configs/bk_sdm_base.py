"""BK-SDM-Base, and Segmind's small-sd: Stable Diffusion 1 with one residual block a level on the way down.

unet 579,384,964, first_stage 83,653,863, text_encoder 123,060,480 parameters.
Ref: Kim et al. 2024, arXiv:2305.15798; nota-ai/bk-sdm-base, unet/config.json; segmind/small-sd.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd1(num_res_blocks=1))
