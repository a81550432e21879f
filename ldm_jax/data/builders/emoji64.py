"""Seven drawing styles of 1,914 emoji at 64 x 64 pixels, as a data set of tensorflow-datasets.

    python tools/build_emoji64.py --data_dir data

fetches eight npm packages, draws their vectors and writes data/emoji64/, which `tfds.data_source('emoji64',
data_dir='data')` and dict(name='tfds', dataset='emoji64', data_dir='data') read without any code of this package.

Rows and splits are those of emoji64_rows.tsv, one line an emoji, one column a style: t is trained on; p (test_pair) is
held out while other styles of the emoji are trained on; c (test_concept) is an emoji that is held out in every style;
- does not exist. Words and groups are emojibase's, which takes them from Unicode's CLDR.

Three of the styles are one drawing by Microsoft, in depth, in colour and flat. A pair of theirs is held out in name
only where another of the three is trained on: `twin_in_training` says so. Of 642 pairs 320 have no such twin.
"""

from __future__ import annotations

import functools
import importlib.resources
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ldm_jax.data.builders.npm import Archive, Package

SIZE, DRAWN = 64, 256  # pixels of an image, and of the drawing that it is made of by Lanczos' filter
SPLITS = {'t': 'train', 'p': 'test_pair', 'c': 'test_concept'}
WORDS = Package(
    'emojibase-data', '17.0.0',
    '62f81be405a81d588757f82ad6aaf96406ab7018a9f81dbbfd92d1b142646e00'
    '0468b959fdfa1ff60f3cd8b4e9984a728413440b49b6484988b658c7b13ca08c',
)  # fmt: skip
PIXELS = 'fluent-emoji-3d'  # the one style of pixels and not of vectors
PACKAGES = {
    'noto': Package(
        '@iconify-json/noto', '1.2.9',
        '0d08ae5c435bba7e35721f973d2579e47f456962a91d3cb3e3a6082ad49a2980'
        'f87c80c3ccbd6d47a1f89e9fd3dfc8dfad301e237adc285d26a8761e65502e6b',
    ),
    'noto-v1': Package(
        '@iconify-json/noto-v1', '1.2.5',
        'fc3b15322bacebd4347d14b9df3ed02b54d1392b9aafad3a8e2231fa5697b5db'
        '1818c5e97fa2ed1c1c7a0867e8a375071dbfd7a41b30fb52f5c777b23ea32e54',
    ),
    'twemoji': Package(
        '@iconify-json/twemoji', '1.2.5',
        'b8aa6e204574bfa2b9056dcc8ddca5f972855406db70fc408227cabc432d6685'
        '19079f98898e7368c9b6b8d342c725f301653dc8d2e58f8d5653afe6be000bb3',
    ),
    'fluent-emoji': Package(
        '@iconify-json/fluent-emoji', '1.2.7',
        '0fc1ba6ca03222ccb13f5af366d216aff820fdf3b8460d7e0f209695fa8a2b88'
        '7c5bee049bf6343fa4188095104e551c6a0cc9bd2ca0fbd381bf8873e0773f40',
    ),
    'fluent-emoji-flat': Package(
        '@iconify-json/fluent-emoji-flat', '1.2.6',
        '458e3b4603dbe3b7d8522cab03ae2c20e2f4f94534dacdbdb17a4d05b2104415'
        '253e57cd1532949990c4446bb10ecffbc8d196a9062fb9a4983353387d15e553',
    ),
    'emojione': Package(
        '@iconify-json/emojione', '1.2.3',
        '4fdf93dc721b24d2ca2ac9b160a95a621be71d8933fc73584d5ed21c25d564f7'
        'de522e05aac918ef461e37cc980194fc702bfbc39bc9c52e10d66f336fd08c32',
    ),
    PIXELS: Package(
        '@lobehub/fluent-emoji-3d', '1.1.0',
        '5a5ab69554ad4e7afc043a48274a449d328ee0bb83c71a931214ef46d0f50cb4'
        '45d267bba207914232a87a10c75ee549d9069e720979c1106feb4954006de1ee',
    ),
}  # fmt: skip
Draw = Callable[[str, str], np.ndarray]  # (hexcode, caption) -> uint8 [64, 64, 4]

TWINS = ('fluent-emoji', 'fluent-emoji-flat', 'fluent-emoji-3d')
LICENCES = {style: 'Apache-2.0' for style in ('noto', 'noto-v1')} | {style: 'MIT' for style in TWINS}
LICENCES |= {style: 'CC-BY-4.0' for style in ('twemoji', 'emojione')}


class Row(NamedTuple):
    """An image of the list."""

    hexcode: str
    style: str
    split: str
    twin_in_training: bool


@functools.lru_cache(maxsize=1)
def rows() -> tuple[Row, ...]:
    """The list, style by style."""
    text = (importlib.resources.files('ldm_jax.data.builders') / 'emoji64_rows.tsv').read_text('utf-8')
    header, *lines = (line.split('\t') for line in text.splitlines())
    table = {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in lines}
    return tuple(
        Row(hexcode, style, SPLITS[letters[style]], _has_twin(style, letters))
        for style in header[1:]
        for hexcode, letters in table.items()
        if letters[style] in SPLITS
    )


def _has_twin(style: str, letters: Mapping[str, str]) -> bool:
    """Another style of the same drawing is trained on."""
    return style in TWINS and any(letters[other] == 't' for other in TWINS if other != style)


