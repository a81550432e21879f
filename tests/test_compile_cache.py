"""Compiled programs are kept, in a folder that nobody else can write."""

import os
import pathlib
import subprocess
import sys

import pytest

from ldm_jax import compile_cache

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import jax, jax.numpy as jnp
from ldm_jax import compile_cache
compile_cache.WORTH = compile_cache.PATIENCE = 0.0
events = []
jax.monitoring.register_event_listener(lambda event, **about: events.append(event.rpartition('/')[2]))
compile_cache.start({use})
@jax.jit
def added(x):
    return jnp.sin(x) @ x + 1
added(jnp.ones((8, 8)))
print(events.count('cache_hits'), events.count('cache_misses'))
"""


def run(cache, use=True):
    environment = {key: value for key, value in os.environ.items() if not key.startswith('JAX_')}
    environment |= {'LDM_JAX_CACHE': str(cache), 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-c', PROGRAM.format(use=use)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    hits, misses = map(int, done.stdout.split())
    return hits, misses, done.stderr


def test_a_second_start_reads_what_the_first_compiled(tmp_path):
    hits, misses, _ = run(tmp_path / 'cache')
    assert hits == 0
    assert misses > 0
    (folder,) = (tmp_path / 'cache' / 'compiled').iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    again, missed, _ = run(tmp_path / 'cache')
    assert (again, missed) == (misses, 0)
    assert run(tmp_path / 'cache', use=False)[:2] == (0, 0)


@pytest.mark.parametrize('where', ['', 'compiled'])
@pytest.mark.parametrize('mode', [0o770, 0o777, 0o702])
def test_a_folder_that_others_can_write_is_not_used(tmp_path, where, mode):
    (tmp_path / 'cache' / 'compiled').mkdir(parents=True, mode=0o700)
    (tmp_path / 'cache' / where).chmod(mode)
    with pytest.raises(PermissionError, match=r'others can write .*cache.* runs code'):
        compile_cache.private(tmp_path / 'cache' / 'compiled' / 'x')


def test_it_is_said_and_the_program_runs(tmp_path):
    (tmp_path / 'cache').mkdir()
    (tmp_path / 'cache').chmod(0o777)
    hits, misses, text = run(tmp_path / 'cache')
    assert (hits, misses) == (0, 0)
    assert 'compiled programs are not kept: others can write' in text


def test_what_has_long_been_unused_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, 'LIMIT', 25)
    for i in range(4):
        file = tmp_path / f'{i}-cache'
        file.write_bytes(bytes(10))
        os.utime(file, (i, i))
    compile_cache._prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['2-cache', '3-cache']


def test_what_compiles_for_long_is_announced_with_an_estimate(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(compile_cache, 'PATIENCE', 0.0)
    teller = compile_cache._Teller(tmp_path)
    teller._known = [(1.0, 10.0)]
    teller.ended(compile_cache.LOWERING, 3.0)
    teller.began(compile_cache.COMPILING, 0.0, fun_name='jit(train_step)')
    for _ in range(100):
        if text := capfd.readouterr().err:
            break
        import time

        time.sleep(0.02)
    assert 'compiling train_step (the first time about 30 s)' in text
    teller.ended(compile_cache.COMPILING, 60.0)
    assert compile_cache._Teller(tmp_path)._known == [(1.0, 10.0), (3.0, 60.0)]
    teller.began(compile_cache.COMPILING, 0.0)
    teller.happened(compile_cache.HIT)
    teller.ended(compile_cache.COMPILING, 2.0)  # read, not compiled
    assert compile_cache._Teller(tmp_path)._known == [(1.0, 10.0), (3.0, 60.0)]
    (tmp_path / compile_cache.TIMES).write_text('{"not": "this"')
    assert compile_cache._Teller(tmp_path)._known == []
