"""PyTorch's files, of today and before 1.6, against PyTorch."""

import collections
import io
import sys
import types

import numpy as np
import pytest

from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.files.pickles import allowed
from ldm_jax.checkpoints.files.reader import BadFile

torch = pytest.importorskip('torch')

FORMATS = {'zip': {}, 'legacy': {'_use_new_zipfile_serialization': False}}
formats = pytest.mark.parametrize('form', FORMATS)


def save(tree, path, form, **options):
    torch.save(tree, path, **FORMATS[form], **options)


def check(file, state):
    """The mapping is that of the tensors of a state dict, bit for bit."""
    assert file.kind == 'torch'
    assert file.metadata == {}
    assert file.keys() == state.keys()
    for key, tensor in state.items():
        array = file[key]
        assert array.shape == tuple(tensor.shape) == file.specs[key].shape, key
        assert array.dtype == file.specs[key].dtype == np.dtype(allowed.DTYPES[str(tensor.dtype)[6:]]), key
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        size = tensor.element_size()
        expected = (
            tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0)
        )
        assert array.tobytes() == expected.numpy().tobytes()[: tensor.numel() * size], key


def random_state(seed):
    """All types, in all the ways that a tensor can lie in a storage."""
    rng = np.random.default_rng(seed)
    state = collections.OrderedDict()
    for name in allowed.DTYPES:
        dtype = getattr(torch, name)
        raw = rng.integers(0, 2 if name == 'bool' else 256, 16 * 60, dtype=np.uint8)
        base = torch.from_numpy(raw).view(dtype)[:60].reshape(3, 4, 5)
        views = {
            'whole': base,
            'transposed': base.permute(2, 0, 1),
            'sliced': base[1:, ::2, 1:4],
            'column': base[:, 0, :],
            'one': base[1, 2, 3],
            'empty': base[:0],
            'empty_inside': base[:, 4:, :],
            'expanded': base[:1].expand(7, 4, 5),
            'narrow': base[:, :1, :].permute(1, 0, 2),
            'own': base.clone(),
        }
        for kind in rng.permutation(sorted(views)):
            state[f'{name}.{kind}.é'] = views[kind]
    return state


@formats
@pytest.mark.parametrize('seed', range(3))
def test_all_types_and_views(tmp_path, form, seed):
    state = random_state(seed)
    save(state, tmp_path / 'a', form)
    with reader.open_file(tmp_path / 'a') as file:
        check(file, state)
        if form == 'zip':  # PyTorch cannot read the legacy files that it writes of the newest types
            check(file, torch.load(tmp_path / 'a', weights_only=True))
        assert file.refused == ()
        assert file.wrapper == ''


@formats
def test_an_array_maps_its_own_bytes_only(tmp_path, form):
    big = torch.zeros(1 << 20)
    big[-3:] = torch.tensor([1.0, 2.0, 3.0])
    save({'tail': big[-3:], 'strided': big[-6:].reshape(2, 3).T}, tmp_path / 'a', form)
    with reader.open_file(tmp_path / 'a') as file:
        for array in (file['tail'], file['strided']):
            base = array
            while isinstance(base, np.ndarray):
                base = base.base
            assert len(memoryview(base)) < 1 << 17  # the allocation granularity at most
        np.testing.assert_array_equal(file['tail'], [1, 2, 3])
        np.testing.assert_array_equal(file['strided'], big[-6:].reshape(2, 3).T)


@formats
def test_modules_parameters_and_attributes(tmp_path, form):
    class Tagged(torch.Tensor):
        pass

    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    parameter = torch.nn.Parameter(torch.randn(3))
    noted = torch.nn.Parameter(torch.randn(2))
    noted.note = 'attributes'
    noted_tensor = torch.randn(2)
    noted_tensor.note = 'attributes'
    state = {**layer.state_dict(keep_vars=True), 'p': parameter, 'noted': noted, 'noted_tensor': noted_tensor}
    save(state, tmp_path / 'a', form)
    with reader.open_file(tmp_path / 'a') as file:
        check(file, state)
        assert file['1.num_batches_tracked'].shape == ()


