"""Latent diffusion from text at 256 x 256, the 1.45 B model trained on LAION-400M.

unet 872,300,484, first_stage 83,653,863, text_encoder 542,895,360 parameters.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis/ldm-text2im-large-256.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=common.sd1_unet(context_width=1280),
                first_stage=common.kl_f8(),
                text_encoder=dict(name='bert', width=1280, num_layers=32),
            ),
            tokenizer=common.bert_tokenizer(),
            schedule=common.scaled_linear(0.00085, 0.012),
            parameterization='eps',
            loss='l2',
            scaling_factor=0.18215,
            latent_size=32,
            image_size=256,
        )
    )
