"""OpenCLIP ViT-H/14's text encoder: Stable Diffusion 2's, 23 of its 24 layers.

text_encoder 340,387,840 parameters.
Ref: Cherti et al. 2022, arXiv:2212.07143; laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(models=dict(text_encoder=common.open_clip_h_text()), tokenizer=common.clip_tokenizer(pad_id=0))
    )
