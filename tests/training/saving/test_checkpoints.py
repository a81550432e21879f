"""States on disk: whole or absent, verified, on any devices, and never lost in silence."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.training.saving import checkpoints, stored_steps
from ldm_jax.training.saving.checkpoints import Checkpoints, Damaged

RNG = np.random.default_rng(0)


def state(step):
    rng = np.random.default_rng(step)
    return {
        'params': {'kernel': jnp.asarray(rng.standard_normal((16, 24)), jnp.float32)},
        'opt': (jnp.asarray(rng.standard_normal(40), jnp.bfloat16), {'count': jnp.int32(step)}),
        'mask': jnp.asarray(rng.random(9) < 0.5),
        'key': jax.random.key(step),
    }


def plain(tree):
    return jax.tree.map(
        lambda a: np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a),
        tree,
    )


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, plain(left), plain(right))


def written(folder, steps, **settings):
    with Checkpoints(folder, **settings) as saved:
        for step in steps:
            saved.save(step, state(step), {'window': [step / 3]})
    return folder


def test_a_state_comes_back_as_it_was(tmp_path):
    written(tmp_path, [3, 5])
    with Checkpoints(tmp_path) as saved:
        restored = saved.restore(jax.eval_shape(lambda: state(0)))
    assert restored.step == 5
    assert restored.extra == {'window': [5 / 3]}
    assert_same(restored.state, state(5))


def test_what_is_stored_with_it_is_that_of_the_save(tmp_path):
    with Checkpoints(tmp_path, keep=30) as saved:
        for step in range(20):
            extra = {'window': [1.0] * 1000}
            saved.save(step, {'x': jnp.ones(3)}, extra)
            for _ in range(1000):
                extra['window'].append(2.0)
    assert set(stored_steps.inspect(tmp_path).values()) == {None}


def test_nothing_there_is_none(tmp_path):
    with Checkpoints(tmp_path / 'new') as saved:
        assert saved.restore(state(0)) is None


def test_the_newest_and_every_so_many_stay(tmp_path):
    written(tmp_path, range(1, 12), keep=2, keep_every=4)
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == [4, 8, 10, 11]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['10', '11', '4', '8']


def test_saving_a_step_again_changes_nothing(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, state(1))
        saved.save(1, state(2))
        assert_same(saved.restore(state(0)).state, state(1))


def test_what_was_announced_is_there(tmp_path):
    with Checkpoints(tmp_path) as saved:
        assert saved.wait() is None
        saved.save(1, state(1))
        assert saved.wait() == 1
        assert stored_steps.inspect(tmp_path) == {1: None}
        assert saved.written() is None


@pytest.mark.slow
def test_buffers_may_be_overwritten_while_they_are_written(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)
    tree = {f'a{i}': jnp.full((100, 120), float(i)) for i in range(20)}
    with Checkpoints(tmp_path, keep=10) as saved:
        for n in range(10):
            saved.save(n, tree)
            for _ in range(20):
                tree = step(tree)
        saved.wait()
        assert_same(saved.restore(tree).state, {f'a{i}': jnp.full((100, 120), i + 180.0) for i in range(20)})
    assert set(stored_steps.inspect(tmp_path).values()) == {None}


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # Orbax drops reads that fail
def test_a_flipped_bit_is_never_restored_silently(tmp_path):
    """Anywhere in a step's files: either the step before it is used, or the state is undamaged."""
    written(tmp_path, [1, 2])
    files = sorted(path for path in (tmp_path / '2').rglob('*') if path.is_file())
    sizes = np.array([path.stat().st_size for path in files], float)
    passed = 0
    for file in RNG.choice(len(files), 40, p=sizes / sizes.sum()):
        original = files[file].read_bytes()
        flipped = bytearray(original)
        flipped[RNG.integers(len(flipped))] ^= 1 << RNG.integers(8)
        files[file].write_bytes(flipped)
        with Checkpoints(tmp_path) as saved:
            restored = saved.restore(state(0))
        assert_same(restored.state, state(restored.step))
        assert restored.extra == {'window': [restored.step / 3]}
        aside = tmp_path / checkpoints.DAMAGED / '2'
        if restored.step == 1:
            passed += 1
            aside.rename(tmp_path / '2')
        assert not aside.exists()
        files[file].write_bytes(original)
    assert passed > 10


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def largest(folder):
    return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_damaged_step_is_named_and_set_aside_and_written_anew(tmp_path, capsys):
    written(tmp_path, [1, 2])
    (tmp_path / '2' / 'record' / 'metadata').unlink()
    with Checkpoints(tmp_path) as saved:
        assert saved.restore(state(0)).step == 1
        text = capsys.readouterr().out
        assert 'checkpoint 2 is passed over' in text
        assert 'damaged/2' in text
        saved.save(2, state(2))
        saved.wait()
        assert saved.restore(state(0)).step == 2
    assert (tmp_path / 'damaged' / '2' / 'state').is_dir()


