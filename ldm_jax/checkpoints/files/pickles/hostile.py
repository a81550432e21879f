"""Names by which pickles run programs, and which no saved model has: a file with one was made to do harm.

Nothing is ever run whatever a pickle names (allowed.py), so this list protects nobody here. It tells people what they
have, before they open the file with something else. Names that are no threat, such as those of training frameworks,
are left to be inert.

Ref: the lists of picklescan and fickling.
"""

from __future__ import annotations

from collections.abc import Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules whose every name would serve; loggers, types and functions of notebooks are not among them.
MODULES = _words(
    """os posix nt sys subprocess commands popen2 pty shutil socket ctypes _ctypes cffi importlib imp _imp pkgutil
    runpy zipimport pip ensurepip code codeop bdb pdb cProfile profile timeit trace doctest pydoc venv lib2to3
    idlelib marshal shelve webbrowser http urllib urllib2 urllib3 requests httpx aiohttp ftplib smtplib"""
)
# Those that can be reached through others: 'torch.hub.os.system'.
INNER = _words('os posix sys subprocess pty socket ctypes importlib builtins')
BUILTINS = _words(
    """eval exec execfile compile open file input __import__ getattr setattr delattr globals locals vars breakpoint
    exit quit apply map filter next"""
)
NAMES = _words(
    """pickle.load pickle.loads _pickle.load _pickle.loads operator.attrgetter operator.methodcaller types.CodeType
    io.open io.FileIO _io.open _io.FileIO numpy.load pandas.read_pickle joblib.load yaml.load yaml.unsafe_load
    torch.load torch.hub.load torch.jit.load torch.utils.collect_env.run torch._inductor.codecache.compile_file
    torch.jit.unsupported_tensor_ops.execWrapper torch._dynamo.guards.GuardBuilder.get distutils.spawn.spawn
    numpy.testing._private.utils.runstring numpy.f2py.crackfortran.getlincoef copyreg.add_extension
    logging.config.dictConfig logging.config.listen weakref.finalize platform.popen multiprocessing.Process"""
)


def names(refused: Iterable[str]) -> list[str]:
    """Those of the names that a pickle did not get by which it would have run something."""
    return [name for name in refused if _is_hostile(name)]


def _is_hostile(name: str) -> bool:
    root, *rest = name.split('.')
    if root in ('builtins', '__builtin__', '__builtins__'):
        return not rest or rest[0] in BUILTINS
    return root in MODULES or name in NAMES or not INNER.isdisjoint(rest)
