"""Latent diffusion from a layout of boxes and classes at 256 x 256, trained on OpenImages.

unet 246,277,379, first_stage 55,322,782, text_encoder 54,656,000 parameters. Published FID 32.02.
The encoder reads boxes and classes as 92 tokens of a vocabulary of 8192; there is no tokenizer.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/layout2img-openimages256.
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
                    channels=128,
                    channel_mult=(1, 2, 3, 4),
                    depth=(0, 3, 3, 3),
                    mid_depth=3,
                    head_width=32,
                    context_width=512,
                ),
                first_stage=common.vq_f4(),
                text_encoder=dict(name='bert', vocab_size=8192, context_length=92, width=512, num_layers=16),
            ),
            context_length=92,
            schedule=common.scaled_linear(0.0015, 0.0205),
            parameterization='eps',
            loss='l1',
            scaling_factor=1.0,
            latent_size=64,
            image_size=256,
        )
    )
