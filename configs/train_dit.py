"""Diffusion transformers of ImageNet at 256 x 256 on a pod slice, from noise: DiT by default, or SiT.

    python tools/encode_dataset.py --model stabilityai/sd-vae-ft-ema --config my_images.py --views 2 \\
        --out data/imagenet256
    python tools/train.py --config configs/train_dit.py:sit_b2 --workdir gs://bucket/sit_b2
    python tools/aot.py --config configs/train_dit.py --topology v5e-64

Sizes and protocol are the published ones: 256 images an update for 400,000 updates (80 epochs), AdamW at a constant
1e-4 without weight decay, a tenth of the classes left out, an average of decay 0.9999; mirrored images come of two
views of data that are flipped. DiT predicts the noise of 1,000 steps by the mean squared error alone: the original
learns the variance beside it. SiT predicts the velocity at uniform real times, given and signed as in Stable
Diffusion 3: the share of noise in thousandths, eps - x0; the original's network is given the share of the image, and
predicts x0 - eps. Published FID of 50,000 images without guidance: DiT-B/2 43.5, DiT-XL/2 19.5; SiT-B/2 33.0, SiT-
XL/2 17.2 (250 stochastic steps).
Ref: Peebles & Xie 2022, arXiv:2212.09748, section 4; Ma et al. 2024, arXiv:2401.08740, table 2.
"""

from ml_collections import ConfigDict

from configs import common

SIZES = dict(
    s=dict(depth=12, width=384, num_heads=6),
    b=dict(depth=12, width=768, num_heads=12),
    l=dict(depth=24, width=1024, num_heads=16),
    xl=dict(depth=28, width=1152, num_heads=16),
)
VARIANTS = tuple(f'{kind}_{size}{patch}' for kind in ('dit', 'sit') for size in SIZES for patch in (2, 4, 8))


def get_config(arg: str = 'dit_xl2') -> ConfigDict:
    """The config of one of VARIANTS: kind, size and the side of a patch."""
    kind, size = arg.split('_')
    flow = kind == 'sit'
    return ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                latent_size=32,
                objective=dict(parameterization='flow', loss='l2', times=dict(name='uniform', whole=False))
                if flow
                else dict(parameterization='eps', loss='l2'),
                conditioning=dict(class_label=dict(drop_rate=0.1)),
            ),
            models=dict(
                unet=dict(
                    name='dit',
                    patch=int(size[-1]),
                    num_classes=1001,
                    remat=True,
                    dtype='bfloat16',
                    **SIZES[size[:-1]],
                )
            ),
            pretrained=dict(first_stage=dict(model='stabilityai/sd-vae-ft-ema', **common.kl_f8())),
            schedule=dict(name='flow') if flow else dict(name='linear'),
            scaling_factor=0.18215,
            data=dict(name='latents', path='data/imagenet256'),
            optimizer=dict(
                name='adamw', lr=1e-4, weight_decay=0.0, clip_norm=None, warmup_steps=0, curve='constant'
            ),
            run=common.pod_run(num_steps=400_000, batch_size=256),
        )
    )
