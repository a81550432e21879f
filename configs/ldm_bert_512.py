"""The layout encoder of latent diffusion on OpenImages: 92 tokens for boxes and classes.

text_encoder 54,656,000 parameters; the checkpoint's to_logits, 4,202,496 more, is never used.
Ref: Rombach et al. 2022, arXiv:2112.10752.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                text_encoder=dict(name='bert', vocab_size=8192, context_length=92, width=512, num_layers=16)
            )
        )
    )
