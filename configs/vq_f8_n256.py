"""VQ autoencoder, 8 pixels a latent along each side, 256 codes of 4 channels.

first_stage 67,652,783 parameters. Published on ImageNet's validation set after 1,608,649 steps: rFID 1.49,
PSNR 22.35, PSIM 1.26.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/vq-f8-n256.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.vq_f8(num_codes=256)), image_size=256))
