"""experiments/own_model/tour.ipynb runs from top to bottom."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

FILE = pathlib.Path(__file__).parent.parent.parent / 'experiments' / 'own_model' / 'tour.ipynb'


def cells(kind):
    notebook = json.loads(FILE.read_text())
    assert notebook['nbformat'] == 4
    return [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == kind]


def test_every_cell_is_python_and_none_keeps_outputs():
    for number, source in enumerate(cells('code')):
        compile(source, f'tour[{number}]', 'exec')
    notebook = json.loads(FILE.read_text())
    assert not any(cell.get('outputs') for cell in notebook['cells'])


@pytest.mark.slow
def test_the_tour_runs_from_top_to_bottom(monkeypatch):
    monkeypatch.chdir(FILE.parent)
    namespace = {}
    for number, source in enumerate(cells('code')):
        exec(compile(source, f'tour[{number}]', 'exec'), namespace)
    steps = np.stack(namespace['steps'])
    assert len(steps) == 20
    moved = np.abs(np.diff(steps, axis=0)).mean(axis=(1, 2, 3))
    assert moved[-1] == moved.min() > 0  # where it heads for is settled last of all
    assert isinstance(namespace['show'](steps), Image.Image)
    assert (namespace['folder'] / 'run' / 'model' / 'settings.json').is_file()
