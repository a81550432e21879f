"""Fine-tunes a model on your own images: a folder with x.txt, its caption, beside each x.png, x.jpg or x.webp.

    python tools/train.py --config configs/finetune.py --workdir runs/mine --config.data.path=my_images
    python tools/sample.py --model runs/mine/model --prompt "a caption like yours"

The shipped model is trained on unless --config.warm_start names another: a model directory, a public file or
owner/name of the Hugging Face hub. Size of the images, tokenizer, schedule and objective are that model's; its U-Net
is trained, all else stays as it is. The variant `words` trains the text encoder too, which teaches a small model words
that it never read (the run warns of them): configs/finetune.py:words. With a model of Stable Diffusion's size:

    python tools/train.py --config configs/finetune.py --workdir runs/mine --config.data.path=my_images \\
        --config.warm_start=stable-diffusion-v1-5/stable-diffusion-v1-5 --config.optimizer.lr=1e-5 \\
        --config.models.unet.dtype=bfloat16 --config.models.unet.remat=true

Captions of a metadata.jsonl or metadata.csv are read as well, and a folder without any takes
--config.data.text="a photo of {folder}", or another text of your own for all images.
"""

from ml_collections import ConfigDict, config_dict

from configs import common

VARIANTS = ('words',)


def get_config(arg: str = '') -> ConfigDict:
    trained = dict(unet=dict(), text_encoder=dict()) if arg == 'words' else dict(unet=dict())
    return ConfigDict(
        dict(
            # Conditioning and objective are the model's.
            stage=dict(name='latent_diffusion', encode='step', samples=dict(count=4)),
            models=trained,
            warm_start='emoji32',
            data=dict(
                name='image_folder',
                path='my_images',
                image_size=config_dict.placeholder(int),  # the model's
                text='{caption}',
            ),
            optimizer=dict(lr=1e-4, warmup_steps=50, curve='constant'),
            run=common.run(
                num_steps=1000,
                batch_size=4,
                save_every=250,
                ema=dict(main=dict(name='constant', decay=0.99)),
            ),
            export=dict(dtype='float16'),
        )
    )
