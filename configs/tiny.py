"""All three stages in under a minute on two CPU cores, on coloured shapes that need no data file: the wiring, not art.

python tools/train.py --config configs/tiny.py:first_stage --workdir runs/tiny/first_stage
python tools/train.py --config configs/tiny.py:contrastive --workdir runs/tiny/contrastive
python tools/train.py --config configs/tiny.py:latent_diffusion --workdir runs/tiny/latent_diffusion
python tools/sample.py --model runs/tiny/latent_diffusion/model --prompt "a red circle"
"""

from ml_collections import ConfigDict

from configs import common

OPTIMIZER = dict(name='adamw', lr=2e-3, warmup_steps=5, curve=dict(name='cosine'))
STAGES = dict(
    first_stage=dict(
        # The adversary joins halfway. There is no perceptual term, which needs weights.
        stage=dict(name='first_stage', image_size=16, perceptual_weight=0.0, disc_start=30),
        models=dict(
            first_stage=dict(name='vae', channels=8, channel_mult=(1, 1), num_res_blocks=1, num_groups=4),
            discriminator=dict(name='discriminator', channels=8, num_layers=1),
        ),
        optimizer=OPTIMIZER | dict(clip_norm=768.0),  # the loss is a sum of 16 x 16 x 3 numbers
    ),
    contrastive=dict(
        stage=dict(name='contrastive'),
        models=dict(
            text_encoder=dict(
                name='clip_text', context_length=8, width=16, num_layers=1, num_heads=2, projection_width=16
            ),
            image_encoder=dict(
                name='clip_vision',
                image_size=16,
                patch_size=8,
                width=16,
                num_layers=1,
                num_heads=2,
                projection_width=16,
            ),
        ),
        tokenizer=dict(name='clip', context_length=8),
    ),
    latent_diffusion=dict(
        stage=dict(
            name='latent_diffusion',
            latent_size=8,
            objective=dict(parameterization='v', weighting=dict(name='min_snr', gamma=5.0)),
            conditioning=dict(text=dict(drop_rate=0.1)),
            samples=dict(num_steps=4, prompts=('a red circle', 'a blue cross')),
        ),
        models=dict(
            unet=dict(
                name='unet',
                channels=8,
                channel_mult=(1,),
                num_res_blocks=1,
                depth=(1,),
                num_heads=2,
                context_width=16,
                num_groups=4,
            ),
        ),
        pretrained=dict(
            first_stage='runs/tiny/first_stage/model', text_encoder='runs/tiny/contrastive/model'
        ),
        schedule=dict(name='scaled_linear'),
    ),
)
VARIANTS = tuple(STAGES)


def get_config(arg: str = 'first_stage') -> ConfigDict:
    """The config of one stage: first_stage, contrastive or latent_diffusion."""
    return ConfigDict(
        dict(
            dict(optimizer=OPTIMIZER) | STAGES[arg],
            data=dict(name='synthetic', image_size=16),
            run=common.run(
                num_steps=60,
                batch_size=12,
                log_every=20,
                save_every=30,
                ema=dict(main=dict(name='constant', decay=0.99)),
            ),
        )
    )
