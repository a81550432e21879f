"""The text encoder of latent diffusion's text-to-image model of Conceptual Captions.

text_encoder 166,590,080 parameters; the checkpoint's to_logits, 19,564,602 more, is never used.
Ref: Rombach et al. 2022, arXiv:2112.10752.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(text_encoder=dict(name='bert', width=640, num_layers=32)),
            tokenizer=common.bert_tokenizer(),
        )
    )
