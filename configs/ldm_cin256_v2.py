"""Latent diffusion of ImageNet at 256 x 256 with classifier-free guidance (VQ-f4); class 1000 is no class.

unet 400,920,579, first_stage 55,322,782, class_embedder 512,512 parameters. Published FID 3.6.
Every attention has one head, as wide as the level.
Ref: Rombach et al. 2022, arXiv:2112.10752; CompVis configs/latent-diffusion/cin256-v2.yaml.
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
                    num_heads=1,
                    context_width=512,
                ),
                first_stage=common.vq_f4(),
                class_embedder=dict(name='class_embedder', num_classes=1001, width=512),
            ),
            context_length=1,
            schedule=common.scaled_linear(0.0015, 0.0195),
            parameterization='eps',
            loss='l2',
            scaling_factor=1.0,
            latent_size=64,
            image_size=256,
        )
    )
