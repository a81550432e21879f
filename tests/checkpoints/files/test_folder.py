"""Shards, folders of models and pipelines, and pairs of files."""

import json
import shutil

import numpy as np
import pytest

from ldm_jax.checkpoints.files import reader, safetensors
from ldm_jax.checkpoints.files.reader import BadFile, TensorSpec
from tests.checkpoints.files import file_builders as files

SHARDS = {'m-00001-of-00002.safetensors': ('a', 'b'), 'm-00002-of-00002.safetensors': ('c',)}


def write(path, *keys, value=0.0):
    """A safetensors file, or PyTorch's by another ending, of one number by each key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.safetensors':
        arrays = {key: np.full(2, value, np.float32) for key in keys}
        safetensors.write(path, {key: TensorSpec((2,), np.dtype(np.float32)) for key in keys}, arrays.items())
    else:
        raw = np.full(4, value, np.float32).tobytes()
        tensors = {key: files.tensor() for key in keys}
        path.write_bytes(files.torch_zip(files.program(files.dictionary(**tensors)), {'0': raw}))
    return path


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_shards(folder, shards=SHARDS, index='m.safetensors.index.json', **changes):
    for name, keys in shards.items():
        write(folder / name, *keys)
    weight_map = {key: name for name, keys in shards.items() for key in keys} | changes
    return write_json(folder / index, {'metadata': {'total_size': 24}, 'weight_map': weight_map})


@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_shards_are_one_mapping(tmp_path, kind):
    shards = {name.replace('safetensors', kind): keys for name, keys in SHARDS.items()}
    index = write_shards(tmp_path, shards, f'm.{kind}.index.json')
    with reader.open_file(index) as file:
        assert sorted(file) == ['a', 'b', 'c']
        assert file.kind == {'safetensors': 'safetensors', 'bin': 'torch'}[kind]
        assert set(file.paths) == {index, *(tmp_path / name for name in shards)}
        assert set(file.sha256()) == {path.name for path in file.paths}
        assert file['c'][0] == 0


FIRST, SECOND = SHARDS


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'b': SECOND}, rf"'b' should be in '{SECOND}' and is in '{FIRST}'"),
        ({'d': SECOND}, rf"'d' should be in '{SECOND}' and is in no shard"),
        ({'d': 'm-3.safetensors'}, r"'d' is in 'm-3.safetensors', which is not there"),
        ({'d': '../m.safetensors'}, r"'d' is said to be in '../m.safetensors'; shards lie beside"),
        ({'d': '/etc/passwd'}, r"said to be in '/etc/passwd'"),
        ({'d': '..\\m'}, 'shards lie beside'),
        ({'d': 'c:m'}, 'shards lie beside'),
        ({'d': '..'}, 'shards lie beside'),
        ({'d': 3}, 'shards lie beside'),
        ({'d': None}, 'shards lie beside'),
    ],
)
def test_an_index_that_does_not_fit_its_shards(tmp_path, changes, message):
    index = write_shards(tmp_path, **changes)
    with pytest.raises(BadFile, match=message) as caught:
        reader.open_file(index)
    assert str(index) in str(caught.value)


def test_shards_that_do_not_fit_their_index(tmp_path):
    index = write_shards(tmp_path)
    shutil.move(tmp_path / FIRST, tmp_path / 'x')
    shutil.move(tmp_path / SECOND, tmp_path / FIRST)
    shutil.move(tmp_path / 'x', tmp_path / SECOND)
    with pytest.raises(BadFile, match=f"'a' should be in '{FIRST}' and is in '{SECOND}'"):
        reader.open_file(index)
    write_shards(tmp_path)
    write(tmp_path / SECOND, 'c', 'extra')
    with pytest.raises(BadFile, match=f"'extra' is in '{SECOND}' and not in the index"):
        reader.open_file(index)
    write(tmp_path / SECOND, 'c', 'a')
    with pytest.raises(BadFile, match=f"'a' is in both '{FIRST}' and '{SECOND}'"):
        reader.open_file(index)
    write(tmp_path / SECOND, 'c')
    (tmp_path / FIRST).write_bytes((tmp_path / FIRST).read_bytes()[:-1])
    with pytest.raises(BadFile, match=FIRST):
        reader.open_file(index)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"weight_map": {}}', 'no index of shards'),
        ('{"a": 1}', 'no index of shards'),
        ('{"weight_map": ["a"]}', 'no index of shards'),
        ('{"weight_map": {"a": "x", "a": "y"}}', 'twice'),
        ('{"weight_map": ', 'not valid JSON'),
        ('{"a":' * 100_000, 'not valid JSON'),
        ('{"a": "' + 'x' * (5 << 20) + '"}', 'at most 2097152 are read'),
    ],
)
def test_an_index_that_is_none(tmp_path, text, message):
    (tmp_path / 'index.json').write_text(text)
    with pytest.raises(BadFile, match=message):
        reader.open_file(tmp_path / 'index.json')


def pipeline(folder, *files):
    """A pipeline of parts; each file's one key is its part's name."""
    parts = sorted({file.split('/')[0] for file in files})
    components = {part: ['diffusers', 'X'] for part in parts}
    write_json(
        folder / 'model_index.json', {'_class_name': 'P', 'safety_checker': [None, None], **components}
    )
    for index, file in enumerate(files):
        write(folder / file, 'k', value=index)
        write_json((folder / file).with_name('config.json'), {})
    return folder


UNET, TEXT = 'unet/diffusion_pytorch_model', 'text_encoder/model'


@pytest.mark.parametrize(
    ('files', 'variant', 'expected'),
    [
        ([f'{UNET}.safetensors', f'{TEXT}.safetensors'], None, [0, 1]),
        ([f'{UNET}.bin', f'{UNET}.safetensors', 'text_encoder/pytorch_model.bin'], None, [1, 2]),
        ([f'{UNET}.fp16.safetensors', f'{UNET}.safetensors', f'{TEXT}.safetensors'], None, [1, 2]),
        ([f'{UNET}.fp16.safetensors', f'{UNET}.bin', f'{TEXT}.safetensors'], None, [1, 2]),
        ([f'{UNET}.fp16.safetensors', f'{TEXT}.fp16.safetensors'], None, [0, 1]),
        (
            [f'{UNET}.fp16.safetensors', f'{UNET}.safetensors', f'{TEXT}.fp16.bin', f'{TEXT}.bin'],
            'fp16',
            [0, 2],
        ),
        ([f'{UNET}.non_ema.safetensors', f'{UNET}.safetensors', f'{TEXT}.safetensors'], 'non_ema', [0, 2]),
        ([f'{UNET}.safetensors', f'{UNET}-00001-of-00002.safetensors', f'{TEXT}.safetensors'], None, [0, 2]),
    ],
)
def test_which_files_of_a_pipeline_are_read(tmp_path, files, variant, expected):
    folder = pipeline(tmp_path, *files)
    for ignored in (
        'unet/diffusion_flax_model.msgpack', 'unet/model.onnx', 'unet/openvino_model.bin', 'text_encoder/tf_model.h5',
        'text_encoder/flax_model.msgpack', 'scheduler/scheduler_config.json', 'tokenizer/vocab.json',
        'vae_1_0/model.bin',
    ):  # fmt: skip
        (folder / ignored).parent.mkdir(exist_ok=True)
        (folder / ignored).write_bytes(b'junk')
    with reader.open_folder(folder, variant) as file:
        assert sorted(file) == ['text_encoder/k', 'unet/k']
        assert [file['unet/k'][0], file['text_encoder/k'][0]] == expected
        assert set(file.sha256()) == {files[index] for index in expected}
        assert file.kind == ('torch' if any(path.suffix == '.bin' for path in file.paths) else 'safetensors')
    with reader.open_folder(folder, variant, parts=['unet']) as file:
        assert list(file) == ['unet/k']


def test_what_cannot_be_chosen(tmp_path):
    folder = pipeline(
        tmp_path / 'a', f'{UNET}.fp16.safetensors', f'{UNET}.non_ema.safetensors', f'{TEXT}.safetensors'
    )
    with pytest.raises(BadFile, match=r"several variants, \['fp16', 'non_ema'\]; choose"):
        reader.open_folder(folder)
    with pytest.raises(BadFile, match=r"no weights of variant 'bf16'; have .*'unet/': \['fp16', 'non_ema'\]"):
        reader.open_folder(folder, 'bf16')
    with pytest.raises(BadFile, match=r"no subfolder 'vae'; have \['text_encoder', 'unet'\]"):
        reader.open_folder(folder, parts=['vae'])
    with pytest.raises(BadFile, match="no subfolder '../a'"):
        reader.open_folder(folder, parts=['../a'])
    folder = pipeline(tmp_path / 'b', f'{UNET}.safetensors', 'unet/model.safetensors')
    with pytest.raises(BadFile, match='two models'):
        reader.open_folder(folder)
    folder = pipeline(tmp_path / 'c', f'{UNET}.safetensors', f'{TEXT}.safetensors')
    (folder / f'{UNET}.safetensors').rename(folder / 'unet/diffusion_flax_model.msgpack')
    with pytest.raises(BadFile, match="unet: no weights; expected .* 'parts'"):
        reader.open_folder(folder)
    with reader.open_folder(folder, parts=['text_encoder']) as file:
        assert list(file) == ['text_encoder/k']
    with pytest.raises(FileNotFoundError, match='No folder'):
        reader.open_folder(tmp_path / 'absent')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(BadFile, match='neither it nor its subfolders'):
        reader.open_folder(tmp_path / 'empty')
    write_json(tmp_path / 'd' / 'model_index.json', {'../a': ['x', 'y']})
    with pytest.raises(BadFile, match='neither it nor its subfolders'):
        reader.open_folder(tmp_path / 'd')


def test_a_folder_of_one_model(tmp_path):
    write(tmp_path / 'diffusion_pytorch_model.safetensors', 'k')
    write_json(tmp_path / 'config.json', {})
    with reader.open_folder(tmp_path) as file:
        assert list(file) == ['k']
    with pytest.raises(BadFile, match='holds one model, no parts'):
        reader.open_folder(tmp_path, parts=['unet'])


def test_a_pipeline_s_folder_without_its_index(tmp_path):
    pipeline(tmp_path, f'{UNET}.safetensors', f'{TEXT}.safetensors')
    (tmp_path / 'model_index.json').unlink()
    with reader.open_folder(tmp_path) as file:
        assert sorted(file) == ['text_encoder/k', 'unet/k']


@pytest.mark.parametrize('safe', [True, False])
@pytest.mark.parametrize('variant', [None, 'fp16'])
@pytest.mark.parametrize('size', ['1GB', '4KB'])
def test_what_diffusers_writes(tmp_path, safe, variant, size):
    diffusers = pytest.importorskip('diffusers')
    settings = dict(encoder_block_out_channels=(8,) * 2, decoder_block_out_channels=(8,) * 2)
    blocks = dict(num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    model = diffusers.AutoencoderTiny(**settings, **blocks)
    model.save_pretrained(tmp_path / 'vae', safe_serialization=safe, variant=variant, max_shard_size=size)
    if size != '1GB':
        assert len(list((tmp_path / 'vae').iterdir())) > 3
    for folder, prefix in ((tmp_path, 'vae/'), (tmp_path / 'vae', '')):
        with reader.open_folder(folder, variant) as file:
            state = model.state_dict()
            assert set(file) == {prefix + key for key in state}
            for key, tensor in state.items():
                np.testing.assert_array_equal(file[prefix + key], tensor)


@pytest.mark.parametrize('name', ['model.safetensors.index.fp16.json', 'model.fp16.safetensors.index.json'])
def test_both_names_of_a_variant_s_index(tmp_path, name):
    folder = tmp_path / 'text_encoder'
    write_shards(folder, {'model.fp16-00001-of-00001.safetensors': ('k',)}, name)
    with reader.open_folder(tmp_path, 'fp16') as file:
        assert list(file) == ['text_encoder/k']
        shard = 'text_encoder/model.fp16-00001-of-00001.safetensors'
        assert set(file.sha256()) == {f'text_encoder/{name}', shard}


@pytest.mark.parametrize('stem', ['taesd', 'taesdxl', 'taef2', 'my_own'])
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_pairs(tmp_path, stem, ending):
    encoder = write(tmp_path / f'{stem}_encoder{ending}', 'k', '1', value=1)
    assert reader.sibling(encoder) is None
    decoder = write(tmp_path / f'{stem}_decoder{ending}', 'k', value=2)
    assert reader.sibling(encoder) == decoder
    assert reader.sibling(str(decoder)) == encoder
    with reader.open_pair(encoder, decoder) as file:
        assert {key: array[0] for key, array in file.items()} == {
            'encoder.k': 1,
            'encoder.1': 1,
            'decoder.k': 2,
        }
        assert file.paths == (encoder, decoder)
    with reader.open_file(encoder) as file:
        assert set(file) == {'k', '1'}


@pytest.mark.parametrize(
    'name', ['model.safetensors', 'encoder.pth', '_encoder.pth', 'taesd_encoder', 'x_decoder2.pth']
)
def test_files_without_another_half(tmp_path, name):
    for other in ('_decoder.pth', 'decoder.pth', 'x_encoder.pth', 'taesd_decoder.pth'):
        (tmp_path / other).touch()
    assert reader.sibling(tmp_path / name) is None
