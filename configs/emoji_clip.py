"""The text encoder of the emoji model: a small CLIP pair over 32 x 32 images and their captions.

python tools/train.py --config configs/emoji_clip.py --workdir runs/emoji_clip
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            stage=dict(name='contrastive'),
            models=dict(
                text_encoder=dict(
                    name='clip_text',
                    context_length=24,
                    width=128,
                    num_layers=2,
                    num_heads=4,
                    projection_width=128,
                ),
                image_encoder=dict(
                    name='clip_vision',
                    image_size=32,
                    patch_size=8,
                    width=128,
                    num_layers=3,
                    num_heads=4,
                    projection_width=128,
                ),
            ),
            tokenizer=dict(name='clip', context_length=24),
            data=common.emoji(group=('food-drink', 'animals-nature')),
            optimizer=dict(
                lr=1e-3, warmup_steps=100, curve=dict(name='cosine', final_lr=1e-5), weight_decay=0.1
            ),
            run=common.run(num_steps=1000, batch_size=128, save_every=500),
            export=dict(dtype='float16'),
        )
    )
