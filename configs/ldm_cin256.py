"""Latent diffusion of ImageNet's 1000 classes at 256 x 256, first version (VQ-f8).

unet 394,984,196, first_stage 67,717,295, class_embedder 512,000 parameters. Published FID 15.82.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis models/ldm/cin256.
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
                    channels=256,
                    channel_mult=(1, 2, 4),
                    depth=(1, 1, 1),
                    head_width=32,
                    context_width=512,
                ),
                first_stage=common.vq_f8(),
                class_embedder=dict(name='class_embedder', num_classes=1000, width=512),
            ),
            context_length=1,
            schedule=common.scaled_linear(0.0015, 0.0195),
            parameterization='eps',
            loss='l2',
            scaling_factor=1.0,
            latent_size=32,
            image_size=256,
        )
    )
