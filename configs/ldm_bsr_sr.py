"""Latent diffusion upscaling of a 64 x 64 image to 256 x 256.

unet 113,622,563, first_stage 55,322,782 parameters.
Channels behind the latents: the small image 3. Of the published attention downsamplings, 8 and 16,
four levels reach 8 alone.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/bsr_sr.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=dict(
                    name='unet',
                    in_channels=6,
                    out_channels=3,
                    channels=160,
                    channel_mult=(1, 2, 2, 4),
                    depth=(0, 0, 0, 1),
                    head_width=32,
                ),
                first_stage=common.vq_f4(),
            ),
            schedule=common.scaled_linear(0.0015, 0.0155),
            parameterization='eps',
            loss='l2',
            scaling_factor=1.0,
            latent_size=64,
            image_size=256,
        )
    )
