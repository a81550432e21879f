"""SDXL refiner: the last steps of SDXL's denoising, 1024 x 1024.

unet 2,259,526,660, first_stage 83,653,863, text_encoder 694,659,840 parameters.
The vector is the projected text, then 256 sinusoids each of the original height and width, the crop's top
and left, and an aesthetic score (6.0; 2.5 for the negative prompt).
Ref: Podell et al. 2023, arXiv:2307.01952; stabilityai/stable-diffusion-xl-refiner-1.0.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=dict(
                    name='unet',
                    channels=384,
                    channel_mult=(1, 2, 4, 4),
                    depth=(0, 4, 4, 0),
                    mid_depth=4,
                    head_width=64,
                    context_width=1280,
                    vector_width=2560,
                ),
                first_stage=common.kl_f8(),
                text_encoder=common.open_clip_bigg_text(),
            ),
            tokenizer=common.clip_tokenizer(pad_id=0),
            schedule=common.scaled_linear(0.00085, 0.012),
            parameterization='eps',
            loss='l2',
            scaling_factor=0.13025,
            latent_size=128,
            image_size=1024,
        )
    )
