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
    config = common.sd2('v', 768, vector_width=1536)
    config['models']['image_encoder'] = common.clip_l_vision()
    config['models']['image_normalizer'] = dict(name='image_normalizer', width=768)
    return ConfigDict(config)
