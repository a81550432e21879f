"""Stable Diffusion 2 inpainting: text, image and mask to 512 x 512 images.

unet 865,925,124, first_stage 83,653,863, text_encoder 340,387,840 parameters.
Channels behind the latents: mask 1 (1 is repainted), latents of the masked image 4 (grey in the hole).
Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-2-inpainting.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=common.sd2_unet(in_channels=9),
                first_stage=common.kl_f8(),
                text_encoder=common.open_clip_h_text(),
            ),
            tokenizer=common.clip_tokenizer(pad_id=0),
            schedule=common.scaled_linear(0.00085, 0.012),
            parameterization='eps',
            loss='l2',
            scaling_factor=0.18215,
            latent_size=64,
            image_size=512,
        )
    )
