"""An architecture of one's own from the command line: experiments/plain_transformer, trained and sampled."""

import json

import pytest

from tests.tools.test_train_and_sample import ROOT, tool


@pytest.mark.slow
def test_a_plain_transformer_goes_through_the_tools(tmp_path):
    config = ROOT / 'experiments' / 'plain_transformer' / 'config.py'
    small = [
        f'--config.{field}={value}'
        for field, value in {
            'run.num_steps': 2,
            'run.batch_size': 4,
            'run.save_every': 2,
            'models.unet.width': 16,
            'models.unet.depth': 1,
            'models.unet.num_heads': 2,
            'models.unet.patch': 2,
            'stage.samples.count': 0,
        }.items()
    ]
    tool('train.py', '--config', f'{config}:transformer', '--workdir', tmp_path / 'run', *small, cwd=ROOT)
    settings = json.loads((tmp_path / 'run' / 'model' / 'settings.json').read_text())
    assert settings['models']['unet']['name'] == 'experiments.plain_transformer.model'
    assert settings['conditioning']['text']['drop_rate'] == 0.1
    line = [
        '--model',
        tmp_path / 'run' / 'model',
        '--prompt',
        'a red circle',
        '--num_images',
        1,
        '--num_steps',
        2,
    ]
    tool('sample.py', *line, '--out', tmp_path / 'out', cwd=ROOT)
    assert list((tmp_path / 'out').glob('*.png'))
    # What a transformer cannot do is said in one line.
    failed = tool('sample.py', *line, '--out', tmp_path / 'no', '--seamless', 'xy', cwd=ROOT, check=False)
    assert failed.returncode == 2
    assert 'unet of this model cannot go round' in failed.stderr
    assert 'Traceback' not in failed.stderr
