"""Stable Diffusion x4 upscaler: text and a 128 x 128 image to 512 x 512, v-prediction.

unet 473,398,020, first_stage 55,325,927, text_encoder 340,387,840 parameters.
Channels behind the latents: the small image 3, noised to the level that is the label (schedule like the
latents', level at most 350). The first attention of the upper three levels reads the text too.
Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-x4-upscaler.
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
                    channels=256,
                    channel_mult=(1, 2, 2, 4),
                    depth=(0, 1, 1, 1),
                    num_heads=8,
                    context_width=1024,
                    num_classes=1000,
                    cross_attention_only=(True, True, True, False),
                ),
                first_stage=common.kl_f4(z_channels=4),
                text_encoder=common.open_clip_h_text(),
            ),
            tokenizer=common.clip_tokenizer(pad_id=0),
            schedule=common.scaled_linear(0.0001, 0.02),
            parameterization='v',
            loss='l2',
            scaling_factor=0.08333,
            latent_size=128,
            image_size=512,
        )
    )
