"""OpenCLIP ViT-bigG/14's text encoder: SDXL's second, and its refiner's.

text_encoder 694,659,840 parameters.
Ref: Cherti et al. 2022, arXiv:2212.07143; laion/CLIP-ViT-bigG-14-laion2B-39B-b160k.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(text_encoder=common.open_clip_bigg_text()), tokenizer=common.clip_tokenizer(pad_id=0)
        )
    )
