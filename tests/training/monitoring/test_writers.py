"""What writers leave behind, read back by other means."""

import json
import math
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ldm_jax.training.monitoring import writers

SHEET = np.linspace(-1, 1, 4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)


def fill(writer, steps):
    for step in steps:
        writer.scalars(step, {'loss': 1 / step, 'by_bin': [float(step), math.nan]})
    writer.image(steps[-1], 'rows', SHEET)
    writer.close()


def lines(root):
    def refuse(name):
        raise ValueError(f'{name} is no JSON')

    text = (root / writers.METRICS).read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_files(tmp_path):
    fill(writers.build((), tmp_path, 0, {}), [1, 2, 3])
    assert lines(tmp_path)[2] == {'step': 3, 'loss': 1 / 3, 'by_bin': [3.0, None]}
    with Image.open(tmp_path / 'images' / '0000003_rows.png') as image:
        assert image.size == (10, 8)
        assert image.getpixel((9, 7)) == (246, 251, 255)  # doubled; from the last of 60 values up to 1


def test_a_resumed_run_doubles_no_line_and_drops_a_torn_one(tmp_path):
    fill(writers.build((), tmp_path, 0, {}), [1, 2, 3, 4])
    path = tmp_path / writers.METRICS
    path.write_text(path.read_text()[:-10])  # killed while it wrote the last
    fill(writers.build((), tmp_path, 2, {}), [3, 4])
    assert [line['step'] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert math.isnan(writers.read_metrics(tmp_path)[0]['by_bin'][1])


def events(folder):
    """The events of TensorBoard's files: records of length, CRC, data, CRC."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack('<Q', data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard(tmp_path):
    fill(writers.build(('tensorboard',), tmp_path, 0, {'lr': 1}), [1, 2])
    fill(writers.build((dict(name='tensorboard'),), tmp_path, 1, {'lr': 1}), [2])
    found = events(tmp_path / 'tensorboard')
    values = [(event.step, value.tag, value.simple_value) for event in found for value in event.summary.value]
    scalars = [value for value in values if value[1] in ('loss', 'by_bin/0')]
    assert scalars[:4] == [(1, 'loss', 1.0), (1, 'by_bin/0', 1.0), (2, 'loss', 0.5), (2, 'by_bin/0', 2.0)]
    assert not any('by_bin/1' in value for value in values)
    assert any(value.image.height == 4 for event in found for value in event.summary.value)
    restarts = [event.step for event in found if event.HasField('session_log')]
    assert restarts == [2]  # from where TensorBoard forgets what it had


class Recorded:
    """Stands in for the package wandb: keeps what it is given."""

    def __init__(self):
        self.inits, self.logged, self.metrics, self.summary, self.finished = [], [], [], {}, 0

    def module(self):
        module = types.ModuleType('wandb')
        module.init, module.Image = self._init, lambda pixels: pixels
        return module

    def _init(self, **settings):
        self.inits.append(settings)
        return types.SimpleNamespace(
            log=self.logged.append,
            define_metric=lambda *args, **kwargs: self.metrics.append((args, kwargs)),
            finish=self._finish,
            summary=self.summary,
        )

    def _finish(self):
        self.finished += 1


def test_weights_and_biases_goes_on_in_the_same_run(tmp_path, monkeypatch):
    recorded = Recorded()
    monkeypatch.setitem(sys.modules, 'wandb', recorded.module())
    for first in (0, 1):
        spec = dict(name='wandb', project='lines', mode='offline')
        fill(writers.build((spec,), tmp_path, first, {'lr': 1}), [first + 1])
    one, two = recorded.inits
    assert one == two
    assert one['project'] == 'lines'
    assert one['config'] == {'lr': 1}
    assert recorded.logged[0] == {'step': 1, 'loss': 1.0, 'by_bin/0': 1.0}
    assert recorded.logged[1]['rows'].shape == (4, 5, 3)
    assert recorded.finished == 2


@pytest.mark.parametrize(('name', 'package'), [('tensorboard', 'tensorboardX'), ('wandb', 'wandb')])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f'pip install "{package}"'):
        writers.build((name,), tmp_path, 0, {})


def test_other_writers_and_settings_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'wandb'"):
        writers.named('wandbb')
    with pytest.raises(ValueError, match="knob of writer tensorboard 'folder'"):
        writers.named(dict(name='tensorboard', folder='x'))


def test_changed_settings_are_kept_wherever_metrics_go(tmp_path, monkeypatch):
    recorded = Recorded()
    monkeypatch.setitem(sys.modules, 'wandb', recorded.module())
    chosen = ('tensorboard', 'wandb')
    fill(writers.build(chosen, tmp_path, 0, {'lr': 1}), [1, 2])
    writer = writers.build(chosen, tmp_path, 2, {'lr': 2})
    writer.changed(2, {'optimizer.lr': (1, 2)})
    fill(writer, [3])
    fill(writers.build(chosen, tmp_path, 1, {'lr': 2}), [2, 3])  # a line of what happened stays
    assert {'step': 2, 'changed': {'optimizer.lr': [1, 2]}} in lines(tmp_path)
    assert writers.read_changes(tmp_path) == [(2, {'optimizer.lr': [1, 2]})]
    assert [line['step'] for line in writers.read_metrics(tmp_path)] == [1, 2, 3]
    assert recorded.summary == {'changed/2': '{"optimizer.lr": [1, 2]}'}
    assert all(init['allow_val_change'] for init in recorded.inits)
    texts = [
        value.tensor.string_val
        for event in events(tmp_path / 'tensorboard')
        for value in event.summary.value
        if value.tag.startswith('changed')
    ]
    assert len(texts) == 1
    assert b'optimizer.lr' in texts[0][0]
