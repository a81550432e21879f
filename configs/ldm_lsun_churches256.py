"""Latent diffusion of LSUN churches at 256 x 256, unconditional.

unet 294,966,916, first_stage 83,653,863 parameters. Published FID 4.02 with 400 DDIM steps, eta 0.
scaling_factor is a buffer of the checkpoint: one over the standard deviation of a training batch.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/lsun_churches256.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=dict(
                    name='unet',
                    in_channels=4,
                    channels=192,
                    channel_mult=(1, 2, 2, 4, 4),
                    depth=(1, 1, 1, 1, 0),
                    num_heads=8,
                    scale_shift=True,
                    resblock_updown=True,
                ),
                first_stage=common.kl_f8(),
            ),
            schedule=common.scaled_linear(0.0015, 0.0155),
            parameterization='eps',
            loss='l1',
            scaling_factor=None,
            latent_size=32,
            image_size=256,
        )
    )
