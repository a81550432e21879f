"""Two figures of a model trained on emoji64, whose prompts a rule chooses and whose seeds are fixed.

    python experiments/own_model/figures.py --model emoji32 --data_dir data --out figures

sheet.png: prompts down, styles across, all by one seed. Emoji are those in all seven styles of which a pair is held out
without a twin in training, evenly spaced in the order of their code points; such pairs are framed.

tasks.png, of the sheet's emoji in turn: a row on which noise becomes an image, one from an image by more and more
strength, one of an image with its right half made anew for other prompts, and one from prompt to prompt.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax import command_line

SEED, COUNT, COLUMNS = 0, 8, 7
FRAME = (220, 30, 60)
Draw = Callable[[Sequence[str]], np.ndarray]  # prompts -> images [B, H, W, 3] in [-1, 1]


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    add = parser.add_argument
    add('--model', default='emoji32', help='a shipped model or a directory that training wrote')
    add('--data_dir', default='data', help='where emoji64 was built')
    add('--out', required=True, type=pathlib.Path, help='a folder')
    add('--num_steps', type=int, default=30)
    return parser.parse_args()


def main(args):
    import ldm_jax
    from ldm_jax.data.builders import emoji64

    captions = read_captions(args.data_dir)
    emoji = chosen(emoji64.rows(), COUNT)
    held_out = {(row.hexcode, row.style) for row in emoji64.rows() if is_held_out(row)}
    pipeline = ldm_jax.open(args.model, batch_size=32)
    sampling = ldm_jax.Sampling(num_steps=args.num_steps)
    draw = functools.partial(ldm_jax.text_to_image, pipeline, sampling=sampling)
    args.out.mkdir(parents=True, exist_ok=True)
    styles = tuple(emoji64.PACKAGES)
    text = {'rows': ' | '.join(captions[one] for one in emoji), 'columns': ' | '.join(styles)}
    figures = {
        'sheet': (sheet(lambda prompts: draw(prompts, seed=[SEED] * len(prompts)), emoji, styles, captions, held_out),
                  text),
        'tasks': (tasks(pipeline, sampling, [f'{captions[one]}, {styles[0]} style' for one in emoji]), {}),
    }  # fmt: skip
    for name, (image, text) in figures.items():
        ldm_jax.save_png(args.out / f'{name}.png', image, text)
        print(args.out / f'{name}.png')


def is_held_out(row: Any) -> bool:
    """The pair was not trained on, nor the same drawing in another finish."""
    return row.split == 'test_pair' and not row.twin_in_training


def chosen(rows: Iterable[Any], count: int) -> list[str]:
    """Code points of so many emoji by the rule above. Raises ValueError for fewer that fulfil it."""
    styles: dict[str, set[str]] = {}
    rows = list(rows)
    for row in rows:
        styles.setdefault(row.hexcode, set()).add(row.style)
    every = max(map(len, styles.values()))
    fit = sorted({row.hexcode for row in rows if is_held_out(row) and len(styles[row.hexcode]) == every})
    if len(fit) < count:
        raise ValueError(f'{len(fit)} emoji are in all styles with a pair held out; {count} were asked for.')
    return [fit[i * len(fit) // count] for i in range(count)]


def sheet(
    draw: Draw,
    emoji: Sequence[str],
    styles: Sequence[str],
    captions: Mapping[str, str],
    held_out: set[tuple[str, str]],
) -> np.ndarray:
    """Emoji down and styles across, pairs of `held_out` in a frame: uint8 [H, W, 3]."""
    from ldm_jax import images

    made = images.to_uint8(draw([f'{captions[one]}, {style} style' for one in emoji for style in styles]))
    made = images.enlarged(made, 2)
    framed = np.pad(made, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=255)
    pairs = [(one, style) for one in emoji for style in styles]
    for number, pair in enumerate(pairs):
        if pair in held_out:
            inner = framed[number, 3:-3, 3:-3].copy()
            framed[number] = FRAME
            framed[number, 3:-3, 3:-3] = inner
    return images.contact_sheet(framed.reshape(len(emoji), len(styles), *framed.shape[1:]))


def tasks(pipeline: Any, sampling: Any, prompts: Sequence[str]) -> np.ndarray:
    """The second figure, COLUMNS images wide: uint8 [H, W, 3]."""
    import ldm_jax
    from ldm_jax import images

    trajectory: list[np.ndarray] = []
    with ldm_jax.watched(lambda step: trajectory.append(step.decode(step.x0())[0])):
        first = ldm_jax.text_to_image(pipeline, prompts[0], seed=SEED, sampling=sampling)
    shown = np.linspace(0, len(trajectory) - 1, COLUMNS).round().astype(int)
    repeated = np.repeat(first, COLUMNS - 1, axis=0)
    strengths = np.linspace(0.3, 0.9, COLUMNS - 1)
    varied = [
        ldm_jax.image_to_image(pipeline, prompts[1], first, strength=float(s), seed=SEED, sampling=sampling)
        for s in strengths
    ]
    mask = np.zeros((COLUMNS - 1, *first.shape[1:3], 1), np.float32)
    mask[:, :, first.shape[2] // 2 :] = 1
    others = [prompts[1 + i % (len(prompts) - 1)] for i in range(COLUMNS - 1)]
    filled = ldm_jax.inpaint(pipeline, others, repeated, mask, blur=0, seed=SEED, sampling=sampling)
    way = ldm_jax.interpolate(
        pipeline, prompts[2:4], shares=np.linspace(0, 1, COLUMNS).tolist(), seed=SEED, sampling=sampling
    )
    rows = [
        np.stack([trajectory[i] for i in shown]),
        np.concatenate([first, *varied]),
        np.concatenate([first, filled]),
        way,
    ]
    return images.enlarged(images.contact_sheet(images.to_uint8(np.stack(rows)), border=2), 2)


def read_captions(data_dir: str) -> dict[str, str]:
    """Code points -> short name, of every emoji of the data set."""
    from ldm_jax.data.tfds import Source

    found = {}
    for split in ('train', 'test_pair', 'test_concept'):
        source = Source('emoji64', text='{hexcode}\t{caption}', split=split, data_dir=str(data_dir))
        found |= dict(source.caption(i).split('\t') for i in range(len(source)))
    return found


if __name__ == '__main__':
    command_line.run(main, parse)
