"""Twenty drawings in a style that emoji32 never saw, to train on, and all others of it to compare with.

    python experiments/lora_style/build.py --out data/contrast

Microsoft's Fluent emoji in high contrast (MIT), black shapes on white, of food and animals, from the npm package
@iconify-json/fluent-emoji-high-contrast; names and groups from emojibase-data.
"""

import argparse
import json
import pathlib

import numpy as np
from PIL import Image

from ldm_jax.data.builders import emoji64
from ldm_jax.data.builders.npm import Package

DRAWINGS = Package(
    '@iconify-json/fluent-emoji-high-contrast', '1.2.6',
    '7acaa164fa64ac5eec357dcdb0ba21f0a5bae28904aff6f3928ed636714ffaa4'
    'c9180a833c3623a74f76e72c6e8af5f2dc7b55401f318482aedfe36ad5bc97e7',
)  # fmt: skip
GROUPS = ('food-drink', 'animals-nature')
TRAINED = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--packages', default='data/packages', help='where the npm archives are, or go')
    args = parser.parse_args()
    icons = json.loads(DRAWINGS.fetch(args.packages).read('icons.json'))
    words = emoji64.words(emoji64.WORDS.fetch(args.packages))
    named = {emoji64._slug(row['caption']): row for row in words.values() if row['group'] in GROUPS}
    drawn = sorted(name for name in named if name in icons['icons'])
    order = [drawn[i] for i in np.random.default_rng(0).permutation(len(drawn))]
    for folder, names in (
        (args.out, order[:TRAINED]),
        (args.out.with_name(args.out.name + '_held_out'), order[TRAINED:]),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for name in names:
            pixels = emoji64._scaled(emoji64._drawn(emoji64._icon(icons, [name])))
            Image.fromarray(pixels).save(folder / f'{name}.png')
            lines.append(json.dumps(dict(file_name=f'{name}.png', caption=named[name]['caption'])))
        (folder / 'metadata.jsonl').write_text('\n'.join(lines) + '\n')
        print(f'{len(names)} drawings in {folder}')


if __name__ == '__main__':
    main()
