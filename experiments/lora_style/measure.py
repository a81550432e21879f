"""How near images with the LoRA and without it are to drawings of the style that nobody trained on.

    python experiments/lora_style/measure.py --data data/contrast_held_out --lora runs/contrast/contrast.safetensors

64 names that are among no training image, one image of each, with the LoRA and without; features are the latents of
the shipped first stage (256 numbers); KID (the unbiased squared MMD of the cubic kernel) to the drawings of other
names, with the 95 % interval of 200 random halves of both sides. Writes before_after.png.
"""

import argparse
import pathlib

import numpy as np


def features(pipeline, images):
    """The latents [N, 256] of images [N, 32, 32, 3] in [-1, 1]."""
    latents = pipeline.encode(images)
    return latents.reshape(len(latents), -1).astype(np.float64)


def distance(made, drawn, resamplings=200):
    """KID and its 95 % interval over random halves of the rows of both."""
    from ldm_jax.evaluation.kid import mmd

    random = np.random.RandomState(0)
    size = min(len(made), len(drawn))
    half = size // 2  # subsets without replacement: the same image twice would be a bias

    def one():
        return mmd(*(rows[random.choice(len(rows), half, replace=False)] for rows in (made, drawn)))

    found = [one() for _ in range(resamplings)]
    return float(np.mean(found)), *np.quantile(found, [0.025, 0.975])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', required=True, help='held-out drawings, as build.py writes them')
    parser.add_argument('--lora', required=True)
    parser.add_argument(
        '--out', type=pathlib.Path, default=pathlib.Path(__file__).parent / 'before_after.png'
    )
    parser.add_argument('--num', type=int, default=64)
    args = parser.parse_args()
    from ldm_jax import images as image_files
    from ldm_jax.data import image_folder
    from ldm_jax.inference.opening import open_pipeline
    from ldm_jax.inference.settings import Guidance, Sampling
    from ldm_jax.pipelines.text_to_image import text_to_image

    source = image_folder.Source(args.data, 32)
    rows = [source[i] for i in range(len(source))]
    names, drawn = [str(row['text']) for row in rows], np.stack([row['image'] for row in rows])
    drawn = drawn.astype(np.float32) / 127.5 - 1
    chosen, others = names[: args.num], drawn[args.num :]
    sampling = Sampling(num_steps=20, guidance=Guidance(scale=2.0))
    base = open_pipeline('emoji32')
    reference = features(base, others)
    made, sheet = {}, [drawn[:8]]
    for name, adapters in (('without', []), ('with', [(args.lora, 1.0)])):
        pipeline = open_pipeline('emoji32', adapters=adapters)
        prompts = [f'a {text}, contrast style' for text in chosen]
        made[name] = text_to_image(pipeline, prompts, seed=list(range(args.num)), sampling=sampling)
        kid, low, high = distance(features(base, made[name]), reference)
        print(f'{name} the LoRA: KID {kid:.3f}, 95 % interval {low:.3f} to {high:.3f}')
        sheet.insert(-1, made[name][:8])
    kid, low, high = distance(features(base, drawn[: args.num]), reference)
    print(f'held-out drawings of the same names: KID {kid:.3f}, {low:.3f} to {high:.3f}')
    whole = np.concatenate([np.concatenate(list(row), axis=1) for row in sheet])
    image_files.save_png(args.out, whole.repeat(3, axis=0).repeat(3, axis=1))


if __name__ == '__main__':
    main()
