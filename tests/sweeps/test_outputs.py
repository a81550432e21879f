"""What a sweep leaves: CSV, Markdown, plots, image grids, and a page that a browser shows."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from ldm_jax.sweeps import definition, outputs, tables
from ldm_jax.sweeps.results import Result, Results
from tests import browser

RANDOM = np.random.default_rng(0)


class Kind:
    """Cells with scores that fall with the number of evaluations, and images."""

    cost = ('evaluations', 'seconds')

    def check(self, settings):
        pass

    def identity(self, settings):
        return {}


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """(rows, folder) of a sweep whose last cell failed."""
    results = Results(tmp_path_factory.mktemp('out'))
    vary = dict(sampler=['heun', 'ddim'], grid=['karras', 'trailing'], evaluations=[2, 10], seed=[0, 1])
    config = dict(title='which <sampler>?', cells={}, vary=vary)
    cells = tuple(definition.Cell(each, f'key{i}') for i, each in enumerate(definition.settings(config)))
    sweep = definition.Sweep(config['title'], Kind(), cells, tuple(vary), config)
    noise = RANDOM.standard_normal(30)
    for cell in cells[:-2]:
        count, slow = cell.settings['evaluations'], cell.settings['sampler'] == 'ddim'
        arrays = {
            'scores/error': (1 + slow) / count + 0.01 * noise,
            'images': RANDOM.integers(0, 255, (3, 8, 8, 3)).astype(np.uint8),
        }
        results.write(cell, Result({'evaluations': count, 'seconds': 0.1 * count}, arrays))
    for cell in cells[-2:]:
        results.fail(cell, RuntimeError('out of <memory>'))
    return outputs.write(sweep, results, 'python tools/sweep.py x.py'), results.folder


def test_the_tables_hold_each_number_with_its_interval(written):
    rows, folder = written
    assert len(rows) == 7
    lines = list(csv.DictReader(io.StringIO((folder / outputs.CSV).read_text())))
    assert len(lines) == 7
    assert lines[0]['sampler'] == 'heun'
    assert lines[0]['evaluations_count'] == '2'
    for row, line in zip(rows, lines, strict=True):
        estimate = row.numbers['error']
        assert float(line['error_low']) < float(line['error']) < float(line['error_high'])
        np.testing.assert_allclose(float(line['error']), estimate.value, rtol=1e-4)
        assert line['error_count'] == '60'
    text = (folder / outputs.MARKDOWN).read_text()
    assert tables.shown(rows[0].numbers['error']) in text
    assert 'error of 60' in text


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_opens_in_a_browser_with_plots_images_and_a_table_that_sorts(written, tmp_path):
    _, folder = written
    with browser.page(folder / outputs.REPORT) as page:
        assert 'which <sampler>?' in page.inner_text('h1')
        assert 'out of <memory>' in page.inner_text('.failed >> nth=0')
        sizes = page.eval_on_selector_all('img', 'all => all.map(i => [i.naturalWidth, i.offsetWidth])')
        assert len(sizes) >= 3
        assert all(min(pair) > 50 for pair in sizes)
        column = page.eval_on_selector_all('th', "all => all.findIndex(t => t.innerText === 'error')")
        for again in (False, True):
            page.click(f'th >> nth={column}')
            values = page.eval_on_selector_all(
                'tbody tr', f'all => all.map(r => Number(r.cells[{column}].dataset.value))'
            )
            assert values == sorted(values, reverse=again)
            assert len(values) == 7
        page.screenshot(path=tmp_path / 'page.png', full_page=True)
        assert page.errors == []
    shown = np.asarray(Image.open(tmp_path / 'page.png').convert('RGB'))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 500  # plots and images are more than black on white
