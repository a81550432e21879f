"""Sheets of images: every image whole, its prompt and seed written above it."""

import numpy as np
import pytest
from PIL import ImageFont

from ldm_jax import sheet

RNG = np.random.default_rng(0)


def rows(count, columns, height=96, width=128):
    return RNG.integers(0, 200, (count, columns, height, width, 3), np.uint8)  # never white, as the paper is


def places(found, image):
    """The (top, left) corners at which an image lies in a sheet."""
    h, w = image.shape[:2]
    tops, lefts = np.nonzero((found[: len(found) - h + 1, : found.shape[1] - w + 1] == image[0, 0]).all(-1))
    return [(y, x) for y, x in zip(tops, lefts, strict=True) if (found[y : y + h, x : x + w] == image).all()]


def without_images(found, images):
    """The sheet with its images painted white, so that labels alone are left."""
    found = found.copy()
    for image in images.reshape(-1, *images.shape[2:]):
        ((y, x),) = places(found, image)
        found[y : y + image.shape[0], x : x + image.shape[1]] = 255
    return found


@pytest.mark.parametrize('size', [(96, 128), (16, 16), (300, 512)])
def test_a_row_for_each_prompt_and_a_column_for_each_seed(size):
    images = rows(2, 3, *size)
    found = sheet.labelled_sheet(images, ['a red apple', 'a cat'], ['seed 1', 'seed 2', 'seed 3'])
    corners = [[places(found, image)[0] for image in row] for row in images]
    assert all(len({y for y, _ in row}) == 1 for row in corners)
    assert [x for _, x in corners[0]] == [x for _, x in corners[1]]
    assert corners[0][0][0] < corners[1][0][0]


@pytest.mark.parametrize(('count', 'side'), [(6, 6), (7, 3), (16, 4)])
def test_many_images_of_one_prompt_stand_in_a_square(count, side):
    images = rows(1, count, 16, 100)
    found = sheet.labelled_sheet(images, ['a'], [f'seed {i}' for i in range(count)])
    corners = [places(found, image)[0] for image in images[0]]
    assert len({x for _, x in corners}) == side
    assert corners == sorted(corners)


def test_every_prompt_and_seed_is_written_where_its_images_are():
    images, prompts, seeds = rows(2, 2), ['a red apple', 'a cat'], ['seed 1', 'seed 2']

    def labels(prompts, seeds):
        return without_images(sheet.labelled_sheet(images, prompts, seeds), images)

    full = labels(prompts, seeds)
    first, second = (places(sheet.labelled_sheet(images, prompts, seeds), row[0])[0][0] for row in images)
    for changed, (low, high) in {
        'a red pear': (0, first),
        'a dog': (first, second),
    }.items():
        others = [changed if low == 0 else prompts[0], changed if low else prompts[1]]
        differing = np.flatnonzero((labels(others, seeds) != full).any((1, 2)))
        assert len(differing)
        assert low <= differing.min()
        assert differing.max() < high
    differing = np.nonzero((labels(prompts, ['seed 1', 'seed 7']) != full).any(-1))
    assert differing[0].max() < first
    assert differing[1].min() >= places(sheet.labelled_sheet(images, prompts, seeds), images[0, 1])[0][1]
    assert (labels(['', ''], ['', '']) == 255).all()


@pytest.mark.parametrize(
    'text', ['', 'a', 'one two three ' * 20, 'x' * 500, 'a\nb\tc', '猫 猫', 'a' * 20 + ' b ' + 'c' * 300]
)
@pytest.mark.parametrize('width', [30, 100, 1000])
def test_prompts_are_wrapped_to_the_width_and_cut_with_a_mark(text, width):
    font = ImageFont.load_default(12)
    lines = sheet.wrapped(text, font, width)
    assert all(font.getlength(line) <= width for line in lines)
    assert len(lines) <= sheet.LINES
    joined = ''.join(lines).replace(' ', '')
    whole = ''.join(text.split())
    assert joined == whole or (joined.endswith('...') and whole.startswith(joined[:-3]))
    if all(font.getlength(word) <= width / 2 for word in text.split()):  # none is cut where each has room
        assert set(' '.join(lines).removesuffix(sheet.MORE).split()) <= set(text.split())


def test_letters_that_the_font_lacks_are_named_and_have_escapes():
    font = ImageFont.load_default(12)
    assert sheet.legible('a café', font) == 'a cafe'
    with pytest.warns(
        UserWarning, match=r"no '苹果': .* such as \\u82f9\. The text of each image has the prompt whole"
    ):
        assert sheet.legible('a 苹果 pie', font) == r'a \u82f9\u679c pie'
