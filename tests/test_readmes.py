"""The pages' claims that a machine can check: links lead somewhere, commands have their flags, Python runs."""

import ast
import doctest
import functools
import importlib
import itertools
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import configs
from ldm_jax import command_line
from ldm_jax.training import overrides
from tests.test_dependencies import requirements

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / 'README.md'
FOLDERS = ('ldm_jax', 'configs', 'tools', 'experiments', 'tests', '.github')
PAGES = [README, *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob('*.md'))]
WITH_COMMANDS = [
    *PAGES,
    *sorted(path for folder in ('tools', 'configs', 'experiments') for path in (ROOT / folder).rglob('*.py')),
]
# Repositories of the hub that the pages name, and what stands for them where nothing may be downloaded.
OFFLINE = {'stable-diffusion-v1-5/stable-diffusion-v1-5': 'emoji32'}


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```$', path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: pathlib.Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    titles = re.findall(r'^#+ (.*)$', path.read_text(), flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title).strip().lower().replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if re.match(r'https?://', link):
            continue
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), f'{name(page)} links to {link}'
        assert not anchor or anchor in anchors(target), f'{name(page)} links to {link}'


@pytest.mark.parametrize('page', [page for page in PAGES if page.parent.name != 'fixtures'], ids=name)
def test_every_file_of_the_repository_that_a_page_names_exists(page):
    named = re.findall(
        r'`((?:ldm_jax|configs|tools|experiments|tests|\.ci|\.github)/[\w./-]*)`', page.read_text()
    )
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


def commands(path: pathlib.Path) -> list[list[str]]:
    """The words of each command of a page's shell blocks, or of a script's docstring."""
    if path.suffix == '.md':
        text = '\n'.join(blocks(path, 'bash'))
    else:
        doc = ast.get_docstring(ast.parse(path.read_text())) or ''
        # Square brackets hold what may be left out; a command goes on where its line ends in a backslash.
        text = re.sub(
            r'[\[\]]',
            '',
            '\n'.join(re.findall(r'^ *((?:python|tools)[ /](?:.*\\\n)*.*)$', doc, re.MULTILINE)),
        )
    found = []
    for line in text.replace('\\\n', ' ').splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        for between, command in itertools.groupby(words, lambda word: word in ('&&', '|', ';')):
            if not between:
                found.append(list(command))
    return found


@functools.cache
def flags(tool: str) -> set[str]:
    """The flags that a tool's --help lists."""
    run = subprocess.run([sys.executable, tool, '--help'], capture_output=True, text=True, cwd=ROOT)
    assert pathlib.Path(tool).stem in run.stdout, run.stderr  # absl's --help exits with 1
    return {flag.replace('[no]', '') for flag in re.findall(r'--(?:\[no\])?[a-z]\w*', run.stdout)}


def check_flags(words: list[str]) -> None:
    tool, *rest = words
    assert (ROOT / tool).is_file(), f'there is no {tool}'
    for word in rest:
        if word == '--':
            break
        flag = re.match(r'--[a-z][\w.]*', word)
        if flag and not flag[0].startswith('--config.'):
            assert flag[0] in flags(tool), f'{tool} has no {flag[0]}'


@pytest.mark.parametrize('path', [path for path in WITH_COMMANDS if commands(path)], ids=name)
def test_commands_name_tools_flags_and_configs_that_exist(path):
    for words in commands(path):
        if words[0] == 'python' and words[1].endswith('.py'):
            check_flags(words[1:])
        elif '/' in words[0]:
            assert (ROOT / words[0]).is_file()
        extras = [extra for word in words if word.startswith('.[') for extra in word[2:-1].split(',')]
        assert {*extras} <= requirements().keys()
        _, changes = command_line.split(words)
        for config in re.findall(r'configs/([a-z]\w*)\.py(:\w+)?', ' '.join(words)):
            # Raises for an unknown config, variant or field, and for a value of another kind.
            assert overrides.apply(configs.plain(configs.load(''.join(config))), changes)


@pytest.mark.parametrize(
    'page',
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page == README))
        for page in PAGES
        if blocks(page, 'python')
    ],
    ids=name,
)
def test_python_of_the_pages_runs(page, tmp_path, monkeypatch):
    """In the order of the page, in one namespace; lines with >>> are doctests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    namespace = {}
    for number, block in enumerate(blocks(page, 'python')):
        for repository, stand_in in OFFLINE.items():
            block = block.replace(repository, stand_in)
        if '>>>' in block:
            example = doctest.DocTestParser().get_doctest(
                block, namespace, f'{name(page)}[{number}]', name(page), 0
            )
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            assert runner.run(example, clear_globs=False).failed == 0
            namespace = example.globs
        else:
            exec(compile(block, f'{name(page)}[{number}]', 'exec'), namespace)


@pytest.mark.parametrize(
    'path',
    [path for path in sorted((ROOT / 'ldm_jax').rglob('*.py')) if '>>> ' in path.read_text()],
    ids=name,
)
def test_examples_in_docstrings_give_what_they_say(path):
    module = importlib.import_module(
        name(path).removesuffix('.py').removesuffix('/__init__').replace('/', '.')
    )
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed == 0


def test_ci_runs_the_readmes_test_command():
    lines = re.findall(r'^pip install .*pytest.*$', README.read_text(), flags=re.MULTILINE)
    assert len(lines) == 1
    for check in (
        '.[test]',
        '-c .ci/constraints.txt',
        'ruff check .',
        'ruff format --check .',
        'mypy',
        'python -m pytest',
    ):
        assert check in lines[0]
    assert lines[0] in (ROOT / '.github' / 'CONTRIBUTING.md').read_text()
    assert '.ci/run' in (ROOT / '.github' / 'workflows' / 'ci.yml').read_text()


def test_readme_is_what_a_newcomer_reads():
    assert 700 <= len(README.read_text().split()) <= 1300


@pytest.mark.parametrize(
    ('room', 'pattern'), [('ldm_jax', '*/__init__.py'), ('tools', '*.py'), ('experiments', '*/*.md')]
)
def test_the_page_of_a_room_names_everything_in_it(room, pattern):
    paths = [path.relative_to(ROOT / room).parts[0] for path in (ROOT / room).glob(pattern)]
    text = (ROOT / room / 'README.md').read_text()
    assert paths
    assert not [name for name in paths if name not in text]


def test_each_room_and_each_experiment_has_a_page():
    rooms = [ROOT / room for room in ('ldm_jax', 'configs', 'tools', 'experiments', 'tests')]
    rooms += {path.parent for path in (ROOT / 'experiments').glob('*/*.py')}
    assert not [name(room) for room in rooms if not (room / 'README.md').is_file()]
