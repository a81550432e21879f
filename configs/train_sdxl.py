"""SDXL's U-Net on a pod slice, the last stage of its training: 1024 x 1024 pixels, offset noise, sizes and crops told.

    python tools/encode_dataset.py --model stabilityai/stable-diffusion-xl-base-1.0 --config ... --out data/encoded
    python tools/train.py --config configs/train_sdxl.py --workdir gs://bucket/sdxl
    python tools/aot.py --config configs/train_sdxl.py --topology v5p-128 --batch 4

Images and texts are encoded before, by both text encoders. 2048 images an update, offset noise of 0.05; the paper
does not give the rest, which is as for Stable Diffusion 1. Compute in bfloat16 on float32 parameters, blocks computed
again for the gradient. Parameters, averages and moments are cut over 16 chips, and copies of that share the batch of
larger slices. Ref: Podell et al. 2023, arXiv:2307.01952, section 2.5.
"""

from ml_collections import ConfigDict

from configs import common

MODEL = 'stabilityai/stable-diffusion-xl-base-1.0'


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            stage=dict(
                name='latent_diffusion',
                latent_size=128,
                objective=dict(parameterization='eps', loss='l2', offset_noise=0.05),
                # An encoder's zeros, not its empty text, are what the published model takes for nothing.
                conditioning=dict(text=dict(drop_rate=0.1, null='zeros', pooled=True), sizes=dict()),
            ),
            models=dict(unet=common.sdxl_unet(remat=True, dtype='bfloat16')),
            pretrained=dict(
                first_stage=dict(model=MODEL, **common.kl_f8()),
                text_encoder=dict(
                    model=MODEL, dtype='bfloat16', **common.clip_l_text(output_layer=-2, final_norm=False)
                ),
                text_encoder_2=dict(model=MODEL, dtype='bfloat16', **common.open_clip_bigg_text()),
            ),
            tokenizer=common.clip_tokenizer(pad_id=49407),
            tokenizer_2=common.clip_tokenizer(pad_id=0),
            schedule=common.scaled_linear(0.00085, 0.012),
            scaling_factor=0.13025,
            data=dict(name='latents', path='data/encoded'),
            optimizer=dict(name='adamw', lr=1e-4, weight_decay=0.01, warmup_steps=10_000, curve='constant'),
            run=common.pod_run(num_steps=200_000, batch_size=2048),
        )
    )
