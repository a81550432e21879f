"""Flags and errors of all tools."""

import ast
import builtins
import pathlib

import jax
import pytest

from ldm_jax import command_line
from ldm_jax.checkpoints.checksums import Damaged
from ldm_jax.checkpoints.files.tensor_file import BadFile
from ldm_jax.command_line import Parser
from ldm_jax.data.corrupt import TooManyCorrupt
from ldm_jax.errors import Failed
from ldm_jax.training.monitoring.metric_buffer import NonFinite


def ended(capsys, main, parse=lambda: None, **kwargs):
    with pytest.raises(SystemExit) as end:
        command_line.run(main, parse, **kwargs)
    return end.value.code, capsys.readouterr().err


def failing(error):
    def main(args):
        raise error

    return main


@pytest.mark.parametrize(
    ('error', 'code'),
    [
        (ValueError('no model\n  here'), 2),
        (FileNotFoundError('no model here'), 2),
        (FileExistsError('no model here'), 2),
        (PermissionError('no model here'), 2),
        (OSError('no model here'), 1),
        (Failed('no model here'), 1),
        (Damaged('no model here'), 1),
        (BadFile('no model here'), 1),
        (TooManyCorrupt('no model here'), 1),
        (NonFinite('no model here'), 1),
        (ModuleNotFoundError('no model here', name='wandb'), 1),
    ],
)
def test_an_error_that_is_expected_is_one_line_and_the_code_says_whose_it_is(capsys, error, code):
    assert ended(capsys, failing(error)) == (code, 'error: no model here\n')


@pytest.mark.parametrize(
    'error', [KeyError('x'), TypeError('x'), AttributeError('x'), ModuleNotFoundError('x', name='ldm_jax.x')]
)
def test_a_bug_is_not(error):
    with pytest.raises(type(error)):
        command_line.run(failing(error), lambda: None)


def test_every_error_of_the_package_s_own_is_expected():
    """But Preempted, which is no failure, and what is caught where it can be raised."""
    own = set()
    for path in pathlib.Path(command_line.__file__).parent.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    kind = getattr(builtins, getattr(base, 'id', ''), None)
                    if isinstance(kind, type) and issubclass(kind, Exception):
                        own |= set() if issubclass(kind, command_line.EXPECTED) else {node.name}
    assert own <= {'Preempted', 'Corrupt'}


def test_a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv(command_line.TRACEBACK, '1')
    with pytest.raises(ValueError, match='here'):
        command_line.run(failing(ValueError('here')), lambda: None)


@pytest.mark.parametrize(
    'error',
    [
        MemoryError(),
        jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.\nmore'),
    ],
)
def test_out_of_memory_names_the_remedy(capsys, error):
    code, text = ended(capsys, failing(error), memory='--tile 512, or a smaller --batch_size')
    assert code == 1
    assert text.startswith('error: out of memory (')
    assert text.endswith('what helps: --tile 512, or a smaller --batch_size\n')
    assert text.count('\n') == 1


def test_memory_that_has_really_run_out(capsys):
    found = ended(capsys, lambda args: jax.jit(lambda: jax.numpy.zeros((2**45,)))().block_until_ready())
    assert found[0] == 1
    assert found[1].startswith('error: out of memory')


def test_other_failures_of_the_runtime_are_not_taken_for_it():
    with pytest.raises(jax.errors.JaxRuntimeError):
        command_line.run(failing(jax.errors.JaxRuntimeError('INTERNAL: x')), lambda: None)


def test_the_exit_code_is_that_of_main(capsys):
    assert ended(capsys, lambda args: 3)[0] == 3
    assert ended(capsys, lambda args: None)[0] is None


def parser(**kwargs):
    made = Parser('A tool.', **kwargs)
    made.add_argument('--num_steps', type=int)
    made.add_argument('--config')
    return made


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--num_step', '1'], 'unknown flag --num_step; did you mean --num_steps?'),
        (['--num_steps', 'x'], "argument --num_steps: invalid int value: 'x'"),
        (['--steps=3'], 'unknown flag --steps'),
        (['x'], "unexpected argument 'x'"),
    ],
)
def test_wrong_flags_are_one_line(capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(arguments)
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith(f'error: {words}')
    assert text.count('\n') == 1


def test_overrides_are_kept_apart_from_flags():
    args = parser(overrides=True).parse_args(
        ['--config.a.b=c=d', '--num_steps', '1', '--config', 'x.py', '--config.e', '-1', '--config.f=']
    )
    assert args.overrides == [('a.b', 'c=d'), ('e', '-1'), ('f', '')]
    assert (args.num_steps, args.config) == (1, 'x.py')


@pytest.mark.parametrize('arguments', [['--config.a'], ['--config.a', '--num_steps', '1']])
def test_an_override_without_a_value_is_refused(capsys, arguments):
    with pytest.raises(SystemExit):
        parser(overrides=True).parse_args(arguments)
    assert '--config.a has no value' in capsys.readouterr().err
