"""The text encoder of the emoji64 model: a small CLIP pair over 64 x 64 images and their captions.

    python tools/train.py --config configs/emoji64_clip.py --workdir runs/emoji64_clip
    python tools/train.py --config configs/emoji64_clip.py:next --workdir runs/emoji64_clip_next

The second goes on from what the first had learned after 1,874 of its steps, by the file of experiments/own_model.
A caption is the short name or a keyword, with and without article, always with the style: two styles of an emoji are
two images, so a caption without a style would have several right answers in a batch.
"""

from ml_collections import ConfigDict

from configs import common

TEXTS = (
    '{caption}, {style} style',
    'a {caption}, {style} style',
    '{keywords}, {caption}, {style} style',
)
VARIANTS = ('next',)


def get_config(arg: str = '') -> ConfigDict:
    config = ConfigDict(
        dict(
            stage=dict(name='contrastive'),
            models=dict(
                text_encoder=common.small_clip_text(),
                image_encoder=dict(
                    name='clip_vision',
                    image_size=64,
                    patch_size=8,
                    width=128,
                    num_layers=4,
                    num_heads=4,
                    projection_width=128,
                ),
            ),
            tokenizer=dict(name='clip', context_length=24),
            data=common.emoji64(text=TEXTS),
            optimizer=dict(
                lr=1e-3, warmup_steps=200, curve=dict(name='cosine', final_lr=1e-5), weight_decay=0.1
            ),
            run=common.run(num_steps=3000, batch_size=128, save_every=250),
            export=dict(dtype='float16'),
        )
    )
    if arg == 'next':
        config.warm_start = 'experiments/own_model/emoji64_clip'
        config.optimizer.update(lr=4e-4, warmup_steps=50)
        config.run.update(num_steps=1126, seed=1)
    return config
