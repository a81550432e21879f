"""Asks the model for images that it never saw: an emoji it knows, in a style it knows, but not that pair.

    python experiments/emoji32/held_out.py [--model emoji32] [--data data/emoji64.zip] [--out DIR]

For each held-out pair one image is sampled and compared, by mean absolute pixel difference, with the real
images of all held-out pairs. Prints how often the nearest one is the pair that was asked for, and how often
it is among the nearest five; writes real (upper) and sampled (lower) images side by side.
"""

import argparse
import pathlib

GROUPS = ('food-drink', 'animals-nature')


def main(args):
    import numpy as np

    from ldm_jax.data.image_folder import Source
    from ldm_jax.images import contact_sheet, save_png, to_float
    from ldm_jax.inference.opening import open_pipeline
    from ldm_jax.inference.settings import Guidance, Sampling
    from ldm_jax.pipelines.text_to_image import text_to_image

    select = dict(split=('test_pair',), group=GROUPS)
    source = Source(args.data, image_size=32, text='{caption}, {style} style', select=select)
    real = np.stack([to_float(source[i]['image']) for i in range(len(source))])
    sampled = text_to_image(
        open_pipeline(args.model, batch_size=64),
        [source.caption(i) for i in range(len(source))],
        sampling=Sampling('ddim', 'trailing', args.num_steps, guidance=Guidance(args.guidance_scale)),
    )
    distance = np.stack([np.abs(real - one).mean(axis=(1, 2, 3)) for one in sampled])  # [asked for, real]
    rank = (distance < np.diagonal(distance)[:, None]).sum(axis=1)
    n = len(source)
    print(f'{n} held-out pairs: nearest is right {np.mean(rank < 1):.0%} (chance {1 / n:.1%}), '
          f'among five {np.mean(rank < 5):.0%} (chance {5 / n:.1%}); '
          f'mean difference {np.diagonal(distance).mean() / 2:.3f} of the range, '
          f'to another pair {distance[~np.eye(n, dtype=bool)].mean() / 2:.3f}')  # fmt: skip

    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    shown = np.random.default_rng(0).permutation(n)[:16]
    sheet = contact_sheet(np.stack([real[shown], sampled[shown]]))
    save_png(out / 'held_out.png', sheet, {'captions': ' | '.join(map(source.caption, shown))}, scale=2)
    print(out / 'held_out.png')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--model', default='emoji32', help='a shipped model or a directory that training wrote'
    )
    parser.add_argument('--data', default='data/emoji64.zip', help='the emoji pack')
    parser.add_argument('--out', default='samples', help='folder for the image')
    parser.add_argument('--num_steps', type=int, default=30)
    parser.add_argument('--guidance_scale', type=float, default=2.0)
    main(parser.parse_args())
