"""setup.py says what is needed: each requirement is used where it is installed, and nothing else is imported."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parent.parent
# Distributions whose modules no line of ours imports, and why they are named all the same.
SILENT = {
    'importlib-resources': 'TensorFlow Datasets imports it and does not name it',
    'pytest-xdist': 'a plugin: pytest -n',
    'pytest-timeout': 'a plugin: a test that hangs fails',
    'mypy': 'a command',
    'ruff': 'a command',
    'jax': 'extras cuda and tpu: its plugins',
}
ELSEWHERE = {'configs', 'experiments', 'ldm_jax', 'tests', 'tools', 'libtpu'}  # libtpu comes with jax[tpu]
BASE_TOOLS = {'tools/sample.py', 'tools/convert.py', 'tools/inspect_model.py'}


@functools.cache
def requirements() -> dict[str, list[Requirement]]:
    """Part of setup.py ('' is the base, or an extra) -> its requirements."""
    import setuptools

    found = {}
    code = (ROOT / 'setup.py').read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, 'setup', found.update)
        exec(compile(code, 'setup.py', 'exec'), {})
    parts = {'': found['install_requires'], **found['extras_require']}
    return {part: [Requirement(line) for line in lines] for part, lines in parts.items()}


@functools.cache
def owners() -> dict[str, set[str]]:
    """Distribution that is installed -> its top-level modules."""
    found = {}
    for module, names in importlib.metadata.packages_distributions().items():
        for name in names:
            found.setdefault(canonicalize_name(name), set()).add(module)
    return found


def modules(distribution: str) -> set[str]:
    return owners().get(distribution, {distribution.replace('-', '_')})


@functools.cache
def imported(*folders: str) -> dict[str, set[str]]:
    """Top-level module from elsewhere -> the files that import it, at their head or when it is needed."""
    found = {}
    for folder in folders:
        for path in [ROOT / folder] if folder.endswith('.py') else sorted((ROOT / folder).rglob('*.py')):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                for name in {name.partition('.')[0] for name in names} - sys.stdlib_module_names - ELSEWHERE:
                    found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def names(*parts: str) -> set[str]:
    return {canonicalize_name(requirement.name) for part in parts for requirement in requirements()[part]}


def of(*parts: str) -> set[str]:
    """The modules that parts of setup.py install."""
    return {module for name in names(*parts) for module in modules(name)}


@pytest.mark.parametrize('name', sorted(names('')))
def test_the_base_install_uses_each_of_its_requirements(name):
    """Outside training and data, which are the extra's."""
    rooms = [path.name for path in (ROOT / 'ldm_jax').iterdir() if path.name not in ('training', 'data')]
    used = set(imported('configs', *(f'ldm_jax/{room}' for room in rooms)))
    shown = {module for module, files in imported('tools').items() if files & BASE_TOOLS}
    assert modules(name) & (used | shown), f'{name} is installed for sampling and imported nowhere'


@pytest.mark.parametrize('name', sorted(names('train', 'test', 'wandb') - set(SILENT)))
def test_extras_use_each_of_their_requirements(name):
    used = imported('ldm_jax', 'tools', 'tests', 'experiments')
    assert modules(name) & set(used), f'{name} is imported nowhere'


def unknown(found: dict[str, set[str]], *parts: str) -> dict[str, set[str]]:
    """The imported modules that no part of setup.py installs."""
    return {module: files for module, files in found.items() if module not in of(*parts)}


def test_everything_that_is_imported_is_installed_by_some_part():
    assert not unknown(imported('ldm_jax', 'configs'), *requirements().keys() - {'test'})
    tools = {path.stem for path in (ROOT / 'tools').glob('*.py')}
    assert not unknown(imported('tools'), '', 'train', 'test').keys() - tools  # they import each other


def test_sampling_imports_what_the_base_installs_alone():
    train = {'training', 'data', 'aot', 'sweeps'}
    rooms = [path.name for path in (ROOT / 'ldm_jax').iterdir() if path.is_dir() and path.name not in train]
    assert not unknown(imported(*(f'ldm_jax/{room}' for room in rooms)), '')


def pinned(file: str) -> dict[str, str]:
    lines = re.findall(
        r'^([\w.-]+)(?:\[\w+\])?==(\S+)', (ROOT / '.ci' / file).read_text(), flags=re.MULTILINE
    )
    return {canonicalize_name(name): version for name, version in lines}


@pytest.mark.parametrize('file', ['constraints.txt', 'oldest.txt'])
def test_each_pinned_set_holds_each_requirement_at_an_allowed_version(file):
    versions = pinned(file)
    for part in ('', 'train', 'test'):
        for requirement in requirements()[part]:
            name = canonicalize_name(requirement.name)
            assert name in versions, f'{file} does not pin {name}'
            assert versions[name] in requirement.specifier, f'{file}: {name} {versions[name]}'


def test_the_oldest_set_is_at_the_lower_bounds():
    """So that a bound of setup.py is never below what the fast tier has passed with."""
    versions = pinned('oldest.txt')
    for part in ('', 'train', 'test'):
        for requirement in requirements()[part]:
            bounds = [bound.version for bound in requirement.specifier if bound.operator == '>=']
            assert len(bounds) == 1, requirement
            got = versions[canonicalize_name(requirement.name)]
            assert Requirement(f'x=={bounds[0]}').specifier.contains(got), (
                f'{requirement}: oldest.txt has {got}'
            )
