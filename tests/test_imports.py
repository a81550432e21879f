"""Imports go down only, and light modules stay light."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Rooms of one layer ignore each other. A file beside the rooms, such as types.py, is below them all unless it is named.
LAYERS = {
    'schedules': 1, 'diffusion': 1, 'models': 1, 'text': 1, 'data': 1, 'costs': 1,
    'samplers': 2, 'checkpoints': 2, 'conditioning': 2,
    'adapters': 3,
    'training': 4, 'inference': 4,
    'pipelines': 5, 'evaluation': 5, 'aot': 5,
    'requests': 6, 'sweeps': 6,
    'server': 7,
}  # fmt: skip
ONLY = {'samplers': {'diffusion'}}  # a sampler knows noise levels: no network, no schedule, no text
FILES = sorted((ROOT / 'ldm_jax').rglob('*.py'))
ELSEWHERE = {'configs', 'tools', 'tests', 'experiments', 'torch', 'tensorflow', 'diffusers'}


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


def room(path: pathlib.Path) -> str:
    """The folder of ldm_jax/ that a file lies in; of a file beside the folders its own name."""
    return path.relative_to(ROOT / 'ldm_jax').parts[0].removesuffix('.py')


def arrows_up(path: pathlib.Path) -> list[str]:
    """What a file imports that it may not, one line each."""
    here, names = room(path), imported(path)
    where = path.relative_to(ROOT)
    if here == '__init__':
        return [f'{where} imports {name}' for name in names - sys.stdlib_module_names]
    if path.parent != ROOT / 'ldm_jax' and here not in LAYERS:
        return [f'{here}/ has no layer in {__file__}']
    wrong = [f'{where} imports {name}' for name in names if name.partition('.')[0] in ELSEWHERE]
    for name in names:
        if not name.startswith('ldm_jax.'):
            continue
        there = name.split('.')[1]
        lower = LAYERS.get(there, 0) < LAYERS.get(here, 0)
        beside = there == here or LAYERS.get(there, 0) == LAYERS.get(here, 0) == 0
        wanted = ONLY.get(here)
        if not (lower or beside) or not (wanted is None or there in wanted | {here} or there not in LAYERS):
            wrong.append(f'{where} (layer {LAYERS.get(here, 0)}) imports {name}')
    return wrong


def test_imports_go_down_only():
    assert not [wrong for path in FILES for wrong in arrows_up(path)]


def test_no_module_imports_itself_by_way_of_others():
    """Wherever in a file the import stands: one inside a function hides a circle, it does not open it."""
    modules = {
        '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
        for path in FILES
    }
    graph = {
        module: {name for name in imported(path) if name in modules and name not in (module, 'ldm_jax')}
        for module, path in modules.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f'a circle of imports: {" <- ".join(error.args[1])}')


def test_configs_import_only_config_dicts_and_each_other():
    allowed = {'ml_collections', 'configs'} | sys.stdlib_module_names
    files = sorted((ROOT / 'configs').glob('*.py'))
    assert files
    assert not [
        (path.name, name) for path in files for name in imported(path) if name.split('.')[0] not in allowed
    ]


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
