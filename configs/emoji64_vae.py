"""The first stage of the emoji64 model: a KL autoencoder for 64 x 64 images, f = 8 with 16 channels.

    python tools/build_emoji64.py --data_dir data
    python tools/train.py --config configs/emoji64_vae.py --workdir runs/emoji64_vae
    python tools/train.py --config configs/emoji64_vae.py:edges --workdir runs/emoji64_vae_edges

The first run is for colours and shapes, by the distance of pixels alone. The second goes on from it with LPIPS and a
small PatchGAN, for edges; pretrained.perceptual says where LPIPS is (tools/convert_loss_networks.py). It trains the
decoder alone, so that the denoiser's latents stay what they were and neither run waits for the other. Why f and the
channels are what they are, and what both cost: experiments/own_model/README.md.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ('edges',)


def get_config(arg: str = '') -> ConfigDict:
    config = ConfigDict(
        dict(
            stage=dict(name='first_stage', image_size=64, kl_weight=1e-5, perceptual_weight=0.0),
            models=dict(first_stage=common.small_vae()),
            data=common.emoji64(text=''),
            optimizer=common.small_vae_adam(),
            run=common.run(num_steps=6250, batch_size=16, save_every=250),
            export=dict(dtype='float16'),
        )
    )
    if arg == 'edges':
        config.warm_start = 'experiments/own_model/emoji64_vae'
        config.pretrained = dict(perceptual='models/lpips_vgg')
        config.models.discriminator = dict(name='discriminator', channels=32, num_layers=2)
        config.stage.update(train='decoder', perceptual_weight=0.5, disc_weight=0.3, disc_start=250)
        config.optimizer.lr = 2e-4
        config.run.update(num_steps=1250, save_every=125)
    return config
