"""Retrieval-augmented diffusion, 768 x 768: the context is CLIP embeddings of text or of similar images.

unet 1,335,480,400, first_stage 69,610,963, text_encoder 123,650,304, image_encoder 303,966,208 parameters.
Each embedding is projected and normalized to length 1, and is one token; there may be several of them.
Ref: Blattmann et al. 2022, arXiv:2204.11824; CompVis configs/retrieval-augmented-diffusion/768x768.yaml.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=dict(
                    name='unet',
                    in_channels=16,
                    out_channels=16,
                    channels=448,
                    channel_mult=(1, 2, 3, 4),
                    depth=(1, 1, 1, 0),
                    head_width=32,
                    context_width=768,
                ),
                first_stage=common.kl_f16(),
                text_encoder=common.clip_l_text(projection_width=768),
                image_encoder=common.clip_l_vision(),
            ),
            tokenizer=common.clip_tokenizer(pad_id=49407),
            context_length=1,
            schedule=common.scaled_linear(0.0015, 0.015),
            parameterization='eps',
            loss='l2',
            scaling_factor=0.22765929,
            latent_size=48,
            image_size=768,
        )
    )
