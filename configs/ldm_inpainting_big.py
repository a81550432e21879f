"""Latent diffusion inpainting without text at 256 x 256.

unet 387,245,827, first_stage 53,219,486 parameters.
Channels behind the latents: latents of the masked image 3, which is -1 in the hole, and mask 1, -1 or +1.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/inpainting_big.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=dict(
                    name='unet',
                    in_channels=7,
                    out_channels=3,
                    channels=256,
                    channel_mult=(1, 2, 3, 4),
                    depth=(0, 1, 1, 1),
                    num_heads=8,
                    resblock_updown=True,
                ),
                first_stage=common.vq_f4(mid_attention=False),
            ),
            schedule=common.scaled_linear(0.0015, 0.0205),
            parameterization='eps',
            loss='l1',
            scaling_factor=1.0,
            latent_size=64,
            image_size=256,
        )
    )
