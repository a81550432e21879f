"""How well a first stage reconstructs held-out emoji, as of the newest checkpoint of its run.

    python experiments/own_model/reconstruction.py --workdir runs/emoji64_vae --data_dir data [--strip strip.png]

PSNR of each image on white, the mean over a split with its 95 % interval. The strip shows every 80th image of
test_pair above what becomes of it.
"""

import functools
import pathlib

import numpy as np

from ldm_jax import command_line
from ldm_jax.data.tfds import Source

BATCH, EVERY, AVERAGE = 32, 80, 'ema/main/first_stage/'


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    add = parser.add_argument
    add('--workdir', required=True, type=pathlib.Path, help='the workdir of a first stage')
    add('--data_dir', type=pathlib.Path, default='data', help='where emoji64 was built')
    add('--strip', type=pathlib.Path, help='a PNG to write')
    return parser.parse_args()


def main(args):
    from ldm_jax import images

    step, rebuild = first_stage(args.workdir)
    for split in ('test_pair', 'test_concept'):
        source = Source('emoji64', image_size=64, text='', split=split, data_dir=str(args.data_dir))
        real = np.stack([source[i]['image'] for i in range(len(source))])
        made = rebuild(real)
        mean, half = interval(psnr(real, made))
        print(f'step {step}, {split}, {len(real)} images: PSNR {mean:.2f} +- {half:.2f} dB', flush=True)
        if args.strip and split == 'test_pair':
            rows = np.stack([real[::EVERY], made[::EVERY]])
            images.save_png(args.strip, images.contact_sheet(rows), scale=2)


def first_stage(workdir):
    """(step, uint8 images [N, 64, 64, 3] -> their reconstructions) of a run's moving average."""
    import jax
    from flax import traverse_util

    from ldm_jax import build, images
    from ldm_jax.training.saving import resume_check, stored_steps

    network = build.parts(resume_check.read(workdir))['first_stage']
    folder = workdir / 'checkpoints'
    steps = stored_steps.listed(folder)
    if not steps:
        raise ValueError(f'{workdir} has no checkpoint yet.')
    leaves = stored_steps.read_some(folder / str(steps[-1]), lambda name: name.startswith(AVERAGE))
    params = traverse_util.unflatten_dict(
        {name.removeprefix(AVERAGE): leaf for name, leaf in leaves.items()}, sep='/'
    )
    call = jax.jit(functools.partial(network.apply, {'params': params}))

    def rebuild(pixels):
        parts = [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]
        return np.concatenate([images.to_uint8(call(images.to_float(part))[0]) for part in parts])

    return steps[-1], rebuild


def psnr(real, made):
    """PSNR of each image, in dB."""
    error = np.square(real.astype(np.float64) - made).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def interval(values):
    """The mean, and half of its 95 % interval."""
    return values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(len(values))


if __name__ == '__main__':
    command_line.run(main, parse)
