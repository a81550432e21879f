"""The report is one file that shows what the workdir holds."""

import base64
import re
from xml.etree import ElementTree

import numpy as np

from ldm_jax.training.monitoring import report, writers


def test_a_report_holds_curves_images_and_config(tmp_path):
    writer = writers.build((), tmp_path, 0, {})
    for step in range(1, 21):
        writer.scalars(step, {'grad_norm': 2.0, 'loss': 10.0 - step / 2, 'loss_by_t': [1.0 * step, np.nan]})
        writer.image(step, 'rows', np.zeros((2, 2, 3), np.float32))
    writer.close()
    text = report.write(tmp_path, {'run': {'note': '<b>&'}}).read_text()

    curves = [ElementTree.fromstring(svg) for svg in re.findall(r'<svg.*?</svg>', text, re.S)]
    assert [curve.get('aria-label') for curve in curves] == ['loss', 'loss_by_t', 'grad_norm']
    (line,) = curves[0].findall('polyline')
    points = np.array([tuple(map(float, point.split(','))) for point in line.get('points').split()])
    assert len(points) == 20
    np.testing.assert_allclose(points[:, 1], np.linspace(0, report.HEIGHT - report.BOTTOM, 20), atol=0.1)
    np.testing.assert_allclose(points[:, 0], np.linspace(report.LEFT, report.WIDTH, 20), atol=0.1)

    images = [base64.b64decode(data) for data in re.findall(r'base64,([^"]+)"', text)]
    assert len(images) == report.SHOWN
    assert images[-1] == (tmp_path / 'images' / '0000020_rows.png').read_bytes()
    assert '&lt;b&gt;&amp;' in text
    assert not re.search(r'(src|href)="(?!data:)', text)  # needs nothing else


def test_a_run_without_metrics_has_a_report_too(tmp_path):
    assert 'No metrics' in report.write(tmp_path, {}).read_text()
