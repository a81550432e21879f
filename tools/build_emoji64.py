"""Builds the emoji64 data set: fetches its npm packages, draws them, writes data that any tfds user can read.

    pip install -e ".[train,emoji64]"
    python tools/build_emoji64.py --data_dir data

Needs npm and a network, 45 MB of packages, 50 MB for the data and about three minutes. The packages stay in a folder,
where they are found again without a network. ldm_jax/data/builders/emoji64.py says what the data set holds.
"""

import pathlib

from ldm_jax import command_line


def parse():
    parser = command_line.Parser(__doc__)
    add = parser.add_argument
    add('--data_dir', type=pathlib.Path, default='data', help='where the data set goes, in a folder emoji64/')
    add('--packages', type=pathlib.Path, help='where the npm packages are, or go; DATA_DIR/npm by default')
    return parser.parse_args()


def main(args):
    from ldm_jax.data.builders.emoji64 import Emoji64

    args.data_dir.mkdir(parents=True, exist_ok=True)
    packages = args.packages or args.data_dir / 'npm'
    builder = Emoji64(data_dir=args.data_dir, packages=str(packages), file_format='array_record')
    builder.download_and_prepare()
    counts = ', '.join(f'{name} {split.num_examples}' for name, split in builder.info.splits.items())
    print(f'{builder.data_path}: {counts}')


if __name__ == '__main__':
    command_line.run(main, parse)
