"""Stable Diffusion 1 on a pod slice, from noise or from another Stable Diffusion, as its model card tells of it.

    python tools/encode_dataset.py --model stable-diffusion-v1-5/stable-diffusion-v1-5 --config ... --out data/encoded
    python tools/train.py --config configs/train_sd15.py --workdir gs://bucket/sd15
    python tools/aot.py --config configs/train_sd15.py --topology v5e-256 --batch 8

Images and texts are encoded before. 2048 images an update, AdamW, 1e-4 after 10,000 steps of warm-up, a tenth of
the texts left out, an average of decay 0.9999; compute in bfloat16 on float32 parameters, blocks computed again for the
gradient. Parameters, averages and moments are cut over 16 chips, and copies of that share the batch of larger slices.
Ref: Rombach et al. 2022, arXiv:2112.10752; the model card of stable-diffusion-v1-5 ("Training").
"""

from ml_collections import ConfigDict

from configs import common

MODEL = 'stable-diffusion-v1-5/stable-diffusion-v1-5'


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                latent_size=64,
                objective=dict(parameterization='eps', loss='l2'),
                conditioning=dict(text=dict(drop_rate=0.1)),
            ),
            models=dict(unet=common.sd1_unet(remat=True, dtype='bfloat16')),
            pretrained=dict(
                first_stage=dict(model=MODEL, **common.kl_f8()),
                text_encoder=dict(model=MODEL, dtype='bfloat16', **common.clip_l_text()),
            ),
            tokenizer=common.clip_tokenizer(pad_id=49407),
            schedule=common.scaled_linear(0.00085, 0.012),
            scaling_factor=0.18215,
            data=dict(name='latents', path='data/encoded'),
            optimizer=dict(name='adamw', lr=1e-4, weight_decay=0.01, warmup_steps=10_000, curve='constant'),
            run=common.pod_run(num_steps=595_000, batch_size=2048),
        )
    )
