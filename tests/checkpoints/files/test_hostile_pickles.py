"""Nothing in a PyTorch file runs, whatever it is made of.

The tricks are those of public corpora and of loaders' and scanners' advisories, made anew: fickling, picklescan,
PickleBall, MalHug, nullifAI. Each would create a file if it ran.
"""

import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.files.reader import BadFile
from tests.checkpoints.files import file_builders as files
from tests.checkpoints.files.file_builders import (
    call,
    dictionary,
    integer,
    items,
    name,
    program,
    tensor,
    text,
)

CONTAINERS = {'zip': files.torch_zip, 'legacy': files.torch_legacy}


def packed(container, program):
    """A file of a pickle, with the four numbers that its tensor needs if it has one."""
    data = {'zip': files.FOUR.tobytes(), 'legacy': files.FOUR}[container]
    return CONTAINERS[container](program, {'0': data} if b'FloatStorage' in program else {})


COMMAND = text('touch CANARY')


b'x'.decode('raw-unicode-escape')  # loads the codec, which would be an event
WATCHED = []  # events of Python's audit while a file is opened
_watching = False


def _hook(event, arguments):
    if _watching:
        WATCHED.append((event, arguments))


sys.addaudithook(_hook)


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    """Fails a test in which something was run."""
    monkeypatch.chdir(tmp_path)
    fired = []
    monkeypatch.setattr(os, 'system', fired.append)
    yield
    assert fired == []
    assert not list(tmp_path.rglob('*CANARY*'))


def opened(content):
    """The file of these bytes, opened: the only thing that Python's audit sees is that."""
    global _watching
    with open('file', 'wb') as out:
        out.write(content)
    WATCHED.clear()
    _watching = True
    try:
        return reader.open_file('file')
    finally:
        _watching = False
        # Imports, compilations, calls into the system: all would be events.
        seen = {(event, str(arguments[0])) for event, arguments in WATCHED if event != 'builtins.id'}
        assert seen == {('open', 'file')}


def string(value):
    return b'V' + value.encode() + b'\n'


# What runs a command line, or a Python text, or is handed something else: 'module:name'.
SHELL = """os:system posix:system nt:system os:popen commands:getoutput subprocess:getoutput subprocess:call pty:spawn
    torch.utils.collect_env:run torch._inductor.codecache:compile_file distutils.spawn:spawn platform:popen
    asyncio.unix_events:_UnixSubprocessTransport._start operator:methodcaller torch.hub:os.system"""
PYTHON = """builtins:eval builtins:exec builtins:compile __builtin__:eval __builtin__:exec timeit:timeit cProfile:run
    profile:run bdb:Bdb.run trace:Trace.run doctest:debug_script runpy:_run_code code:InteractiveInterpreter.runcode
    numpy.testing._private.utils:runstring numpy.f2py.crackfortran:getlincoef marshal:loads pickle:loads _pickle:loads
    dill._dill:_create_function cloudpickle.cloudpickle:_make_function types:CodeType types:FunctionType
    torch.jit.unsupported_tensor_ops:execWrapper torch._dynamo.guards:GuardBuilder.get
    lib2to3.pgen2.grammar:Grammar.loads
    idlelib.autocomplete:AutoComplete.get_entity idlelib.pyshell:ModifiedInterpreter.runcode joblib:load numpy:load
    torch:load pandas:read_pickle yaml:unsafe_load"""
OTHER = """builtins:open _io:open io:FileIO pathlib:Path builtins:__import__ importlib:import_module pip:main
    pip._internal:main torch.hub:load webbrowser:open ctypes:CDLL socket:create_connection requests:get
    urllib.request:urlopen shutil:rmtree os:remove logging.config:dictConfig copyreg:add_extension
    builtins:type builtins:property builtins:getattr sys:exit builtins:breakpoint threading:Thread"""
TOUCH = text("open('CANARY', 'w')")


