"""experiments/own_model/figures.py: which prompts are shown, and which of them are framed."""

import numpy as np
import pytest

from experiments.own_model import figures
from ldm_jax.data.builders.emoji64 import PACKAGES, Row, rows

STYLES = tuple(PACKAGES)


def test_emoji_are_chosen_by_the_rule():
    emoji = figures.chosen(rows(), 8)
    assert emoji == sorted(set(emoji))
    for one in emoji:
        own = [row for row in rows() if row.hexcode == one]
        assert {row.style for row in own} == set(STYLES)
        assert any(row.split == 'test_pair' and not row.twin_in_training for row in own)
    few = [Row('1f34e', 'a', 'train', False), Row('1f34e', 'b', 'test_pair', False)]
    assert figures.chosen(few, 1) == ['1f34e']
    with pytest.raises(ValueError, match='1 emoji are in all styles'):
        figures.chosen(few, 2)


def test_a_sheet_has_prompts_down_styles_across_and_frames_around_held_out_pairs():
    asked = []

    def draw(prompts):
        asked.extend(prompts)
        return np.stack([np.full((4, 4, 3), i / 10) for i in range(len(prompts))])

    made = figures.sheet(draw, ['x', 'y'], ['a', 'b', 'c'], {'x': 'cat', 'y': 'dog'}, {('y', 'b')})
    assert asked[:4] == ['cat, a style', 'cat, b style', 'cat, c style', 'dog, a style']
    assert made.dtype == np.uint8
    side = 2 * 4 + 2 * 3 + 1  # enlarged, framed, a border between
    is_frame = (made == figures.FRAME).all(-1)
    assert is_frame[side : 2 * side - 1, side : 2 * side - 1].sum() == 14**2 - 8**2
    assert is_frame.sum() == 14**2 - 8**2
    centres = made[7::side, 7::side, 0]
    np.testing.assert_array_equal(centres.ravel(), np.round((np.arange(6) / 10 + 1) * 127.5))