@formats
@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_pickle_protocols(tmp_path, form, protocol):
    state = {
        'a': torch.arange(6).reshape(2, 3),
        'text' * 100: torch.ones(2),
        'n': 2**70,
        's': {1, 2},
        'b': b'x',
    }
    save(state, tmp_path / 'a', form, pickle_protocol=protocol)
    with reader.open_file(tmp_path / 'a') as file:
        check(file, {key: value for key, value in state.items() if isinstance(value, torch.Tensor)})
        assert file.scalars == {'n': 2**70}


def lightning(monkeypatch):
    """A checkpoint as PyTorch Lightning writes it, with classes that will not be there when it is read."""
    package, callbacks, module = (
        types.ModuleType(f'pytorch_lightning{name}')
        for name in ('', '.callbacks', '.callbacks.model_checkpoint')
    )

    class ModelCheckpoint:
        def __init__(self):
            self.best_model_score = torch.tensor(0.25)
            self.path = 'logs'

    class Config(dict):
        pass

    class Slotted:
        __slots__ = ('a',)

    for kind in (ModelCheckpoint, Config, Slotted):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    for each in (package, callbacks, module):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    slotted = Slotted()
    slotted.a = [torch.ones(2)]
    net = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        'epoch': 7,
        'global_step': 470000,
        'pytorch-lightning_version': '1.4.2',
        'state_dict': net.state_dict(),
        'callbacks': {
            ModelCheckpoint: {'best': np.float64(1.5), 'array': np.arange(3)},
            'x': ModelCheckpoint(),
        },
        'optimizer_states': [optimizer.state_dict()],
        'lr_schedulers': [
            {'milestones': collections.Counter([3, 3, 4]), 'base': collections.defaultdict(list)}
        ],
        'hyper_parameters': Config(lr=1e-4, nested=Config(slot=slotted)),
        'score': np.float32(0.5),
        'big_endian': np.array(7, '>i4')[()],
        'flag': np.bool_(True),
        'device': torch.device('cuda', 1),
        'dtype': torch.float16,
        'loops': {
            'fit': {'batches': 5, 'inner': {'deep': {'deeper': {'deepest': 1}}}},
            'size': torch.Size([2, 3]),
        },
    }


@formats
def test_a_lightning_checkpoint(tmp_path, form, monkeypatch):
    tree = lightning(monkeypatch)
    save(tree, tmp_path / 'last.ckpt', form)
    monkeypatch.undo()
    with reader.open_file(tmp_path / 'last.ckpt') as file:
        check(file, tree['state_dict'])
        assert file.wrapper == 'state_dict'
        assert file.scalars == {
            'epoch': 7,
            'global_step': 470000,
            'pytorch-lightning_version': '1.4.2',
            'score': 0.5,
            'big_endian': 7,
            'flag': True,
            'device': 'cuda:1',
            'loops.fit.batches': 5,
        }
        assert isinstance(file.scalars['score'], float)
        prefix = 'pytorch_lightning.callbacks.model_checkpoint'
        assert {f'{prefix}.ModelCheckpoint', f'{prefix}.Config', f'{prefix}.Slotted'} <= set(file.refused)


@formats
@pytest.mark.parametrize('wrapper', ['model', 'module', 'params_ema'])
def test_wrappers_are_opened_where_the_tensors_are(tmp_path, form, wrapper):
    state = {'a': torch.ones(2), 'deep': {'b': torch.ones(3)}}
    save({'iter': 3, wrapper: state}, tmp_path / 'a', form)
    with reader.open_file(tmp_path / 'a') as file:
        assert (set(file), file.wrapper, file.scalars) == ({'a'}, wrapper, {'iter': 3})
    save({'x': torch.zeros(1), wrapper: state}, tmp_path / 'b', form)
    with reader.open_file(tmp_path / 'b') as file:
        assert (set(file), file.wrapper) == ({'x'}, '')


