"""Signals at every phase of a run: the state at hand is saved soon, and the next start does the rest."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.training import loop
from ldm_jax.training.job import Job
from ldm_jax.training.parallel import backend as parallel
from ldm_jax.training.preemption import EXIT_CODE, Preempted, Preemption, in_thread
from ldm_jax.training.saving import checkpoints
from tests.training.runs import JOB, SOURCE, assert_same, images, init, run, step

ROOT = pathlib.Path(__file__).parent.parent.parent
LONG = 60.0  # seconds that a phase takes when nobody stops it


@pytest.fixture
def stuck():
    """A function that does not return when it is asked to stop, until the test has ended."""
    ended, once = threading.Event(), threading.Lock()

    def hang(*args):
        if once.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGTERM)
        ended.wait(LONG)
        return np.float32(0)

    yield hang
    ended.set()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp('whole'), num_steps=6)


def stopped(workdir, **settings):
    """Runs until Preempted; how many seconds that took after the signal is at most the test's whole time."""
    began = time.monotonic()
    with Preemption() as signals, pytest.raises(Preempted):
        run(workdir, num_steps=6, preemption=signals, **settings)
    assert time.monotonic() - began < LONG / 2
    return sorted(int(path.name) for path in (workdir / 'checkpoints').glob('[0-9]*'))


@pytest.mark.slow
def test_while_compiling(tmp_path, whole, stuck, monkeypatch):
    traced = parallel.Sharded.traced

    class Slow:
        compile = staticmethod(stuck)

    with monkeypatch.context() as patch:
        patch.setattr(parallel.Sharded, 'traced', lambda *args: (Slow, traced(*args)[1]))
        assert stopped(tmp_path) == [0]
    assert_same(run(tmp_path, num_steps=6), whole)


@pytest.mark.slow
def test_while_waiting_for_data(tmp_path, whole, stuck):
    class Slow:
        def __init__(self):
            self.read = 0

        def __len__(self):
            return len(SOURCE)

        def __getitem__(self, i):
            self.read += 1
            if self.read > 60:  # beyond those read ahead at the start
                stuck()
            return SOURCE[i]

    (last,) = stopped(tmp_path, source=Slow(), save_every=100, image_every=0)
    assert 1 <= last < 6
    assert_same(run(tmp_path, num_steps=6), whole)


@pytest.mark.slow
def test_in_a_step(tmp_path, whole):
    def signalled(state, batch, key, axis_name=None):
        def send(n):
            if n == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        jax.debug.callback(send, state.step)
        return step(state, batch, key, axis_name)

    (last,) = stopped(tmp_path, job=Job(init, signalled, images), save_every=100)
    assert 4 <= last < 6
    assert_same(run(tmp_path, num_steps=6), whole)


@pytest.mark.slow
def test_while_making_images(tmp_path, whole, stuck):
    def slow(state, batch, key):
        value = jax.pure_callback(stuck, jax.ShapeDtypeStruct((), jnp.float32), state.step)
        return {'rows': jnp.zeros((1, 8, 4, 4, 3)) + value}

    assert stopped(tmp_path, job=Job(init, step, slow), image_every=2, save_every=100) == [2]
    assert_same(run(tmp_path, num_steps=6), whole)


def test_in_a_save(tmp_path, whole, monkeypatch):
    save = checkpoints.Checkpoints.save

    def signalled(self, number, *args):
        known = self.steps()
        save(self, number, *args)
        if number == 4 and number not in known:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, 'save', signalled)
        assert stopped(tmp_path) == [4]
    assert_same(run(tmp_path, num_steps=6), whole)


def test_before_there_is_a_state(tmp_path):
    def slow(key):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(LONG)

    assert stopped(tmp_path, job=Job(slow, step)) == []


def test_handlers_are_put_back():
    old = signal.getsignal(signal.SIGTERM)
    with Preemption():
        assert signal.getsignal(signal.SIGTERM) != old
    assert signal.getsignal(signal.SIGTERM) == old


def test_the_error_of_a_thread_is_that_of_the_wait():
    def fail():
        raise TimeoutError('of the disk')

    with pytest.raises(TimeoutError, match='of the disk'):
        Preemption().wait(in_thread(fail))
    assert Preemption().wait(in_thread(lambda: 3)) == 3


def test_nobody_who_did_not_ask_is_stopped(tmp_path):
    assert loop.train(JOB, SOURCE, str(tmp_path), loop.Run(1, 8)) is not None


@pytest.mark.parametrize(('times', 'code'), [(1, EXIT_CODE), (2, 128 + signal.SIGTERM)])
def test_the_second_signal_ends_the_process_at_once(times, code):
    script = f"""
import os, signal, time
from ldm_jax.training.preemption import EXIT_CODE, Preempted, Preemption
with Preemption() as signals:
    try:
        with signals.deferred():
            for _ in range({times}):
                os.kill(os.getpid(), signal.SIGTERM)
            signals.check(1)
    except Preempted:
        raise SystemExit(EXIT_CODE)
"""
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True)
    assert done.returncode == code
    assert 'asked to stop' in done.stderr


@contextlib.contextmanager
def training(workdir, *args):
    command = [
        sys.executable,
        '-u',
        'tools/train.py',
        '--config',
        'tests/training/toy_config.py',
        '--workdir',
        str(workdir),
    ]
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ''}
    with subprocess.Popen(
        [*command, *args],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_command_exits_with_the_documented_code_and_goes_on(tmp_path, number):
    with training(tmp_path, '--config.run.num_steps=100000') as process:
        for line in process.stdout:
            if line.startswith('checkpoint 2 '):
                process.send_signal(number)
                break
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == EXIT_CODE, rest
    assert 'run the same command again' in rest
    last = max(int(path.name) for path in (tmp_path / 'checkpoints').glob('[0-9]*'))
    with training(tmp_path, '--config.run.num_steps=100000') as process:
        for line in process.stdout:
            if line.startswith('resumed'):
                break
    assert line == f'resumed at step {last}\n'
