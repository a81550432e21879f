"""A sheet of several images: a row for each prompt, which stands above it, and above each image its seed."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDE = 6  # images of one prompt that stand side by side; more are put in rows of their own
BORDER = 4  # pixels around images and texts
LINES = 3  # of a prompt that are written out
SIZES = (11, 20)  # of letters, the least and the most; between them they grow with the images
MORE = ' ...'


def labelled_sheet(rows: Sequence[np.ndarray], prompts: Sequence[str], seeds: Sequence[str]) -> np.ndarray:
    """Images and their labels as one image [H', W', 3], uint8.

    Args:
        rows: for each prompt its images [C, H, W, 3], uint8.
        prompts: of each row; '' writes nothing.
        seeds: of each of the C columns, as they are to be written.
    """
    if len(rows) == 1 and len(seeds) > WIDE:
        side = math.ceil(math.sqrt(len(seeds)))
        starts = range(0, len(seeds), side)
        parts = [(rows[0][i : i + side], '' if i else prompts[0], tuple(seeds[i : i + side])) for i in starts]
    else:
        parts = [(row, text, tuple(seeds)) for row, text in zip(rows, prompts, strict=True)]
    height, width = rows[0].shape[1:3]
    font = ImageFont.load_default(int(np.clip(width / 16, *SIZES)))
    parts = [(row, legible(text, font), captions) for row, text, captions in parts]
    line = sum(font.getmetrics())
    cell = max(width, *(math.ceil(font.getlength(text)) for text in seeds)) + BORDER
    full = cell * max(len(row) for row, _, _ in parts) - BORDER

    placed, top, above = [], 0, None
    for row, text, captions in parts:
        lines = wrapped(text, font, full)
        labels = [(0, top + i * line, words) for i, words in enumerate(lines)]
        top += len(lines) * line
        if captions != above:  # under the same seeds they need not be written again
            labels += [(column * cell, top, words) for column, words in enumerate(captions)]
            top, above = top + line, captions
        placed.append((row, labels, top + BORDER))
        top += height + 2 * BORDER

    sheet = Image.new('RGB', (full, top - BORDER), 'white')
    draw = ImageDraw.Draw(sheet)
    for row, labels, y in placed:
        for left, above, words in labels:
            draw.text((left, above), words, 'black', font)
        for column, image in enumerate(row):
            sheet.paste(Image.fromarray(image), (column * cell, y))
    return np.asarray(sheet)


def legible(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text for a font that may lack letters, which would all be the same box: 'é' as 'e', '苹' as an escape.

    Warns of escapes: Pillow's font, the one at hand everywhere, has little beyond ASCII.
    """
    box = _drawn('\U0010fffe', font)  # no letter at all
    lacking = {letter: '' for letter in text if ord(letter) > 0x7E and _drawn(letter, font) == box}
    for letter in lacking:
        lacking[letter] = unicodedata.normalize('NFKD', letter).encode('ascii', 'ignore').decode()
    if escaped := [letter for letter, plain in lacking.items() if not plain]:
        lacking |= {letter: letter.encode('unicode_escape').decode() for letter in escaped}
        warnings.warn(
            f"The sheet's font has no {''.join(escaped)!r}: its labels have escapes for them, such as "
            f'{lacking[escaped[0]]}. The text of each image has the prompt whole.',
            stacklevel=3,
        )
    return ''.join(lacking.get(letter, letter) for letter in text)


def _drawn(letter: str, font: ImageFont.FreeTypeFont) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A text in lines no wider than so many pixels, at most LINES of them; a text that is cut ends in MORE."""
    lines: list[str] = []
    for word in text.split():
        pieces = [word] if font.getlength(word) <= width else list(word)
        for i, piece in enumerate(pieces):
            longer = f'{lines[-1]}{"" if i else " "}{piece}' if lines else piece
            if lines and font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
    if len(lines) <= LINES:
        return lines
    last = lines[LINES - 1]
    while last and font.getlength(last + MORE) > width:
        last = last.rpartition(' ')[0] or last[:-1]  # whole words, unless one alone is too long
    return [*lines[: LINES - 1], last + MORE]