# name -> a pickle expression that would run something, and a name in it that is refused
CALLS = {
    case: (call(*case.split(':'), argument), case.replace(':', '.'))
    for cases, argument in ((SHELL, COMMAND), (PYTHON, TOUCH), (OTHER, text('CANARY')))
    for case in cases.split()
} | {
    'getattr chain': (
        call('builtins', 'getattr', call('builtins', '__import__', text('os')), text('system')) + items(COMMAND) + b'R',
        'builtins.getattr',
    ),
    'attrgetter': (
        call('operator', 'attrgetter', text('system'))
        + items(call('importlib', 'import_module', text('os'))) + b'R' + items(COMMAND) + b'R',
        'operator.attrgetter',
    ),
    'partial': (call('functools', 'partial', name('os', 'system'), COMMAND) + b')R', 'functools.partial'),
    'partial by BUILD': (
        call('functools', 'partial', name('builtins', 'print'))
        + items(name('os', 'system'), items(COMMAND), b'}', b'N') + b'b)R',
        'functools.partial',
    ),
    'map': (call('builtins', 'map', name('os', 'system'), items(COMMAND)), 'builtins.map'),
    'next of map': (
        call('builtins', 'next', call('builtins', 'map', name('os', 'system'), items(COMMAND))), 'builtins.next',
    ),
    'list of map': (call('builtins', 'any', call('itertools', 'starmap', name('os', 'system'), items())), 'os.system'),
    'reduce': (call('functools', 'reduce', name('os', 'system'), items(COMMAND)), 'functools.reduce'),
    'STACK_GLOBAL': (b'\x8c\x02os' + b'\x8c\x06system' + b'\x93' + items(COMMAND) + b'R', 'os.system'),
    'a dotted name': (text('torch') + text('hub.os.system') + b'\x93' + items(COMMAND) + b'R', 'torch.hub.os.system'),
    'a name from the memo': (
        text('os') + b'q\x070h\x07' + text('system') + b'\x93' + items(COMMAND) + b'R', 'os.system',
    ),
    'an escaped name': (b'V\\u006fs\nV\\u0073ystem\n\x93(' + string('touch CANARY') + b'tR', 'os.system'),
    'protocol 0': (b'cos\nsystem\n(' + string('touch CANARY') + b'tR', 'os.system'),
    'INST': (b'(' + string('touch CANARY') + b'ios\nsystem\n', 'os.system'),
    'OBJ': (b'(' + name('os', 'system') + COMMAND + b'o', 'os.system'),
    'NEWOBJ': (name('os', 'system') + items(COMMAND) + b'\x81', 'os.system'),
    'NEWOBJ_EX': (name('os', 'system') + items(COMMAND) + b'}\x92', 'os.system'),
    'BUILD of __setstate__': (
        name('collections', 'UserDict') + b')\x81' + dictionary(__setstate__=name('os', 'system')) + b'b'
        + COMMAND + b'b',
        'os.system',
    ),
    'BUILD of __dict__': (
        name('torch.nn', 'Module') + b')R'
        + dictionary(__dict__=name('os', 'x'), __class__=name('os', 'system')) + b'b',
        'os.system',
    ),
    'items': (name('os', 'environ') + text('LD_PRELOAD') + text('CANARY') + b's', 'os.environ'),
    'append': (name('sys', 'path') + text('CANARY') + b'a', 'sys.path'),
    'finalize': (call('weakref', 'finalize', b'}', name('os', 'system'), COMMAND), 'weakref.finalize'),
    'a reconstructor': (
        call('copyreg', '_reconstructor', name('os', 'system'), name('builtins', 'object'), b'N'),
        'copyreg._reconstructor',
    ),
    'a default factory': (call('collections', 'defaultdict', name('os', 'system')), 'os.system'),
    'a tensor of a subclass': (
        call('torch._tensor', '_rebuild_from_type_v2', name('os', 'system'), name('os', 'x'), items(COMMAND), b'}'),
        'os.system',
    ),
    'a parameter': (
        call('torch._utils', '_rebuild_parameter', call('os', 'system', COMMAND), b'\x88', b'}'), 'os.system',
    ),
    'a storage': (
        call(
            'torch._utils', '_rebuild_tensor_v2', call('os', 'system', COMMAND), integer(0), items(), items(),
            b'\x89', b'}',
        ),
        'os.system',
    ),
    "a storage's type": (
        call(
            'torch._utils', '_rebuild_tensor_v2',
            items(text('storage'), name('os', 'system'), text('0'), text('cpu'), integer(4)) + b'Q',
            integer(0), items(integer(4)), items(integer(1)), b'\x89', b'}',
        ),
        'os.system',
    ),
    'source code': (items(text('module'), name('os', 'system'), text('x.py'), text('import os')) + b'Q', 'os.system'),
}  # fmt: skip


@pytest.mark.parametrize('container', CONTAINERS)
@pytest.mark.parametrize('case', CALLS)
def test_a_call_in_a_tensor_s_place_is_inert_and_listed(container, case):
    expression, refused = CALLS[case]
    # Beside a tensor: that one is read. In its place: there is no such key, and if no other, no file.
    with opened(packed(container, program(dictionary(w=tensor(), evil=expression)))) as file:
        assert set(file) == {'w'}
        np.testing.assert_array_equal(file['w'], files.FOUR)
        assert refused in file.refused
    with pytest.raises(BadFile, match='which are not imported') as caught:
        opened(packed(container, program(dictionary(w=expression))))
    assert repr(refused) in str(caught.value)


