"""The command lines of all tools: flags, overrides of a config, and errors that are one line.

    if __name__ == '__main__':
        command_line.run(main, parse)

A mistake of the user's, or of what a file holds, ends a tool with `error: ...` on one line of standard error. The exit
code of all tools is 2 for wrong use, a flag, a value, a name or a path that has to be given otherwise, and 1 for work
that failed: a damaged file, a full disk, memory that ran out, a missing package. LDM_JAX_TRACEBACK=1 in the environment
shows where it was found. A traceback without it is a bug of the package.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ldm_jax.errors import Failed

TRACEBACK = 'LDM_JAX_TRACEBACK'
CONFIG = '--config'
# A value, a file or an optional package is wrong or missing: the message says what to do.
EXPECTED = (OSError, ValueError, ModuleNotFoundError)
WRONG_USE = (
    ValueError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
MEMORY = 'smaller images or fewer at once'
Override = tuple[str, str]  # (dotted name of a field, its value as text)


class Parser(argparse.ArgumentParser):
    """Flags of a tool, whose wrong uses are one line on standard error and exit code 2.

    Args:
        description: the tool's docstring.
        overrides: `--config.NAME=VALUE` sets a field of the config: pairs in `overrides` of the parsed flags.
        compiles: the tool compiles programs: has --no_cache, see ldm_jax/compile_cache.py.
    """

    def __init__(self, description: str | None, *, overrides: bool = False, compiles: bool = False):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._overrides = overrides
        if compiles:
            self.add_argument(
                '--no_cache',
                action='store_true',
                help='compile anew, and keep nothing of it for the next start',
            )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        overrides: list[Override] = []
        if self._overrides:
            try:
                given, overrides = split(given)
            except ValueError as error:
                self.error(str(error))
        found, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        if self._overrides:
            found.overrides = overrides
        return found

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {_one_line(message)} (--help shows what there is)\n')

    def _unknown(self, argument: str) -> str:
        flag = argument.partition('=')[0]
        if not flag.startswith('-'):
            return f'unexpected argument {argument!r}'
        near = difflib.get_close_matches(flag, list(self._option_string_actions), n=1)
        return f'unknown flag {flag}' + (f'; did you mean {near[0]}?' if near else '')


def at_least(low: int) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers from `low` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f'must be at least {low}; got {value}')
        return value

    number.__name__ = 'whole number'  # argparse names it: invalid whole number value
    return number


def split(arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Arguments without the overrides of a config among them, and those: --config.a.b=VALUE or --config.a.b VALUE.

    Raises ValueError for one without a value.
    """
    rest, overrides = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith(f'{CONFIG}.'):
            rest.append(argument)
            continue
        name, equals, value = argument.removeprefix(f'{CONFIG}.').partition('=')
        if not equals:
            value = next(waiting, '--')
            if value.startswith('--'):
                raise ValueError(f'{CONFIG}.{name} has no value; give {CONFIG}.{name}=VALUE')
        overrides.append((name, value))
    return rest, overrides


def run(main: Callable[[Any], Any], parse: Callable[[], Any], memory: str = MEMORY) -> NoReturn:
    """Ends the program with the exit code that main(parse()) returns; an expected error is one line.

    memory: the remedy that is named when memory runs out.
    """
    with errors(memory):
        args = parse()
        if hasattr(args, 'no_cache'):
            from ldm_jax import compile_cache

            compile_cache.start(not args.no_cache)
        sys.exit(main(args))


@contextlib.contextmanager
def errors(memory: str = MEMORY):
    """Turns errors that are expected into one line on standard error and SystemExit."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit('interrupted')
    except Exception as error:
        if os.environ.get(TRACEBACK) or not (text := described(error, memory)):
            raise
        print(f'error: {text}', file=sys.stderr)
        sys.exit(exit_code(error))


def exit_code(error: Exception) -> int:
    """2 for an error of how a tool was used, 1 for work that failed."""
    return 2 if isinstance(error, WRONG_USE) and not isinstance(error, Failed) else 1


def described(error: Exception, memory: str = MEMORY) -> str:
    """An error that is expected, on one line; '' for any other."""
    if _out_of_memory(error):
        first = str(error).partition('\n')[0]
        return _one_line(f'out of memory ({first or "of this machine"}); what helps: {memory}')
    ours = isinstance(error, ModuleNotFoundError) and (error.name or '').startswith('ldm_jax')
    if isinstance(error, EXPECTED) and not ours:
        return _one_line(str(error)) or type(error).__name__
    return ''


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    # By name: JAX need not be imported to have failed.
    return type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError') and (
        'RESOURCE_EXHAUSTED' in str(error) or 'out of memory' in str(error).lower()
    )


def _one_line(text: str) -> str:
    return ' '.join(text.split())
