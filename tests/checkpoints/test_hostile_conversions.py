"""Broken and hostile files through whole conversions: an error that names the fault, and no file anywhere."""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from ldm_jax import trees
from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.apply_layout import export_params
from ldm_jax.checkpoints.convert import convert
from ldm_jax.checkpoints.files.pickles import hostile
from ldm_jax.checkpoints.layouts import single_file
from ldm_jax.checkpoints.lazy_arrays import Arrays
from tests.checkpoints import folders
from tests.checkpoints.files import file_builders as files
from tests.checkpoints.files import test_hostile_pickles
from tests.tiers import fast

SETTINGS = {'models': {'first_stage': dict(name='vae', channels=32, channel_mult=[1, 2], num_res_blocks=1)}}
KEY = 'encoder.conv_in.bias'


@pytest.fixture(scope='module')
def tensors():
    """A small autoencoder in its single file, which converts."""
    return export_params(single_file.layout(SETTINGS), folders.random_params(SETTINGS))


def as_safetensors(tensors):
    return safetensors.numpy.save(tensors)


def as_zip(tensors, before=b'', **members):
    """A .ckpt of the tensors, with a pickle expression that is evaluated before them and dropped."""
    entries, storages = {}, {}
    for i, (key, array) in enumerate(tensors.items()):
        strides = [stride // array.itemsize for stride in np.zeros(array.shape, np.float32).strides]
        entries[key] = files.tensor(str(i), array.size, 0, array.shape, strides)
        storages[str(i)] = array.tobytes()
    dropped = before + b'0' if before else b''
    return files.torch_zip(files.program(dropped + files.dictionary(**entries)), storages, **members)


def header_of(content):
    (length,) = struct.unpack('<Q', content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def lying(change):
    """A safetensors file whose header says something else of KEY."""

    def make(tensors):
        header, data = header_of(as_safetensors(tensors))
        change(header[KEY])
        return files.safetensors(header, data)

    return make


def bomb(tensors):
    """A pickle that unpacks to a thousand times its file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            'archive/data.pkl',
            files.program(b'N0' * (8 << 20) + files.dictionary(w=files.tensor())),
        )
        archive.writestr(zipfile.ZipInfo('archive/data/0'), files.FOUR.tobytes())
    return out.getvalue()


def nested(tensors):
    """A zip file in a zip file, the inner one of which is the checkpoint."""
    return files.zip_file({'model.ckpt': as_zip(tensors), 'readme.txt': b'unpack me'})


def changed(key, array):
    return lambda tensors: as_safetensors(tensors | {key: array})


def renamed(tensors):
    return as_safetensors({key.replace(KEY, f'{KEY}z'): array for key, array in tensors.items()})


FILES = {
    'cut in the data': (lambda t: as_safetensors(t)[:-100], 'ends? at byte|cut'),
    'cut in the header': (lambda t: as_safetensors(t)[:100], 'header claims'),
    'cut pickle': (lambda t: as_zip(t)[:-2000], 'It is cut'),
    'empty': (lambda t: b'', 'unknown kind'),
    'renamed key': (renamed, rf'{KEY} missing, {KEY}z unknown'),
    'longer tensor': (lying(lambda e: e.update(shape=[33])), rf"'{KEY}' has 128 bytes; F32 \[33\] takes 132"),
    'huge tensor': (lying(lambda e: e.update(shape=[2**40, 2**20])), f"'{KEY}' has"),
    'overlapping tensors': (lying(lambda e: e.update(data_offsets=[0, 128])), 'overlaps|hole'),
    'beyond the end': (
        lying(lambda e: e.update(data_offsets=[2**40, 2**40 + 128])),
        'leaves a hole before it',
    ),
    'other type of the same size': (lying(lambda e: e.update(dtype='I32')), f'{KEY} .*int32.*floating'),
    'not a number': (changed(KEY, np.full(32, np.nan, np.float32)), f'{KEY} has values that are NaN'),
    'infinite': (changed(KEY, np.float32([np.inf] * 32)), f'{KEY} has values that are NaN or infinite'),
    'infinite half': (changed(KEY, np.float16([np.inf] * 32)), f'{KEY} has values that are NaN or infinite'),
    'other shape': (changed(KEY, np.zeros(31, np.float32)), rf'{KEY} \(31,\).*\(32,\)'),
    'bomb': (bomb, 'unpacks from'),
    'nested zip': (nested, 'no data.pkl|not .*PyTorch|zip'),
    'bare pickle': (
        lambda t: files.program(files.call('os', 'system', test_hostile_pickles.COMMAND)),
        'a bare pickle',
    ),
}


def refused(source, folder, to, match):
    """Converting raises, and leaves the folder as it was."""
    destination = folder / ('out.safetensors' if to == 'compvis' else 'out')
    before = sorted(folder.rglob('*'))
    with pytest.raises(ValueError, match=match):
        convert(source, destination, to=to)
    assert sorted(folder.rglob('*')) == before


@pytest.mark.parametrize('to', fast(1, ['orbax', 'compvis', 'diffusers']))
@pytest.mark.parametrize('case', FILES)
def test_a_broken_file_is_no_checkpoint(tensors, tmp_path, case, to):
    make, match = FILES[case]
    (tmp_path / 'vae.ckpt').write_bytes(make(tensors))
    refused(tmp_path / 'vae.ckpt', tmp_path, to, match)


def test_the_files_are_broken_by_that_alone(tensors, tmp_path):
    for name, content in (('vae.safetensors', as_safetensors(tensors)), ('vae.ckpt', as_zip(tensors))):
        (tmp_path / name).write_bytes(content)
        report = convert(tmp_path / name, tmp_path / name.replace('.', '_'))
        count = sum(array.size for array in tensors.values())
        assert report['parts']['first_stage']['parameters'] == count


# Names that training scripts save too, and that are of no use to an attack alone: inert, and listed.
INERT = {
    'asyncio.unix_events:_UnixSubprocessTransport._start',
    'dill._dill:_create_function',
    'cloudpickle.cloudpickle:_make_function',
    'pathlib:Path',
    'types:FunctionType',
    'builtins:type',
    'builtins:property',
    'threading:Thread',
}


@pytest.mark.parametrize('case', fast(12, test_hostile_pickles.CALLS, single=True))
def test_a_pickle_that_would_run_something_is_refused_by_its_name(tensors, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, 'system', lambda command: pytest.fail('It ran.'))
    expression, name = test_hostile_pickles.CALLS[case]
    (tmp_path / 'vae.ckpt').write_bytes(as_zip(tensors, expression))
    if case not in INERT:
        wanted = 'os.system' if b'os\nsystem' in expression else name
        refused(tmp_path / 'vae.ckpt', tmp_path, 'orbax', f'made to do harm: it asks for .*{wanted}')
    else:
        report = convert(tmp_path / 'vae.ckpt', tmp_path / 'out')
        assert name in report['source']['refused']
    assert not list(tmp_path.rglob('*CANARY*'))


HARMLESS = """pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint omegaconf.dictconfig.DictConfig
    functools.partial builtins.type builtins.object builtins.slice logging.getLogger argparse.Namespace
    collections.UserDict ldm.data.profile.Loader numpy.dtype torch.optim.adamw.AdamW typing.Any pathlib.PosixPath
    __main__.Config types.SimpleNamespace datetime.datetime uuid.UUID random.Random re._compile"""


@pytest.mark.parametrize('name', HARMLESS.split())
def test_what_training_saves_beside_its_weights_is_no_harm(name):
    assert hostile.names([name]) == []


@pytest.mark.slow
def test_swapped_shards_are_named(tmp_path):
    settings = folders.TINY['StableDiffusionPipeline']
    params = folders.random_params(settings)
    leaves = {
        f'{part}/{path}': leaf for part, tree in params.items() for path, leaf in trees.named(tree).items()
    }
    store.write_model(tmp_path / 'model', settings, Arrays(leaves))
    convert(tmp_path / 'model', tmp_path / 'folder', to='diffusers')
    unet = tmp_path / 'folder' / 'unet'
    whole = unet / 'diffusion_pytorch_model.safetensors'
    state = safetensors.numpy.load_file(whole)
    whole.unlink()
    keys = sorted(state)
    names = [f'diffusion_pytorch_model-0000{i}-of-00002.safetensors' for i in (1, 2)]
    for name, half in zip(names, (keys[::2], keys[1::2]), strict=True):
        safetensors.numpy.save_file({key: state[key] for key in half}, unet / name)
    index = {key: names[i % 2] for i, key in enumerate(keys)}
    (unet / 'diffusion_pytorch_model.safetensors.index.json').write_text(json.dumps({'weight_map': index}))
    convert(tmp_path / 'folder', tmp_path / 'whole')
    aside = (unet / names[0]).rename(unet / 'aside')
    (unet / names[1]).rename(unet / names[0])
    aside.rename(unet / names[1])
    refused(tmp_path / 'folder', tmp_path, 'orbax', f'should be in .*{names[0][:-12]}')
