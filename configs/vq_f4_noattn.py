"""VQ autoencoder, 4 pixels a latent along each side, 8192 codes of 3 channels, no attention.

first_stage 53,219,486 parameters. Published on ImageNet's validation set after 658,131 steps: rFID 1.06,
PSNR 25.21, PSIM 0.72.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/vq-f4-noattn.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.vq_f4(mid_attention=False)), image_size=256))
