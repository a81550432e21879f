"""The text encoder of latent diffusion's 1.45 B text-to-image model.

text_encoder 542,895,360 parameters; the checkpoint's to_logits, 39,098,682 more, is never used.
Ref: Rombach et al. 2022, arXiv:2112.10752.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(text_encoder=dict(name='bert', width=1280, num_layers=32)),
            tokenizer=common.bert_tokenizer(),
        )
    )