def test_when_no_step_can_be_read_nothing_is_begun_anew(tmp_path):
    written(tmp_path, [1, 2])
    for step in '12':
        shutil.rmtree(tmp_path / step / 'state' / 'd')
        shutil.rmtree(tmp_path / step / 'state' / 'ocdbt.process_0')
    with Checkpoints(tmp_path) as saved, pytest.raises(Damaged, match=r'No checkpoint .*\{2: .* 1: '):
        saved.restore(state(0))
    assert {'1', '2'} <= {path.name for path in tmp_path.iterdir()}


def test_a_state_of_other_arrays_is_refused_and_not_called_damaged(tmp_path):
    written(tmp_path, [1])
    other = state(0) | {'params': {'kernel': jnp.zeros((16, 25)), 'bias': jnp.zeros(3)}}
    with (
        Checkpoints(tmp_path) as saved,
        pytest.raises(ValueError, match='2 differ.*params/bias.*absent.*16, 24') as error,
    ):
        saved.restore(other)
    assert not isinstance(error.value, Damaged)
    assert (tmp_path / '1').is_dir()


def test_what_a_kill_left_is_removed_at_the_next_start(tmp_path):
    written(tmp_path, [1, 2, 3])
    shutil.copytree(tmp_path / '3', tmp_path / '4.orbax-checkpoint-tmp-12')
    shutil.copytree(tmp_path / '3', tmp_path / 'deleted' / '0')
    assert len(stored_steps.unfinished(tmp_path)) == 2
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == [2, 3]
        assert sorted(path.name for path in tmp_path.iterdir()) == ['2', '3']


def mesh(count):
    return jax.sharding.Mesh(np.array(jax.devices()[:count]), ('data',), axis_types=(AxisType.Auto,))


@pytest.mark.slow
def test_any_number_of_devices_reads_what_any_other_wrote(tmp_path):
    def put(count):
        kernel = NamedSharding(mesh(count), P(None, 'data') if count > 1 else P())
        everywhere = NamedSharding(mesh(count), P())
        return jax.tree.map(
            lambda a: jax.device_put(a, kernel if a.shape == (16, 24) else everywhere), state(1)
        )

    for count in (8, 1, 4):
        folder = tmp_path / str(count)
        with Checkpoints(folder) as saved:
            saved.save(1, put(count))
        for other in (1, 4, 8):
            like = put(other)
            with Checkpoints(folder) as saved:
                found = saved.restore(like).state
            assert_same(found, state(1))
            assert found['params']['kernel'].sharding == like['params']['kernel'].sharding
        record = stored_steps.read_record(folder / '1')
        assert record['arrays'] == stored_steps.read_record(tmp_path / '8' / '1')['arrays']


def test_a_record_that_was_tampered_with_is_damaged(tmp_path):
    written(tmp_path, [1])
    path = tmp_path / '1' / 'record' / 'metadata'
    record = json.loads(path.read_text())
    record['extra']['window'] = [2.0]
    path.write_text(json.dumps(record))
    assert 'not what was written' in stored_steps.inspect(tmp_path)[1]
