"""SDXL's autoencoder: the architecture of KL-f8 with weights of its own, which overflow in float16.

first_stage 83,653,863 parameters.
Ref: Podell et al. 2023, arXiv:2307.01952; stabilityai/sdxl-vae.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=common.kl_f8()), image_size=1024))
