"""A plain transformer, or a U-Net of about its size, on the latents of coloured shapes; a minute or two on two cores.

python tools/train.py --config experiments/plain_transformer/config.py:transformer --workdir runs/plain/transformer
python tools/train.py --config experiments/plain_transformer/config.py:unet --workdir runs/plain/unet
python tools/sample.py --model runs/plain/transformer/model --prompt "a red circle"
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = dict(
    transformer=dict(name='experiments.plain_transformer.model'),
    unet=dict(
        name='unet',
        channels=16,
        channel_mult=(1, 2),
        num_res_blocks=1,
        depth=(1, 1),
        head_width=8,
        num_groups=8,
        context_width=64,
    ),
)


def get_config(arg: str = 'transformer') -> ConfigDict:
    """The config of one of VARIANTS."""
    return ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                latent_size=8,
                encode='step',  # the text encoder is trained too
                objective=dict(parameterization='v', weighting=dict(name='min_snr', gamma=5.0)),
                conditioning=dict(text=dict(drop_rate=0.1)),
                samples=dict(num_steps=20, prompts=('a red circle', 'a blue cross')),
            ),
            models=dict(
                unet=dict(VARIANTS[arg]),
                text_encoder=dict(name='clip_text', context_length=8, width=64, num_layers=1, num_heads=4),
            ),
            pretrained=dict(first_stage='emoji32'),
            tokenizer=dict(name='clip', context_length=8),
            schedule=dict(name='scaled_linear'),
            data=dict(name='synthetic', image_size=32),
            optimizer=dict(name='adamw', lr=1e-3, warmup_steps=20, curve='cosine'),
            run=common.run(
                num_steps=200,
                batch_size=12,
                log_every=25,
                save_every=200,
                ema=dict(main=dict(name='constant', decay=0.99)),
            ),
        )
    )
