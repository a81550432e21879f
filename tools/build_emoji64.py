"""Builds the emoji64 data set: fetches its npm packages, draws them, writes data that any tfds user can read.

    pip install -e '.[train,emoji64]'
    python tools/build_emoji64.py --data_dir data

Needs npm and a network, about 45 MB of packages, 60 MB for the data and two minutes; --packages keeps the archives in
a folder, where they are found without a network. What is built is described in ldm_jax/data/builders/emoji64.py.
"""

import os
import pathlib

from ldm_jax import command_line


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('--data_dir', default='data', help='where the data set goes, in a folder emoji64/')
    parser.add_argument('--packages', help='where the npm archives are, or go; DATA_DIR/npm by default')
    return parser.parse_args()


def main(args):
    from ldm_jax.data.builders.emoji64 import Emoji64

    packages = args.packages or os.path.join(args.data_dir, 'npm')
    pathlib.Path(args.data_dir).mkdir(parents=True, exist_ok=True)
    builder = Emoji64(data_dir=args.data_dir, packages=packages, file_format='array_record')
    builder.download_and_prepare()
    counts = ', '.join(f'{name} {split.num_examples}' for name, split in builder.info.splits.items())
    print(f'{builder.data_path}: {counts}')


if __name__ == '__main__':
    command_line.run(main, parse)
