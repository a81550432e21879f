"""A run that was stopped, by whatever and wherever, equals one that was not, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.data import pipeline
from ldm_jax.data.corrupt import Corrupt, TooManyCorrupt
from ldm_jax.training import loop
from ldm_jax.training.job import Job
from ldm_jax.training.monitoring import metric_buffer, writers
from ldm_jax.training.preemption import Preempted, Preemption
from ldm_jax.training.saving import checkpoints, stored_steps
from tests.training.runs import JOB, SOURCE, assert_same, init, metrics, plain, run, step


class Crash(Exception):
    """Stands in for a kill."""


class CrashingAt(Preemption):
    """Dies after so many steps, without saving."""

    def __init__(self, step):
        super().__init__()
        self.at = step

    def check(self, step):
        if step == self.at:
            raise Crash


class StoppedAt(CrashingAt):
    """Is asked to stop after so many steps."""

    def check(self, step):
        self.requested = step >= self.at
        Preemption.check(self, step)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """An uninterrupted run of 20 steps on one device, and its workdir."""
    workdir = tmp_path_factory.mktemp('whole')
    return run(workdir), workdir


def slow(*values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize('k', [6, *slow(1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)])
@pytest.mark.parametrize('how', [CrashingAt, *slow(StoppedAt)])
def test_stopped_at_step_k_and_resumed(tmp_path, whole, k, how):
    with pytest.raises((Crash, Preempted)):
        run(tmp_path, preemption=how(k))
    if how is StoppedAt:
        assert (tmp_path / 'checkpoints' / str(k)).is_dir()
    state = run(tmp_path)
    assert_same(state, whole[0])
    assert metrics(tmp_path) == metrics(whole[1])


@pytest.mark.slow
@pytest.mark.parametrize('parallel', [dict(kind='mesh'), *slow(dict(kind='pmap'))])
def test_on_eight_devices(tmp_path, whole, parallel):
    straight = run(tmp_path / 'whole', parallel=parallel)
    for k in (3, 10):
        with pytest.raises(Crash):
            run(tmp_path / 'stopped', preemption=CrashingAt(k), parallel=parallel)
    assert_same(run(tmp_path / 'stopped', parallel=parallel), straight)
    assert metrics(tmp_path / 'stopped') == metrics(tmp_path / 'whole')
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), plain(straight), plain(whole[0])
    )


@pytest.mark.slow
def test_goes_on_under_another_number_of_devices(tmp_path, whole):
    for k, kind in [(5, 'mesh'), (9, 'single'), (14, 'pmap')]:
        with pytest.raises(Preempted):
            run(tmp_path, preemption=StoppedAt(k), parallel=dict(kind=kind))
    state = run(tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), plain(state), plain(whole[0])
    )


@pytest.mark.slow
def test_a_run_that_ended_is_extended_as_if_it_had_not(tmp_path, whole):
    run(tmp_path, num_steps=11)
    assert metrics(tmp_path)[-1]['step'] == 11
    assert_same(run(tmp_path), whole[0])
    assert metrics(tmp_path) == metrics(whole[1])


def test_log_lines_average_their_steps(tmp_path, whole):
    run(tmp_path, log_every=1)
    single, lines = metrics(tmp_path), metrics(whole[1])
    assert [line['step'] for line in lines] == [3, 6, 9, 12, 15, 18, 20]
    for name in ('loss', 'bias'):
        np.testing.assert_allclose(lines[1][name], np.mean([line[name] for line in single[3:6]]), rtol=1e-12)
    assert lines[1]['by_sign'][1] is None
    assert lines[-1]['loss'] < lines[0]['loss']


def test_what_a_run_leaves(whole, capsys):
    workdir = whole[1]
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['16', '20']
    names = sorted(path.name for path in (workdir / 'images').iterdir())
    assert names == [f'{n:07}_rows.png' for n in (4, 8, 12, 16, 20)]
    assert all(line['images_per_second'] > 0 for line in writers.read_metrics(workdir))
    lines = metrics(workdir)
    run(workdir)
    assert 'resumed at step 20' in capsys.readouterr().out
    assert metrics(workdir) == lines  # the last one too, which is no multiple of log_every


def test_other_data_are_refused(tmp_path):
    run(tmp_path, num_steps=4)
    changed = pipeline.InMemory({'x': SOURCE.arrays['x'] + 1})
    with pytest.raises(ValueError, match='batch_crc32'):
        run(tmp_path, source=changed)
    with pytest.raises(ValueError, match="'examples': \\(30, 20\\)"):
        run(tmp_path, source=pipeline.InMemory({'x': SOURCE.arrays['x'][:20]}))


class Shapes:
    """Examples of two lengths in buckets, of which some cannot be read."""

    buckets = (range(12), range(12, 30))

    def __len__(self):
        return 30

    def name(self, i):
        return f'file {i}'

    def __getitem__(self, i):
        if i % 7 == 3:
            raise Corrupt(self.name(i), 'torn')
        return {'x': np.full((3, 2 if i < 12 else 5), i, np.float32)}


def flattened(state, batch, key, axis_name=None):
    return step(state, {'x': batch['x'].mean(axis=2)}, key, axis_name)


@pytest.mark.slow
def test_batches_of_several_shapes_and_examples_that_cannot_be_read(tmp_path, caplog, capsys):
    job, settings = Job(init, flattened), dict(source=Shapes(), loader=dict(max_corrupt=0.5))
    straight = run(tmp_path / 'whole', job=job, **settings)
    assert capsys.readouterr().out.count('compiled in') == 2
    assert {record.args[1] for record in caplog.records if 'corrupt example' in record.msg} == {
        f'file {i}' for i in range(3, 30, 7)
    }
    with pytest.raises(Crash):
        run(tmp_path / 'stopped', job=job, preemption=CrashingAt(10), **settings)
    assert_same(run(tmp_path / 'stopped', job=job, **settings), straight)
    lines = metrics(tmp_path / 'whole')
    assert metrics(tmp_path / 'stopped') == lines
    read = pipeline.batches(Shapes(), 8, 0, max_corrupt=0.5)
    for _ in range(20):
        next(read)
    assert sum(line['corrupt'] for line in lines) == read.report.skipped > 0
    assert 'corrupt and left out' in capsys.readouterr().out


def test_too_many_that_cannot_be_read_end_the_run(tmp_path):
    with pytest.raises(TooManyCorrupt, match='torn'):
        run(tmp_path, job=Job(init, flattened), source=Shapes(), loader=dict(max_corrupt=0.05))


def burst(state, batch, key, axis_name=None):
    """Step number 6 is not finite, and says so."""
    state, found = step(state, batch, key, axis_name)
    bad = state.step == 6
    return state, found | {'loss': jnp.where(bad, jnp.nan, found['loss']), 'nonfinite': bad.astype(jnp.int32)}


def test_steps_that_are_not_finite_are_counted(tmp_path):
    run(tmp_path, job=Job(init, burst), nonfinite='skip')
    lines = metrics(tmp_path)
    assert [line['nonfinite'] for line in lines] == [0, 1, 0, 0, 0, 0, 0]
    assert all(line['loss'] is not None for line in lines)  # the mean of the steps that had one


def test_or_end_the_run_with_their_batch_saved(tmp_path):
    with pytest.raises(metric_buffer.NonFinite, match=r"Step 6 .*'loss'.*nonfinite_0000006"):
        run(tmp_path, job=Job(init, burst), nonfinite='stop')
    (path,) = tmp_path.glob('nonfinite_*.npz')
    sixth = next(pipeline.batches(SOURCE, 8, 0, start=5))
    np.testing.assert_array_equal(np.load(path)['x'], sixth['x'])
    assert [int(p.name) for p in (tmp_path / 'checkpoints').glob('[0-9]*')] == [4]


def test_a_loss_that_is_not_finite_is_noticed_though_the_step_does_not_say_so(tmp_path):
    def silent(state, batch, key, axis_name=None):
        state, found = burst(state, batch, key)
        return state, {'loss': found['loss']}

    with pytest.raises(metric_buffer.NonFinite, match='Step 6'):
        run(tmp_path, job=Job(init, silent), nonfinite='stop')


@pytest.mark.parametrize(
    'field', ['num_steps', 'batch_size', 'log_every', 'save_every', 'keep', 'keep_every']
)
def test_counts_below_one_are_refused(field):
    with pytest.raises(ValueError, match=field):
        loop.Run(**(dict(num_steps=1, batch_size=1) | {field: 0}))


def test_other_settings_that_cannot_be_are_refused():
    for settings, words in [
        (dict(nonfinite='ignore'), "'skip'"),
        (dict(profile=(5, 3)), 'profile'),
        (dict(parallel=dict(kind='mash')), "Did you mean 'mesh'"),
        (dict(parallel=dict(fsdp=2)), "kind='mesh'"),
    ]:
        with pytest.raises(ValueError, match=words):
            loop.Run(1, 1, **settings)
    with pytest.raises(ValueError, match='multiple of the 8 devices'):
        loop.train(JOB, SOURCE, '/nowhere', loop.Run(1, 4, parallel=dict(kind='pmap')))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['single', *slow('pmap')])
def test_what_init_makes_again_is_not_stored(tmp_path, kind):
    def with_frozen(key):
        return {'state': init(key), 'frozen': {'w': jnp.full(5, 2.0)}}

    def advance(state, batch, key, axis_name=None):
        new, found = step(state['state'], batch, key, axis_name)
        return state | {'state': new}, found | {'frozen': state['frozen']['w'].sum()}

    job = Job(
        with_frozen,
        advance,
        split=lambda state: (state['state'], state['frozen']),
        merge=lambda state, frozen: {'state': state, 'frozen': frozen},
        fixed=lambda key: with_frozen(key)['frozen'],
    )
    spread = dict(parallel=dict(kind=kind))
    with pytest.raises(Crash):
        run(tmp_path, job=job, preemption=CrashingAt(6), **spread)
    assert not any(
        'frozen' in name for name in stored_steps.read_record(tmp_path / 'checkpoints' / '4')['arrays']
    )
    assert_same(run(tmp_path, job=job, **spread), run(tmp_path / 'whole', job=job, **spread))
    assert {line['frozen'] for line in metrics(tmp_path)} == {10.0}


@pytest.mark.parametrize('where', ['drawing', 'writing'])
def test_images_that_fail_are_reported_after_the_state_is_saved_and_training_goes_on(
    tmp_path, whole, capsys, monkeypatch, where
):
    order, save = [], checkpoints.Checkpoints.save

    def saved(self, step, *args):
        order.append(('saved', step))
        return save(self, step, *args)

    def failing(state, batch, key):
        def draw(step):
            order.append(('drawn', int(step)))
            raise OSError('no room')

        rows = jax.pure_callback(draw, jax.ShapeDtypeStruct((), jnp.float32), state.step)
        return {'rows': jnp.full((2, 8, 4, 4, 3), rows)}

    monkeypatch.setattr(checkpoints.Checkpoints, 'save', saved)
    job = Job(init, step, failing)
    if where == 'writing':
        job = JOB
        monkeypatch.setattr(
            writers, 'save_png', lambda *args, **kwargs: (_ for _ in ()).throw(OSError('no room'))
        )
    state = run(tmp_path, job=job, image_every=4)
    text = capsys.readouterr().err
    assert text.count('failed, and training goes on') == 5
    assert 'the images of step 4 failed' in text
    assert order[0] == ('saved', 4)
    assert where == 'writing' or order[1] == ('drawn', 4)
    assert_same(state, whole[0])
    assert (tmp_path / 'checkpoints' / '20').is_dir()


def test_images_that_cannot_be_drawn_are_met_before_the_first_step(tmp_path):
    def wrong(state, batch, key):
        return {'rows': state.params['kernel'] @ jnp.ones((5, 5))}

    with pytest.raises(ValueError, match=r'cannot be drawn \(TypeError: .*run.image_every=0'):
        run(tmp_path, job=Job(init, step, wrong))
    assert not list((tmp_path / 'checkpoints').glob('[0-9]*'))
    run(tmp_path, num_steps=4, job=Job(init, step, wrong), image_every=0)
