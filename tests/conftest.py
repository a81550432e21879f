"""Shared set-up: tests run on the CPU, with eight devices for the ones that shard."""

import json
import os
import pathlib
import runpy
import sys

import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the suite's time is compiling small networks once: without LLVM's optimizations that takes half as long,
# and another third less with XLA's older code generator.
os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
    ' --xla_cpu_use_fusion_emitters=false',
)


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
            return end.value.code
        assert not end.value.code, end.value.code
        run.warned = [line for line in err.splitlines() if line.startswith('warning: ')]
        return json.loads(out)

    return run


def _words(value):
    return list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
