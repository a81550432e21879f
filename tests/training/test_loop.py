"""A run that was stopped equals one that was not, to the bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.data import pipeline
from ldm_jax.training import loop, optimizer

RUN = dict(batch_size=4, log_every=2, save_every=3)
SOURCE = pipeline.InMemory({'x': np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)})


class Stage:
    """A line learns to sum its inputs, with noise on them."""

    def init(self, key):
        return {'kernel': jax.random.normal(key, (3,))}

    def prepare(self, source):
        return source

    def draw(self, key, batch):
        return 0.1 * jax.random.normal(key, batch['x'].shape)

    def loss(self, params, batch, draws):
        error = (batch['x'] + draws) @ params['kernel'] - batch['x'].sum(axis=1)
        return jnp.mean(error**2), {'bias': jnp.mean(error)}

    def picture(self, params, batch, draws):
        return jnp.zeros((2, len(batch['x']), 4, 4, 3))


def run(workdir, num_steps):
    settings = loop.Run(num_steps=num_steps, **RUN)
    tx = optimizer.optimizer(12, RUN['batch_size'], lr=0.1, warmup_steps=2)
    return loop.train(Stage(), SOURCE, tx, str(workdir), settings)


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
    shown = sorted(path.name for path in (tmp_path / 'whole' / 'pictures').iterdir())
    assert shown == ['0000003.png', '0000006.png', '0000009.png', '0000012.png']


@pytest.mark.parametrize('field', ['num_steps', 'batch_size', 'accumulate', 'log_every', 'save_every'])
def test_counts_below_one_are_refused(field):
    with pytest.raises(ValueError, match=field):
        loop.Run(**(dict(num_steps=1, batch_size=1) | {field: 0}))
