"""Builds the emoji64 data set: fetches its npm packages, draws them, writes data that any tfds user can read.

    pip install -e '.[train,emoji64]'
    python tools/build_emoji64.py --data_dir data

Needs npm and a network, about 45 MB of packages, 60 MB for the data and two minutes; --packages keeps the archives in
a folder, where they are found without a network. What is built is described in ldm_jax/data/builders/emoji64.py.
"""

import os
import pathlib

from absl import app, flags

DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where the data set goes, in a folder emoji64/.')
PACKAGES = flags.DEFINE_string(
    'packages', None, 'Where the npm archives are, or go; DATA_DIR/npm by default.'
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'No positional arguments are taken; got {argv[1:]}.')
    from ldm_jax.data.builders.emoji64 import Emoji64

    packages = PACKAGES.value or os.path.join(DATA_DIR.value, 'npm')
    pathlib.Path(DATA_DIR.value).mkdir(parents=True, exist_ok=True)
    builder = Emoji64(data_dir=DATA_DIR.value, packages=packages, file_format='array_record')
    builder.download_and_prepare()
    counts = ', '.join(f'{name} {split.num_examples}' for name, split in builder.info.splits.items())
    print(f'{builder.data_path}: {counts}')


if __name__ == '__main__':
    app.run(main)
