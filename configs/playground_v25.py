"""Playground 2.5: SDXL's networks, trained with EDM noise on latents of a stated mean and deviation.

unet 2,567,463,684, first_stage 83,653,863, text_encoder 123,060,480, text_encoder_2 694,659,840 parameters.
The authors take a guidance scale of 3.
Ref: Li et al. 2024, arXiv:2402.17245; playgroundai/playground-v2.5-1024px-aesthetic, its vae and scheduler.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    config = common.sdxl()
    config['models']['first_stage'] |= dict(
        latents_mean=(-1.6574, 1.886, -1.383, 2.5155), latents_std=(8.4927, 5.9022, 6.5498, 5.2299)
    )
    edm = dict(name='edm', sigma_min=0.002, sigma_max=80.0, rho=7.0, num_train_steps=1000)
    return ConfigDict(config | dict(schedule=edm, parameterization='edm', scaling_factor=0.5))
