"""CLIP ViT-L/14's image encoder: that of unCLIP-L, and of retrieval-augmented diffusion.

image_encoder 303,966,208 parameters.
Ref: Radford et al. 2021, arXiv:2103.00020; openai/clip-vit-large-patch14.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(image_encoder=common.clip_l_vision())))