@pytest.mark.parametrize('container', CONTAINERS)
@pytest.mark.parametrize('case', CALLS)
def test_a_call_for_the_whole_and_one_beside_it(container, case):
    expression, refused = CALLS[case]
    with pytest.raises(BadFile, match='not imported'):
        opened(packed(container, program(expression)))
    with opened(packed(container, program(expression + b'0' + dictionary(w=tensor())))) as file:
        assert refused in file.refused  # run and thrown away, as fickling injects it
    with opened(
        packed(container, program(dictionary(callbacks=expression, state_dict=dictionary(w=tensor()))))
    ) as file:
        assert (set(file), file.wrapper) == ({'w'}, 'state_dict')
    with opened(packed(container, program(dictionary(w=tensor()) + expression + b'b'))) as file:
        assert set(file) == {'w'}  # as the state of the state dict


MALFORMED = {
    'extension 1': (b'\x82\x07', 'no opcode'),
    'extension 2': (b'\x83\x07\x00', 'no opcode'),
    'extension 4': (b'\x84\x07\x00\x00\x00', 'no opcode'),
    'next buffer': (b'\x97', 'no opcode'),
    'read-only buffer': (text('x') + b'\x98', 'no opcode'),
    'text persistent id': (b'Pstorage\n', 'no opcode'),
    'unknown opcode': (b'\xff', 'no opcode'),
    'protocol 6': (b'\x80\x06', 'protocol 6'),
    'empty stack': (b'R', 'too short'),
    'below the mark': (text('x') + b'(a', 'too short'),
    'no mark': (b't', 'no mark'),
    'unknown memo': (b'h\x09', 'remembered'),
    'a text is called': (text('x') + b')R', 'a str is called'),
    'a dict is called': (b'})R', 'a dict is called'),
    'a tensor is called': (tensor() + b')R', 'a Tensor is called'),
    'arguments that are a list': (name('os', 'system') + b']R', 'arguments that are a list'),
    'name that is a number': (integer(1) + text('x') + b'\x93', 'a name'),
    'state of a list': (b']Nb', 'state is set on a list'),
    'state of a constructor': (name('collections', 'OrderedDict') + b'}b', 'state is set on collections.OrderedDict'),
    'item of a constructor': (name('torch', 'Size') + text('a') + b'Ns', 'set in torch.Size'),
    'append to a tuple': (b')Na', 'put in a tuple'),
    'list as key': (b'}]Ns', 'list as key'),
    'key without value': (b'}(Nu', 'key without a value'),
    'keywords for a shape': (name('torch', 'Size') + b')' + dictionary(a=b'N') + b'\x92', 'with keywords'),
    'frame beyond the end': (b'\x95' + b'\xff' * 8, 'a frame beyond'),
    'bytes beyond the end': (b'B\xff\xff\xff\x7f', 'more objects than|more bytes'),
    'bytes of 2^63': (b'\x8e' + b'\xff' * 7 + b'\x7f', 'more objects than|more bytes'),
    'negative bytes': (b'T\xff\xff\xff\xff', 'a length of -1'),
    'integer of 2 GB': (b'\x8b\xff\xff\xff\x7f', 'an integer of 2147483647 bytes'),
    'integer of negative length': (b'\x8b\xff\xff\xff\xff', 'an integer of -1'),
    'integer of many digits': (b'I' + b'9' * 5000 + b'\n', 'an integer of 5000 digits'),
    'line without end': (b'I12', 'a line without an end'),
    'no integer': (b'Ix\n', 'invalid literal'),
    'no float': (b'Fx\n', 'could not convert'),
    'quoted text': (b"S'x'\n", 'no opcode'),
    'not UTF-8': (b'X\x01\x00\x00\x00\xff', 'utf-8'),
    'negative memo index': (b'Np-1\n', 'memo index of -1'),
    'persistent id of text': (text('storage') + b'Q', 'no tuple'),
    'persistent id of nothing': (b')Q', 'no tuple'),
    'storage of negative size': (tensor(count=-1), 'a storage whose'),
    'storage of size 2^62': (tensor(count=2**62), 'a storage whose'),
    'shape beyond the storage': (tensor(shape=(5,)), 'ends at byte 20 of storage .0. of 16'),
    'offset beyond the storage': (tensor(offset=1), 'ends at byte 20'),
    'offset of 2^59': (tensor(offset=2**59), 'ends at byte'),
    'negative offset': (tensor(offset=-1), 'no counts'),
    'stride beyond the storage': (tensor(shape=(2, 2), strides=(1, 4)), 'ends at byte'),
    'negative stride': (tensor(offset=3, strides=(-1,)), 'no counts'),
    'negative shape': (tensor(shape=(-1,)), 'no counts'),
    'shape that overflows': (tensor(shape=(2**32, 2**32), strides=(0, 0)), 'than an array can have'),
    'axes beyond NumPy': (tensor(shape=(1,) * 65, strides=(0,) * 65), '65 axes'),
    'strides of another length': (tensor(shape=(2, 2), strides=(1,)), 'no counts'),
    'repeated without end': (tensor(shape=(2**30,), strides=(0,)), 'repeated from a storage of 16'),
    'storage that is not there': (tensor(key='9'), "storage '9'|no tensor is in it"),
    'storage outside': (tensor(key='../data.pkl'), "storage '../data.pkl'|no tensor"),
    'storage of another size': (tensor(count=3, shape=(3,)), 'for 12|was said to have 3'),
    'too few arguments': (call('torch._utils', '_rebuild_tensor_v2'), 'unpack'),
    'scalar of wrong bytes': (
        call('numpy.core.multiarray', 'scalar', call('numpy', 'dtype', text('f8'), b'\x89', b'\x88'), b'C\x01a'),
        'not those of its type',
    ),
    'other codec': (call('_codecs', 'encode', text('x'), text('rot13')), 'latin1'),
}  # fmt: skip


