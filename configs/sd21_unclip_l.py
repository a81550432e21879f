"""Stable Diffusion 2.1 unCLIP-L: variations of an image by its CLIP ViT-L/14 embedding, 768 x 768.

unet 869,517,764, first_stage 83,653,863, text_encoder 340,387,840, image_encoder 303,966,208,
image_normalizer 1,536 parameters.
The vector is the image embedding, whitened and noised, then the sinusoids of its noise level, each 768
wide; that noise has the schedule squaredcos_cap_v2. A quarter of the examples had no embedding.
Ref: Ramesh et al. 2022, arXiv:2204.06125; stabilityai/stable-diffusion-2-1-unclip-small.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            models=dict(
                unet=common.sd2_unet(vector_width=1536),
                first_stage=common.kl_f8(),
                text_encoder=common.open_clip_h_text(),
                image_encoder=common.clip_l_vision(),
                image_normalizer=dict(name='image_normalizer', width=768),
            ),
            tokenizer=common.clip_tokenizer(pad_id=0),
            schedule=common.scaled_linear(0.00085, 0.012),
            parameterization='v',
            loss='l2',
            scaling_factor=0.18215,
            latent_size=96,
            image_size=768,
        )
    )
