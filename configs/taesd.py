"""TAESD: a tiny autoencoder distilled from Stable Diffusion's, 8 pixels a latent along each side.

first_stage 2,445,063 parameters: encoder 1,222,532, decoder 1,222,531.
TAESDXL has the same architecture.
Ref: madebyollin/taesd.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(first_stage=dict(name='taesd')), image_size=512))
