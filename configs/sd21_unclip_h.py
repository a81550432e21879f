"""Stable Diffusion 2.1 unCLIP-H: variations of an image by its OpenCLIP ViT-H/14 embedding, 768 x 768.

unet 870,173,124, first_stage 83,653,863, text_encoder 340,387,840, image_encoder 632,076,800,
image_normalizer 2,048 parameters.
The vector is the image embedding, whitened and noised, then the sinusoids of its noise level, each 1024
wide; that noise has the schedule squaredcos_cap_v2. A quarter of the examples had no embedding.
Ref: Ramesh et al. 2022, arXiv:2204.06125; stabilityai/stable-diffusion-2-1-unclip.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    config = common.sd2('v', 768, vector_width=2048)
    config['models']['image_encoder'] = common.open_clip_h_vision()
    config['models']['image_normalizer'] = dict(name='image_normalizer', width=1024)
    return ConfigDict(config)
