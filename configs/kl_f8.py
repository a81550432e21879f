"""KL autoencoder, 8 pixels a latent along each side, 4 channels.

first_stage 83,653,863 parameters. Published on ImageNet's validation set after 246,803 steps: rFID 0.90,
PSNR 24.19, PSIM 1.02. Stable Diffusion 1 and 2 share the architecture.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/first_stage_models/kl-f8.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.kl_f8()), image_size=256))
