"""How well the best linear autoencoder reconstructs held-out emoji, by its downscaling f and its channels.

    python experiments/own_model/linear_bound.py --data_dir data

Principal components of f x f patches: a floor for any autoencoder of the same f and channels, found in seconds.
"""

import pathlib

import numpy as np

from ldm_jax import command_line
from ldm_jax.data.tfds import Source

FACTORS, CHANNELS, IMAGES = (4, 8), (4, 8, 12, 16), 2500


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('--data_dir', type=pathlib.Path, default='data', help='where emoji64 was built')
    return parser.parse_args()


def main(args):
    def images(split, count=None):
        source = Source('emoji64', image_size=64, text='', split=split, data_dir=str(args.data_dir))
        numbers = np.random.default_rng(0).permutation(len(source))[:count]
        return np.stack([source[int(i)]['image'] for i in numbers]) / np.float32(255)

    train = images('train', IMAGES)
    held_out = {split: images(split) for split in ('test_pair', 'test_concept')}
    print('| f | channels | numbers |', *(f'PSNR on {split} ({len(x)}) |' for split, x in held_out.items()))
    print('|---|---|---|---|---|')
    for factor in FACTORS:
        mean, axes = components(patches(train, factor))
        for channels in CHANNELS:
            kept = axes[:, :channels]
            found = [psnr(patches(x, factor), mean, kept) for x in held_out.values()]
            print(
                f'| {factor} | {channels} | {channels * (64 // factor) ** 2} |',
                *(f'{x:.1f} dB |' for x in found),
            )


def patches(images, factor):
    """[N, 64, 64, 3] -> [N, patches, factor * factor * 3]."""
    n, side = len(images), 64 // factor
    cut = images.reshape(n, side, factor, side, factor, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(n, side * side, factor * factor * 3)


def components(cut):
    """The mean of patches, and their principal axes as columns, the strongest first."""
    flat = cut.reshape(-1, cut.shape[-1])[::4]
    mean = flat.mean(axis=0)
    return mean, np.linalg.eigh(np.cov((flat - mean).T))[1][:, ::-1]


def psnr(cut, mean, axes):
    """The mean over images of the PSNR in dB that the axes reach."""
    rebuilt = np.clip((cut - mean) @ axes @ axes.T + mean, 0, 1)
    return float(np.mean(-10 * np.log10(((rebuilt - cut) ** 2).mean(axis=(1, 2)))))


if __name__ == '__main__':
    command_line.run(main, parse)
