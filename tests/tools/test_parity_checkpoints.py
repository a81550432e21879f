"""The comparison of whole checkpoints, on narrow ones."""

import importlib
from pathlib import Path

import pytest

from tests.checkpoints import single_files

TOOLS = Path(__file__).parents[2] / 'tools'
ROWS = {
    'sd2_v': ['unet: output', 'first_stage: decoded', 'first_stage: moments', 'text_encoder: context'],
    'sdxl': [
        'unet: output',
        'first_stage: decoded',
        'first_stage: moments',
        'text_encoder: context',
        'text_encoder_2: context',
        'text_encoder_2: projected',
    ],
}


def narrow(name):
    """Settings of few narrow blocks, but with all words."""
    settings = single_files.narrow(name)
    for part, spec in settings['models'].items():
        if part.startswith('text_encoder'):
            spec |= dict(vocab_size=49408, context_length=77)
    if 'text_encoder_2' in settings['models']:  # by whose width diffusers tells the two apart
        settings['models']['text_encoder_2'] |= dict(width=128, num_heads=2)
        settings['models']['unet'] |= dict(context_width=64 + 128, vector_width=64 + 6 * 4)
    return settings | dict(latent_size=8)


def here(function, *args, **kwargs):
    return function(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize('name', ROWS)
def test_every_output_of_every_layout_is_compared(name, tmp_path, monkeypatch):
    for package in ('torch', 'diffusers', 'transformers'):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module('parity_checkpoints')
    *rows, last = tool.rows(narrow(name), tmp_path, here)
    assert [row[:2] for row in rows] == [
        (layout, output) for layout in ('diffusers folder', 'single file') for output in ROWS[name]
    ]
    assert all(float(row[2]) < 1e-4 for row in rows)
    assert last[0] == 'single file, read by diffusers'
