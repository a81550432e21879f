"""A run that was stopped equals one that was not, to the bit."""

import json

import jax
import numpy as np
import pytest

from ldm_jax.build import build
from ldm_jax.training import loop, optimizer
from ldm_jax.training.first_stage import Stage

RUN = dict(batch_size=4, log_every=2, save_every=3)


def run(workdir, num_steps):
    vae = build('models', dict(name='vae', channels=4, channel_mult=(1, 1), num_res_blocks=1, num_groups=2))
    stage = Stage(first_stage=vae, image_size=8)
    source = build('data', dict(name='synthetic', image_size=8))
    settings = loop.Run(num_steps=num_steps, **RUN)
    return loop.train(stage, source, optimizer.adamw(3e-3, 12, warmup_steps=2), workdir, settings)


def test_resuming_equals_never_having_stopped(tmp_path, capsys):
    whole = run(tmp_path / 'whole', 12)
    run(tmp_path / 'stopped', 5)
    assert 'resumed' not in capsys.readouterr().out
    resumed = run(tmp_path / 'stopped', 12)
    assert 'resumed at step 5' in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)

    lines = [json.loads(line) for line in (tmp_path / 'whole' / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert lines[-1]['loss'] < 0.8 * lines[0]['loss']
    assert all(line['images_per_second'] > 0 for line in lines)
    pictures = sorted(path.name for path in (tmp_path / 'whole' / 'pictures').iterdir())
    assert pictures == ['0000003.png', '0000006.png', '0000009.png', '0000012.png']


@pytest.mark.parametrize('field', ['num_steps', 'batch_size', 'log_every', 'save_every'])
def test_counts_below_one_are_refused(field):
    with pytest.raises(ValueError, match=field):
        loop.Run(**(dict(num_steps=1, batch_size=1) | {field: 0}))