class Emoji64(tfds.core.GeneratorBasedBuilder):
    """Emoji in seven styles with captions, keywords and groups; see ldm_jax/data/builders/emoji64.py."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': '10,899 images; the splits test_pair and test_concept.'}  # noqa: RUF012

    def __init__(self, *, packages: str | None = None, **kwargs: Any):
        """packages: a folder for the npm archives; tfds' download folder by default."""
        self._packages = packages
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(SIZE, SIZE, 4), encoding_format='png'),
                    'caption': text(doc="Unicode's short name: 'red apple'"),
                    'style': text(),
                    'group': text(doc="Unicode's: 'food-drink'"),
                    'subgroup': text(doc="Unicode's: 'food-fruit'"),
                    'keywords': tfds.features.Sequence(text()),
                    'hexcode': text(doc="'1f34e', code points joined by '-'"),
                    'emoji': text(doc='the characters'),
                    'licence': text(),
                    'twin_in_training': np.bool_,
                }
            ),
            supervised_keys=None,
            homepage='https://iconify.design, https://emojibase.dev',
            license='; '.join(f'{style}: {licence}' for style, licence in LICENCES.items()),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = self._packages or str(dl_manager.download_dir)
        known = words(WORDS.fetch(folder))
        archives = {style: package.fetch(folder) for style, package in PACKAGES.items()}
        styles = {style: drawings(style, archives) for style in PACKAGES}
        return {split: self._generate_examples(split, known, styles) for split in SPLITS.values()}

    def _generate_examples(
        self, split: str, known: Mapping[str, Mapping[str, Any]], styles: Mapping[str, Draw]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows():
            if row.split == split:
                texts = known[row.hexcode]
                example = {
                    'image': _png(styles[row.style](row.hexcode, texts['caption'])),
                    'style': row.style,
                    'hexcode': row.hexcode,
                    'licence': LICENCES[row.style],
                    'twin_in_training': row.twin_in_training,
                }
                yield f'{row.style}/{row.hexcode}', example | texts


def words(archive: Archive) -> dict[str, dict[str, Any]]:
    """hexcode -> caption, group, subgroup, keywords and emoji."""
    messages = json.loads(archive.read('en/messages.json'))
    keys = {kind: {one['order']: one['key'] for one in messages[kind]} for kind in ('groups', 'subgroups')}
    return {
        one['hexcode'].lower(): {
            'caption': one['label'],
            'group': keys['groups'].get(one.get('group'), ''),
            'subgroup': keys['subgroups'].get(one.get('subgroup'), ''),
            'keywords': one.get('tags', []),
            'emoji': one['emoji'],
        }
        for one in json.loads(archive.read('en/data.json'))
    }


def drawings(style: str, archives: Mapping[str, Archive]) -> Draw:
    """Makes the function that draws a style's emoji.

    The two kinds of icon sets, those that list the characters of their icons and those that do not, share their icons'
    names: the lists of the others say what an icon is called where a set's own says nothing.
    """
    if style == PIXELS:
        # Some are there with and without variation selectors; the first by name is taken.
        names = sorted(archives[style].files, reverse=True)
        files = {_plain(name.rpartition('/')[2].removesuffix('.webp')): name for name in names}
        return lambda hexcode, caption: _scaled(archives[style].read(files[_plain(hexcode)]))
    icons = json.loads(archives[style].read('icons.json'))
    vectors = [name for name in archives if name not in (PIXELS, style)]
    tables = [_characters(archives[name]) for name in (style, *vectors)]

    def draw(hexcode: str, caption: str) -> np.ndarray:
        called = [table[_plain(hexcode)] for table in tables if _plain(hexcode) in table]
        return _scaled(_drawn(_icon(icons, [*called, _slug(caption)])))

    return draw


def _plain(hexcode: str) -> str:
    """A hexcode without variation selectors, which the packages use in ways of their own."""
    return '-'.join(part for part in hexcode.lower().split('-') if part != 'fe0f')


def _characters(archive: Archive) -> dict[str, str]:
    """hexcode -> name of an icon; empty for some packages."""
    return {_plain(hexcode): name for hexcode, name in json.loads(archive.read('chars.json')).items()}


def _slug(caption: str) -> str:
    letters = unicodedata.normalize('NFKD', caption).encode('ascii', 'ignore').decode().lower()
    return re.sub(r'[^a-z0-9]+', '-', letters).strip('-')


def _icon(icons: Mapping[str, Any], called: Iterable[str]) -> str:
    """The first icon of several names as SVG."""
    aliases = icons.get('aliases', {})
    name = next(name for name in called if name in icons['icons'] or name in aliases)
    icon = icons['icons'][aliases[name]['parent'] if name in aliases else name]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (('left', 0), ('top', 0), ('width', 16), ('height', 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{DRAWN}" height="{DRAWN}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _drawn(svg: str) -> bytes:
    try:
        import resvg_py
    except ImportError:
        raise ImportError("Drawing vectors needs resvg-py: pip install 'ldm_jax[emoji64]'.") from None
    return bytes(resvg_py.svg_to_bytes(svg_string=svg))


def _scaled(data: bytes) -> np.ndarray:
    """An image's file as uint8 [64, 64, 4]."""
    image = Image.open(io.BytesIO(data)).convert('RGBA')
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _png(pixels: np.ndarray) -> io.BytesIO:
    """Encodes pixels in the form that tensorflow-datasets takes without TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG', optimize=True)
    file.seek(0)
    return file