@formats
def test_textual_inversions(tmp_path, form):
    vector = torch.randn(2, 768)
    parameters = torch.nn.ParameterDict({'*': torch.nn.Parameter(vector)})
    for index, held in enumerate([parameters, {'*': vector}]):
        tree = {
            'string_to_token': {'*': torch.tensor(265)},
            'string_to_param': held,
            'name': 'x',
            'step': 100,
        }
        save(tree, tmp_path / f'{index}.pt', form)
        with reader.open_file(tmp_path / f'{index}.pt') as file:
            assert file.wrapper == 'string_to_param'
            np.testing.assert_array_equal(file['*'], vector)
            assert file.scalars == {'name': 'x', 'step': 100}
    save({'<word>': vector[0]}, tmp_path / 'learned_embeds.bin', form)
    with reader.open_file(tmp_path / 'learned_embeds.bin') as file:
        check(file, {'<word>': vector[0]})


@formats
@pytest.mark.parametrize(
    ('tree', 'message'),
    [
        (torch.ones(2), 'no tensors by name, but a Tensor'),
        ([torch.ones(2)], 'but a list'),
        ({'state_dict': {'a': 1}}, "a dict with 'state_dict'"),
        ({}, 'a dict with nothing'),
        (
            torch.nn.Linear(1, 1),
            r'a whole object of class torch.nn.modules.linear.Linear.*wanted.*state_dict\(\)',
        ),
        ({3: torch.ones(1)}, 'a int as its key'),
        ({'a': torch.ones(2).to_sparse()}, '_rebuild_sparse_tensor'),
    ],
)
def test_what_is_no_state_dict_says_what_it_is(tmp_path, form, tree, message):
    save(tree, tmp_path / 'a', form)
    with pytest.raises(BadFile, match=message):
        reader.open_file(tmp_path / 'a')


def test_a_lazily_conjugated_tensor_is_no_tensor(tmp_path):
    z = torch.ones(2, dtype=torch.complex64)
    save({'z': z.conj(), 'imag': z.clone().conj().imag, 'a': z.clone()}, tmp_path / 'a', 'zip')
    with reader.open_file(tmp_path / 'a') as file:
        check(file, {'a': z})
        assert file.refused == ('a tensor to be conjugated or negated on reading',)


def test_files_that_torch_writes_differently(tmp_path):
    state = {'a': torch.arange(5.0), 'b': torch.ones(3).half()}
    buffer = io.BytesIO()
    torch.save(state, buffer)  # its folder is called 'archive'
    (tmp_path / 'buffer').write_bytes(buffer.getvalue())
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / 'no_checksum')
    finally:
        torch.serialization.set_crc32_options(True)
    for name in ('buffer', 'no_checksum'):
        with reader.open_file(tmp_path / name) as file:
            check(file, state)


def test_a_torchscripts_tensors_are_read_and_its_program_is_not_run(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    for name, script in (
        ('scripted', torch.jit.script(net)),
        ('traced', torch.jit.trace(net, torch.ones(1, 2, 2, 2))),
    ):
        script.save(tmp_path / name)
        with reader.open_file(tmp_path / name) as file:
            check(file, net.state_dict())
            assert not file.refused


def test_storages_of_legacy_files_can_be_parts_of_storages(tmp_path):
    """What PyTorch before 0.4 wrote for storages that share memory: a view of the root storage."""
    from tests.checkpoints.files import file_builders as files

    view = files.items(files.text('v'), files.integer(2), files.integer(3))
    pid = files.items(
        files.text('storage'), files.name('torch', 'FloatStorage'), files.text('0'), files.text('cpu'),
        files.integer(6), view,
    ) + b'Q'  # fmt: skip
    part = files.call(
        'torch._utils', '_rebuild_tensor', pid, files.integer(1), files.items(files.integer(2)),
        files.items(files.integer(1)),
    )  # fmt: skip
    raw = files.torch_legacy(files.program(files.dictionary(w=part)), {'0': np.arange(6)})
    (tmp_path / 'a').write_bytes(raw)
    theirs = torch.load(tmp_path / 'a', weights_only=True)['w']
    with reader.open_file(tmp_path / 'a') as file:
        np.testing.assert_array_equal(file['w'], theirs)
        np.testing.assert_array_equal(file['w'], [3, 4])
