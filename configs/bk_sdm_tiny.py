"""BK-SDM-Tiny, and Segmind's tiny-sd: BK-SDM-Small without the level of the lowest resolution.

unet 323,384,964, first_stage 83,653,863, text_encoder 123,060,480 parameters.
Ref: Kim et al. 2024, arXiv:2305.15798; nota-ai/bk-sdm-tiny, unet/config.json; segmind/tiny-sd.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        common.sd1(num_res_blocks=1, channel_mult=(1, 2, 4), depth=(1, 1, 1), mid_depth=0, mid_res_blocks=0)
    )
