"""OpenCLIP ViT-H/14's image encoder: that of unCLIP-H.

image_encoder 632,076,800 parameters.
Ref: Cherti et al. 2022, arXiv:2212.07143; laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(dict(models=dict(image_encoder=common.open_clip_h_vision())))
