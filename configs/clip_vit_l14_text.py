"""CLIP ViT-L/14's text encoder: Stable Diffusion 1's, and SDXL's first.

text_encoder 123,060,480 parameters.
Ref: Radford et al. 2021, arXiv:2103.00020; openai/clip-vit-large-patch14.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(models=dict(text_encoder=common.clip_l_text()), tokenizer=common.clip_tokenizer(pad_id=49407))
    )
