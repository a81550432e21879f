"""Shared set-up: tests run on the CPU, with eight devices for the ones that shard."""

import gc
import json
import os
import pathlib
import runpy
import sys

import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the suite's time is compiling small networks once: without LLVM's optimizations that takes half as long,
# another third less with XLA's older code generator, and a tenth less where a program is not cut into 32 modules.
os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
    ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1',
)


MOST = 3 << 30  # bytes of a worker above which it drops its compiled programs


def pytest_collection_finish():
    """Spares the collector the two million objects of imported modules, which outlive every test."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope='module', autouse=True)
def compiled_programs_are_dropped():
    """A worker keeps every program that it compiled: without this two of them grew to 8 GB each."""
    yield
    if 'jax' not in sys.modules or _resident() < MOST:
        return
    if opening := sys.modules.get('ldm_jax.inference.opening'):
        opening.programs_of.cache_clear()
    sys.modules['jax'].clear_caches()
    gc.collect()


def _resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    pages = pathlib.Path('/proc/self/statm')
    return int(pages.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') if pages.exists() else 0


@pytest.fixture
def sample(monkeypatch, capsys, tmp_path_factory):
    """tools/sample.py in this process: flags to what it prints with --json.

    What it warned of is in `sample.warned`; sample(fails=True, ...) is the error that it ends with.
    """
    tool = str(pathlib.Path(__file__).parent.parent / 'tools' / 'sample.py')
    monkeypatch.setenv('LDM_JAX_CACHE', str(tmp_path_factory.getbasetemp() / 'cache'))

    def run(fails=False, **flags):
        args = [word for name, value in flags.items() for word in (f'--{name}', *_words(value))]
        monkeypatch.setattr(sys, 'argv', [tool, '--json', *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(tool, run_name='__main__')
        out, err = capsys.readouterr()
        if fails:
            return err.splitlines()[-1]
        assert not end.value.code, err
        run.warned = [line for line in err.splitlines() if line.startswith('warning: ')]
        return json.loads(out)

    return run


def _words(value):
    return list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
