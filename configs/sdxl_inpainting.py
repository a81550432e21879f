"""SDXL inpainting: text, image and mask to 1024 x 1024 images.

unet 2,567,478,084, first_stage 83,653,863, text_encoder 123,060,480, text_encoder_2 694,659,840 parameters.
Channels behind the latents: mask 1 (1 is repainted), latents of the masked image 4 (grey in the hole).
Ref: Podell et al. 2023, arXiv:2307.01952; diffusers/stable-diffusion-xl-1.0-inpainting-0.1.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=common.sdxl_unet(in_channels=9),
                first_stage=common.kl_f8(),
                text_encoder=common.clip_l_text(output_layer=-2, final_norm=False),
                text_encoder_2=common.open_clip_bigg_text(),
            ),
            tokenizer=common.clip_tokenizer(pad_id=49407),
            tokenizer_2=common.clip_tokenizer(pad_id=0),
            schedule=common.scaled_linear(0.00085, 0.012),
            parameterization='eps',
            loss='l2',
            scaling_factor=0.13025,
            latent_size=128,
            image_size=1024,
        )
    )
