"""Processes of two devices each, on loopback: they train as one device does, are killed and stopped, and go on."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from ldm_jax.checkpoints import store
from ldm_jax.training import preemption
from ldm_jax.training.monitoring import writers
from ldm_jax.training.parallel import distributed
from tests.training.runs import CLOCKED

ROOT = pathlib.Path(__file__).parents[3]
STEPS = 240
PATIENCE = 240  # seconds for any phase; one takes ten on a quiet machine


class Launched:
    """tools/launch/local.sh in a session of its own, whose output is read as it comes."""

    def __init__(self, workdir, processes, kind):
        command = [
            'tools/launch/local.sh',
            str(processes),
            sys.executable,
            'tools/train.py',
            '--workdir',
            workdir,
        ]
        command += ['--config', 'tests/training/toy_config.py', f'--config.run.parallel.kind={kind}']
        command += [f'--config.run.num_steps={STEPS}', f'--config.run.image_every={STEPS // 2}']
        environment = os.environ | {
            'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path]),
            'XLA_FLAGS': '',
            'JAX_NUM_CPU_DEVICES': '2',
        }
        environment.pop('JAX_COORDINATOR_ADDRESS', None)
        self.output = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            with self._news:
                self.output.append(line)
                self._news.notify_all()

    @property
    def processes(self):
        pid = self._process.pid
        return [int(child) for child in pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]

    def announced(self):
        found = re.findall(r'checkpoint (\d+) written', ''.join(self.output))
        return max(map(int, found), default=0)

    def reaches(self, step):
        """Waits for a checkpoint of this step or a later one."""
        with self._news:
            found = self._news.wait_for(lambda: self.announced() >= step, PATIENCE)
        assert found, ''.join(self.output)[-5000:]

    def signal(self, number):
        self._process.send_signal(number)

    def ends(self):
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def kill(self):
        """Ends everything at once, with SIGKILL: once it knows others JAX takes SIGTERM, and may hang."""
        with contextlib.suppress(OSError):
            children = self.processes
            self._process.kill()
            for child in children:
                with contextlib.suppress(OSError):
                    os.kill(child, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def launched(*args):
    run = Launched(*args)
    try:
        yield run
    finally:
        run.kill()


def results(workdir):
    lines = [json.loads(line) for line in (workdir / writers.METRICS).read_text().splitlines()]
    plain = [{name: value for name, value in line.items() if name not in CLOCKED} for line in lines]
    return plain, store.load_model(workdir / 'model', ['line'])[1]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """What one process on one device trains."""
    workdir = tmp_path_factory.mktemp('alone')
    command = [sys.executable, 'tools/train.py', '--workdir', workdir]
    command += ['--config', 'tests/training/toy_config.py', f'--config.run.num_steps={STEPS}']
    command += [f'--config.run.{every}={STEPS // 2}' for every in ('save_every', 'image_every')]
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ''}
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, timeout=PATIENCE)
    return results(workdir)


@pytest.mark.slow
@pytest.mark.parametrize(('processes', 'kind'), [(2, 'mesh'), (2, 'pmap'), (4, 'mesh')])
def test_killed_and_stopped_they_end_as_one_process_does(tmp_path, alone, processes, kind):
    workdir = tmp_path / 'run'
    with launched(workdir, processes, kind) as run:
        run.reaches(20)
        os.kill(run.processes[-1], signal.SIGKILL)
        assert run.ends() == 128 + signal.SIGKILL  # and has ended the others
        acknowledged = run.announced()
    with launched(workdir, processes, kind) as run:
        run.reaches(acknowledged + 40)
        run.kill()
        assert f'resumed at step {acknowledged}' in ''.join(run.output) or acknowledged < run.announced()
        acknowledged = run.announced()
    with launched(workdir, processes, kind) as run:
        run.reaches(acknowledged + 40)
        run.signal(signal.SIGTERM)
        assert run.ends() == preemption.EXIT_CODE, ''.join(run.output)[-5000:]
        resumed = int(re.search(r'resumed at step (\d+)', ''.join(run.output))[1])
        assert resumed >= acknowledged  # nothing that was acknowledged is lost
        stopped = run.announced()
    with launched(workdir, processes, kind) as run:
        assert run.ends() == 0, ''.join(run.output)[-5000:]
        assert f'resumed at step {stopped}' in ''.join(run.output)
    (metrics, params), (expected, exact) = results(workdir), alone
    assert [line['step'] for line in metrics] == [line['step'] for line in expected]
    for found, line in zip(metrics, expected, strict=True):
        for name, value in line.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), params, exact)


@pytest.mark.parametrize(
    'values',
    [
        ('127.0.0.1:1', '2', None),
        ('127.0.0.1:1', '2', '2'),
        ('localhost', '2', '0'),
        (None, None, '0'),
        ('h:1', 'two', '0'),
    ],
)
def test_what_does_not_tell_processes_of_each_other_is_refused(monkeypatch, values):
    for name, value in zip(distributed.VARIABLES, values, strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match='NUM_PROCESSES'):
        distributed.start()


def test_alone_nothing_is_added_and_nothing_leaves(tmp_path):
    np.testing.assert_array_equal(distributed.together(np.array([1, 2])), [1, 2])
    assert distributed.apart(max, 1, 2) == 2
    assert distributed.first()
