"""Makes held-out photographs small, as in training, and large again: by the model, and by bicubic interpolation.

    python experiments/grocery_sr/evaluate.py --model runs/grocery_sr/model --data grocery96.zip \\
        --lpips models/lpips_alex [--split test] [--num_images 100] [--num_steps 10] [--out DIR]

Prints LPIPS (AlexNet) and PSNR against the photographs, with 95 % intervals of the mean and of the paired difference,
by the bootstrap over images; writes rows of small, bicubic, sampled and real images.
"""

import argparse
import pathlib


def main(args):
    import jax
    import numpy as np

    from ldm_jax.checkpoints import loading
    from ldm_jax.data.degraded import Source as Degraded
    from ldm_jax.data.image_folder import Source
    from ldm_jax.images import contact_sheet, save_png, to_float
    from ldm_jax.inference.opening import open_pipeline
    from ldm_jax.inference.settings import Sampling
    from ldm_jax.pipelines.super_resolution import super_resolution

    photographs = Source(args.data, text='', select=dict(split=(args.split,)))
    source, rng = Degraded(photographs), np.random.default_rng(0)
    chosen = [source[int(i)] for i in rng.choice(len(source), args.num_images, replace=False)]
    real = np.stack([to_float(example['image']) for example in chosen])
    small = np.stack([to_float(example['small']) for example in chosen])
    sampling = Sampling(args.sampler, num_steps=args.num_steps)
    made = {
        'bicubic': np.clip(jax.image.resize(small, real.shape, 'bicubic'), -1, 1),
        'model': super_resolution(open_pipeline(args.model, batch_size=10), small, sampling=sampling),
    }
    loaded = loading.load(args.lpips, ['perceptual'])
    network = loaded.parts['perceptual']
    distance = jax.jit(lambda x, y: network.apply({'params': loaded.params['perceptual']}, x, y))
    scores = {
        name: {
            'LPIPS': np.concatenate([distance(x[None], y[None]) for x, y in zip(images, real, strict=True)]),
            'PSNR': -10 * np.log10(np.mean(((images - real) / 2) ** 2, axis=(1, 2, 3))),
        }
        for name, images in made.items()
    }
    draws = rng.integers(0, args.num_images, (10_000, args.num_images))

    def interval(values):
        low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
        return f'{values.mean():.4f} [{low:.4f}, {high:.4f}]'

    for metric in ('LPIPS', 'PSNR'):
        for name in made:
            print(f'{metric} {name}: {interval(scores[name][metric])}')
        print(f'{metric} model - bicubic: {interval(scores["model"][metric] - scores["bicubic"][metric])}')
    nearest = small.repeat(4, axis=1).repeat(4, axis=2)
    rows = np.stack([nearest, made['bicubic'], made['model'], real])[:, :8]
    args.out.mkdir(parents=True, exist_ok=True)
    save_png(args.out / 'samples.png', contact_sheet(rows))


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', default='runs/grocery_sr/model')
    parser.add_argument('--data', default='data/grocery96.zip')
    parser.add_argument('--lpips', default='models/lpips_alex')
    parser.add_argument('--split', default='test')
    parser.add_argument('--num_images', type=int, default=100)
    parser.add_argument('--num_steps', type=int, default=10)
    parser.add_argument('--sampler', default='dpmpp_2m')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('samples'))
    return parser.parse_args()


if __name__ == '__main__':
    main(parse())
