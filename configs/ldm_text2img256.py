"""Latent diffusion from text at 256 x 256, trained on Conceptual Captions.

unet 403,623,939, first_stage 55,322,782, text_encoder 166,590,080 parameters. Published FID 16.79.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/text2img256.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=dict(
                    name='unet',
                    in_channels=3,
                    out_channels=3,
                    channels=192,
                    channel_mult=(1, 2, 3, 5),
                    depth=(0, 1, 1, 1),
                    head_width=32,
                    context_width=640,
                ),
                first_stage=common.vq_f4(),
                text_encoder=dict(name='bert', width=640, num_layers=32),
            ),
            tokenizer=common.bert_tokenizer(),
            schedule=common.scaled_linear(0.0015, 0.0195),
            parameterization='eps',
            loss='l2',
            scaling_factor=1.0,
            latent_size=64,
            image_size=256,
        )
    )