@pytest.mark.parametrize('container', CONTAINERS)
@pytest.mark.parametrize('case', MALFORMED)
def test_a_malformed_pickle_says_where_and_why(container, case):
    expression, message = MALFORMED[case]
    with pytest.raises(BadFile, match=message):
        opened(packed(container, program(dictionary(w=expression))))


def test_objects_of_numpy_and_torch_that_are_not_understood_are_inert():
    for expression in (
        call('numpy', 'dtype', text('O')),
        call('numpy', 'dtype', text('V8')),
        call('numpy.core.multiarray', '_reconstruct', name('numpy', 'ndarray'), items(integer(0)), b'C\x01b'),
        call('numpy.core.multiarray', 'scalar', call('numpy', 'dtype', text('O8')), b'C\x01a'),
    ):
        with opened(files.one_tensor(x=expression)) as file:
            assert set(file) == {'w'}
            assert file.refused


WHOLE = {
    'a bare pickle': (program(call('os', 'system', COMMAND)), 'a bare pickle'),
    'a bare pickle of protocol 0': (b'cos\nsystem\n(' + string('touch CANARY') + b'tR.', 'unknown kind'),
    'stacked bare pickles': (program(b'}') + program(call('os', 'system', COMMAND)), 'a bare pickle'),
    'the magic number, then a call': (
        pickle.dumps(files.LEGACY[0], 2) + program(call('os', 'system', COMMAND)), 'protocol is not 1001|pickle',
    ),
    'the magic number before a zip file': (
        pickle.dumps(files.LEGACY[0], 2) + files.one_tensor(call('os', 'system', COMMAND)), 'pickle',
    ),
    'a call before a zip file': (program(call('os', 'system', COMMAND)) + files.one_tensor(), 'a bare pickle'),
    'a call behind the pickle': (
        files.torch_zip(program(dictionary(w=tensor())) + program(call('os', 'system', COMMAND)), {'0': bytes(16)}),
        'something follows',
    ),
    'a legacy file with something behind': (packed('legacy', program(dictionary(w=tensor()))) + b'x', 'storages end'),
    'a pickle of two objects': (files.torch_zip(program(b'}}')), 'more than one object'),
    '7z': (b"7z\xbc\xaf'\x1c" + bytes(40), '7z archive'),
    'gzip': (b'\x1f\x8b' + bytes(40), 'gzip'),
    'tar': (bytes(257) + b'ustar' + bytes(300), 'tar file'),
    'web page': (b'<!DOCTYPE html><html></html>', 'web page'),
    'Git LFS': (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    'nothing': (b'', 'unknown kind'),
}  # fmt: skip


@pytest.mark.parametrize('case', WHOLE)
def test_other_files_say_what_they_are(case):
    content, message = WHOLE[case]
    with pytest.raises(BadFile, match=message):
        opened(content)


def test_a_pickle_that_unpacks_to_far_more_is_refused():
    members = {'a/data.pkl': program(b'N0' * (4 << 20) + dictionary(w=tensor()))}
    content = files.zip_file(members, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadFile, match='unpacks from'):
        opened(content)


def test_a_deep_object_is_dropped_without_recursion():
    nest = b'(' * 100_000 + b'l' * 100_000
    with opened(files.one_tensor(x=nest)) as file:
        assert set(file) == {'w'}
    state = b'h\x00)Rh\x01bq\x010'  # a new object, whose state is the one before
    chain = name('x', 'X') + b'q\x000Nq\x010' + state * 20_000 + b'h\x01'
    with opened(files.one_tensor(x=chain)) as file:
        assert set(file) == {'w'}
