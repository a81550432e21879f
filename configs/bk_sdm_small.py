"""BK-SDM-Small: BK-SDM-Base without the middle.

unet 482,346,884, first_stage 83,653,863, text_encoder 123,060,480 parameters.
Ref: Kim et al. 2024, arXiv:2305.15798; nota-ai/bk-sdm-small, unet/config.json.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd1(num_res_blocks=1, mid_depth=0, mid_res_blocks=0))
