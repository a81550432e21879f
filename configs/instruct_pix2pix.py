"""InstructPix2Pix: an instruction and an image to the edited 512 x 512 image.

unet 859,532,484, first_stage 83,653,863, text_encoder 123,060,480 parameters.
Channels behind the latents: those of the image 4, not scaled by scaling_factor. Trained at 256 x 256.
Ref: Brooks et al. 2023, arXiv:2211.09800; timbrooks/instruct-pix2pix.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(common.sd1(in_channels=8))
