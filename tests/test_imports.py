"""Imports go down only, and light modules stay light."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAYERS = {
    'types': 0, 'trees': 0, 'build': 0, 'images': 0, 'progress': 0, 'cache': 0,
    'schedules': 1, 'diffusion': 1, 'samplers': 1, 'models': 1, 'costs': 1, 'text': 1, 'data': 1,
    'checkpoints': 2, 'adapters': 2, 'conditioning': 2,
    'training': 3, 'inference': 3,
    'pipelines': 4, 'evaluation': 4,
    'aot': 4,
    'requests': 5,
}  # fmt: skip
SIDEWAYS = {('samplers', 'diffusion')}  # inside layer 1 the folders ignore each other, but for this
FILES = sorted((ROOT / 'ldm_jax').rglob('*.py'))


def imported(path: pathlib.Path) -> set[str]:
    """The modules that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            found |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = path.relative_to(ROOT / 'ldm_jax').parts[0].removesuffix('.py')
    if here == '__init__':
        assert imported(path) == set()
        return
    for name in imported(path):
        assert name.split('.')[0] not in ('configs', 'tools', 'tests', 'torch', 'tensorflow', 'diffusers'), (
            name
        )
        if name.startswith('ldm_jax.'):
            there = name.split('.')[1]
            down = LAYERS[there] < LAYERS[here] or there == here or LAYERS[here] == LAYERS[there] == 0
            assert down or (here, there) in SIDEWAYS, f'{here} (layer {LAYERS[here]}) imports {name}'


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda path: path.name)
def test_configs_import_only_config_dicts_and_each_other(path):
    allowed = {'ml_collections', 'configs'} | sys.stdlib_module_names
    assert {name.split('.')[0] for name in imported(path)} <= allowed


def modules_after(code: str) -> set[str]:
    code += '\nimport sys; print(*{name.partition(".")[0] for name in sys.modules})'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(run.stdout.split())


def test_the_package_alone_imports_nothing_heavy():
    assert not modules_after('import ldm_jax') & {
        'jax',
        'flax',
        'numpy',
        'orbax',
        'torch',
        'tensorflow',
        'PIL',
    }


@pytest.mark.slow
def test_sampling_imports_neither_torch_nor_tensorflow():
    loaded = modules_after(
        'import sys; sys.path.insert(0, "tools"); import sample\n'
        'from ldm_jax.checkpoints import store\n'
        'from ldm_jax.requests import command\n'
        'from ldm_jax.text import clip; clip.Tokenizer()("a red apple")\n'
        'from orbax.checkpoint import v1'
    )
    assert 'jax' in loaded
    assert not loaded & {'torch', 'tensorflow', 'transformers', 'diffusers'}


@pytest.mark.parametrize('path', sorted((ROOT / 'tools').glob('*.py')), ids=lambda path: path.name)
def test_a_tool_answers_help_without_importing_jax(path):
    code = f"""
import runpy, sys
sys.argv = [{str(path)!r}, '--help']
try:
    runpy.run_path({str(path)!r}, run_name='__main__')
except SystemExit:
    assert 'jax' not in sys.modules
"""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert path.stem in run.stdout
