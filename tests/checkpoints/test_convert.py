"""Whole conversions: what a public file holds comes back bit for bit, and what goes wrong leaves nothing."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ldm_jax import trees
from ldm_jax.checkpoints import loading, store
from ldm_jax.checkpoints.apply_layout import export_params
from ldm_jax.checkpoints.choice import Choice
from ldm_jax.checkpoints.convert import convert, lines
from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.files import safetensors as writer
from ldm_jax.checkpoints.layouts import diffusers_folder, marks, single_file
from ldm_jax.checkpoints.lazy_arrays import Arrays
from tests.checkpoints import folders, single_files
from tests.checkpoints.single_files import listings
from tests.checkpoints.test_single_file import narrow
from tests.tiers import fast

FAST = ('sd15', 'ldm_lsun_churches256', 'kl_f8')
ROWS = [name for name in sorted(listings()) if name != 'sd2_sgm']


def tensors_of(path):
    with reader.open_file(path) as tensors:
        return {key: np.array(tensors[key]) for key in tensors}


def public_file(name, path):
    """A single file of a narrow model with the keys beside its parameters that such files have."""
    settings, params = narrow(name)
    tensors = export_params(single_file.layout(settings), params)
    rng = np.random.default_rng(1)
    layout = single_file.layout(settings, listings()[name].keys())
    for key, blank in listings()[name].items():
        if (
            key not in tensors
            and layout.ignored(key)
            and not key.startswith(('model_ema.', 'cond_stage_model.'))
        ):
            shape = blank.shape if blank.size < 5000 else (3,)
            tensors[key] = rng.standard_normal(shape).astype(np.float32)
    schedule = single_files.config(name).get('schedule')
    if 'betas' in tensors:
        tensors |= single_files.tables(schedule['beta_start'], schedule['beta_end'])
    safetensors.numpy.save_file({key: np.array(array, order='C') for key, array in tensors.items()}, path)
    return settings, tensors


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype, key
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in ROWS]
)
def test_a_single_file_comes_back_bit_for_bit(name, tmp_path):
    settings, tensors = public_file(name, tmp_path / 'public.safetensors')
    report = convert(tmp_path / 'public.safetensors', tmp_path / 'model', choice=Choice(model=settings))
    convert(tmp_path / 'model', tmp_path / 'back.safetensors', to='compvis')
    ignored = {key for keys in report['ignored'].values() for key in keys}
    assert_same(
        tensors_of(tmp_path / 'back.safetensors'),
        {key: array for key, array in tensors.items() if key not in ignored} | marks.tensors(settings),
    )
    counted = {part: entry['parameters'] for part, entry in report['parts'].items()}
    assert sum(counted.values()) == sum(tensors[key].size for key in tensors.keys() - ignored)
    assert json.loads((tmp_path / 'model' / store.REPORT).read_text()) == report


SLOW_FOLDERS = [name for name in folders.TINY if name not in ('StableDiffusionPipeline', 'LDMPipeline')]


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW_FOLDERS else ()) for name in folders.TINY],
)
def test_a_diffusers_folder_comes_back_bit_for_bit(name, tmp_path):
    settings = folders.TINY[name]
    params = folders.random_params(settings)
    leaves = {
        f'{part}/{path}': leaf for part, tree in params.items() for path, leaf in trees.named(tree).items()
    }
    store.write_model(tmp_path / 'model', settings, Arrays(leaves))
    convert(tmp_path / 'model', tmp_path / 'folder', to='diffusers')
    convert(tmp_path / 'folder', tmp_path / 'again')
    convert(tmp_path / 'again', tmp_path / 'folder_again', to='diffusers')
    expected = export_params(diffusers_folder.layout(settings), params)
    for folder in ('folder', 'folder_again'):
        with reader.open_folder(tmp_path / folder) as tensors:
            assert_same({key: np.array(tensors[key]) for key in tensors}, expected)


@pytest.fixture(scope='module')
def sd15(tmp_path_factory):
    path = tmp_path_factory.mktemp('sd15') / 'sd15.safetensors'
    return path, public_file('sd15', path)[1]


@pytest.mark.slow
def test_a_pickle_is_the_same_model_and_its_averages_are_taken_on_request(sd15, tmp_path):
    torch = pytest.importorskip('torch')
    path, tensors = sd15
    averages = {
        'model_ema.' + key.removeprefix('model.').replace('.', ''): array + 1
        for key, array in tensors.items()
        if key.startswith('model.diffusion_model.')
    }
    everything = (
        tensors | averages | {'model_ema.decay': np.float32(0.9999), 'model_ema.num_updates': np.int32(7)}
    )
    state = {key: torch.from_numpy(np.array(array)) for key, array in everything.items()}
    torch.save({'state_dict': state, 'global_step': 470000, 'epoch': 3}, tmp_path / 'training.ckpt')
    convert(path, tmp_path / 'plain')
    main = convert(tmp_path / 'training.ckpt', tmp_path / 'main')
    ema = convert(tmp_path / 'training.ckpt', tmp_path / 'ema', choice=Choice(weights='ema'))
    assert main['source']['ema'] == ema['source']['ema'] == 'complete'
    checksums = [(tmp_path / name / store.CHECKSUMS).read_text() for name in ('plain', 'main')]
    assert checksums[0] == checksums[1]
    unet = store.load_model(tmp_path / 'ema', ['unet'])[1]['unet']
    kernel = tensors['model.diffusion_model.input_blocks.0.0.weight']
    np.testing.assert_array_equal(unet['conv_in']['kernel'], (kernel + 1).transpose(2, 3, 1, 0))
    vae = [store.load_model(tmp_path / name, ['first_stage'])[1] for name in ('main', 'ema')]
    np.testing.assert_array_equal(
        vae[0]['first_stage']['quant_conv']['bias'], vae[1]['first_stage']['quant_conv']['bias']
    )
    with pytest.raises(ValueError, match='moving averages'):
        convert(path, tmp_path / 'none', choice=Choice(weights='ema'))
    assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize(
    ('dtype', 'kind'), fast(1, [('bfloat16', ml_dtypes.bfloat16), ('float16', np.float16)])
)
def test_parameters_are_cast_on_request_and_parts_are_chosen(sd15, tmp_path, dtype, kind):
    path, tensors = sd15
    report = convert(path, tmp_path / 'model', dtype=dtype, choice=Choice(parts=('vae',)))
    assert report['parts'].keys() == {'first_stage'}
    assert report['parts']['first_stage']['dtypes'].keys() == {dtype}
    found, params = store.load_model(tmp_path / 'model', dtype=None)
    assert found['models'].keys() == {'first_stage'}
    bias = params['first_stage']['decoder']['conv_out']['bias']
    np.testing.assert_array_equal(bias, tensors['first_stage_model.decoder.conv_out.bias'].astype(kind))
    reasons = {key: reason for reason, keys in report['ignored'].items() for key in keys}
    assert 'not asked for' in reasons['model.diffusion_model.out.0.weight']


@pytest.mark.slow
def test_a_number_beyond_float16_is_named(sd15, tmp_path):
    _, tensors = sd15
    key = 'first_stage_model.decoder.conv_out.bias'
    big = tensors | {key: np.float32([1e5, 0, 0])}
    safetensors.numpy.save_file(big, tmp_path / 'big.safetensors')
    with pytest.raises(ValueError, match=r'decoder/conv_out/bias has a value beyond float16: 1e\+05'):
        convert(tmp_path / 'big.safetensors', tmp_path / 'model', dtype='float16')
    assert not (tmp_path / 'model').exists()


BROKEN = {
    'a missing tensor': (
        lambda t: t.pop('model.diffusion_model.out.2.bias'),
        r'single file: unet in compvis names, .*text_encoder in transformers names.*out\.2\.bias missing',
    ),
    'an unknown tensor': (lambda t: t.update(stranger=np.zeros(3, np.float32)), 'stranger unknown'),
    'a renamed tensor': (
        lambda t: t.update(
            {'first_stage_model.encoder.conv_in.biaz': t.pop('first_stage_model.encoder.conv_in.bias')}
        ),
        r'conv_in\.bias missing, .*conv_in\.biaz unknown',
    ),
    'a tensor of another shape': (
        lambda t: t.update({'model.diffusion_model.time_embed.2.bias': np.zeros(5, np.float32)}),
        r'time_embed\.2\.bias \(5,\) gives unet/time_out/bias shape \(5,\); the model needs \(128,\)',
    ),
    'a tensor with a NaN': (
        lambda t: t['model.diffusion_model.out.2.bias'].__setitem__(0, np.nan),
        r'model\.diffusion_model\.out\.2\.bias has values that are NaN',
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize('case', BROKEN)
@pytest.mark.parametrize('to', ['orbax', 'compvis', 'diffusers'])
def test_a_broken_file_is_refused_by_key_and_leaves_nothing(sd15, tmp_path, case, to):
    _, tensors = sd15
    damage, text = BROKEN[case]
    broken = {key: array.copy() for key, array in tensors.items()}
    damage(broken)
    safetensors.numpy.save_file(broken, tmp_path / 'broken.safetensors')
    destination = tmp_path / ('out.safetensors' if to == 'compvis' else 'out')
    with pytest.raises(ValueError, match=text):
        convert(tmp_path / 'broken.safetensors', destination, to=to)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {'broken.safetensors'}


@pytest.mark.slow
@pytest.mark.parametrize('to', ['orbax', 'compvis', 'diffusers'])
def test_an_older_conversion_is_replaced_and_anything_else_is_not(sd15, tmp_path, to):
    path, _ = sd15
    destination = tmp_path / ('out.safetensors' if to == 'compvis' else 'out')
    if to == 'compvis':
        destination.write_bytes(b'years of work')
    else:
        destination.mkdir()
        (destination / 'thesis.tex').write_text('years of work')
    # Names that other people's files may have, beside it and in it.
    (tmp_path / f'out.{store.REPORT}').write_text('{"mine": 1}')
    if to == 'diffusers':
        (destination / store.REPORT).write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match='out'):
        convert(path, destination, to=to)
    if to == 'compvis':
        destination.unlink()
        with pytest.raises(FileExistsError, match=r'out\.report\.json'):
            convert(path, destination, to=to)
    (tmp_path / f'out.{store.REPORT}').unlink()
    if to != 'compvis':
        shutil.rmtree(destination)
    choice = Choice(parts=('first_stage',))
    first = convert(path, destination, to=to, choice=choice)
    assert convert(path, destination, to=to, choice=choice) == first
    assert len(list(tmp_path.iterdir())) == (2 if to == 'compvis' else 1)


@pytest.fixture(scope='module')
def tiny_halves():
    """The published form of a tiny autoencoder: 'encoder' and 'decoder' -> tensors by number."""
    settings = {'models': {'first_stage': dict(name='taesd', channels=8, num_blocks=[1, 2])}}
    tensors = export_params(single_file.layout(settings), folders.random_params(settings))
    halves = {'encoder': {}, 'decoder': {}}
    for key, array in tensors.items():
        half, _, rest = key.partition('.')
        halves[half][rest] = array
    return halves


@pytest.mark.parametrize('half', ['encoder', 'decoder'])
def test_half_of_an_autoencoder_names_the_file_that_is_missing(tiny_halves, tmp_path, half):
    other = {'encoder': 'decoder', 'decoder': 'encoder'}[half]
    path = tmp_path / f'taesd_{half}.safetensors'
    safetensors.numpy.save_file(tiny_halves[half], path)
    words = rf'taesd_{half}\.safetensors is the {half} .*alone.*no taesd_{other}\.safetensors beside it.*Put it there'
    with pytest.raises(ValueError, match=words):
        convert(path, tmp_path / 'model')
    path = path.rename(tmp_path / 'mine.safetensors')
    words = (
        rf'mine\.safetensors is the {half} .*NAME_encoder\.safetensors and NAME_decoder\.safetensors, in one'
    )
    with pytest.raises(ValueError, match=words):
        convert(path, tmp_path / 'model')
    assert [entry.name for entry in tmp_path.iterdir()] == ['mine.safetensors']
    for name, tensors in tiny_halves.items():
        safetensors.numpy.save_file(tensors, tmp_path / f'taesd_{name}.safetensors')
    report = convert(tmp_path / f'taesd_{half}.safetensors', tmp_path / 'model')
    count = sum(array.size for tensors in tiny_halves.values() for array in tensors.values())
    assert report['parts']['first_stage']['parameters'] == count
    assert report['source']['sha256'].keys() == {'taesd_encoder.safetensors', 'taesd_decoder.safetensors'}


@pytest.mark.parametrize(
    ('name', 'value'),
    [('prediction', 'v'), ('weights', 'ema'), ('variant', 'fp16'), ('model', {'models': {}})],
)
def test_a_model_directory_leaves_nothing_to_choose(tmp_path, name, value):
    settings = {'models': {}, 'parameterization': 'eps'}
    store.write_model(tmp_path / 'model', settings, Arrays({'unet/a': np.ones(3, np.float32)}))
    with pytest.raises(ValueError, match=rf"model directory.*'eps'.*leave out \['{name}'\]"):
        convert(tmp_path / 'model', tmp_path / 'out', choice=Choice(**{name: value}))
    with pytest.raises(ValueError, match='model directory'):
        loading.resolve(str(tmp_path / 'model'), Choice(**{name: value}))
    assert loading.resolve(str(tmp_path / 'model'), Choice(prediction='eps')) == str(tmp_path / 'model')


def test_a_pickle_is_not_written(sd15, tmp_path):
    with pytest.raises(ValueError, match=r'\.safetensors; got .*out\.ckpt'):
        convert(sd15[0], tmp_path / 'out.ckpt', to='compvis')


@pytest.mark.slow
def test_the_report_is_printed_in_lines(sd15, tmp_path):
    path, _ = sd15
    text = '\n'.join(lines(convert(path, tmp_path / 'model')))
    assert 'single file sd15.safetensors -> orbax' in text
    assert 'unet: ' in text
    assert 'moving averages: none; taken: main weights' in text
    assert 'left out: ' in text


@pytest.mark.slow
def test_an_export_says_what_it_is_so_that_nothing_has_to_be_asked(tmp_path):
    settings, params = narrow('sd2_base')
    settings = settings | {'parameterization': 'v'}
    leaves = {
        f'{part}/{path}': leaf for part, tree in params.items() for path, leaf in trees.named(tree).items()
    }
    store.write_model(tmp_path / 'model', settings, Arrays(leaves))
    convert(tmp_path / 'model', tmp_path / 'v.safetensors', to='compvis')
    convert(tmp_path / 'v.safetensors', tmp_path / 'again')
    assert store.open_model(tmp_path / 'again').settings['parameterization'] == 'v'
    # without what we wrote into it, it has to be asked for
    plain = tensors_of(tmp_path / 'v.safetensors')
    specs = {key: reader.TensorSpec(array.shape, array.dtype) for key, array in plain.items()}
    writer.write(tmp_path / 'plain.safetensors', specs, plain.items())
    with pytest.raises(ValueError, match='prediction'):
        convert(tmp_path / 'plain.safetensors', tmp_path / 'unknown')
    convert(tmp_path / 'plain.safetensors', tmp_path / 'said', choice=Choice(prediction='v'))
    assert store.open_model(tmp_path / 'said').settings['parameterization'] == 'v'


@pytest.mark.slow
def test_zero_terminal_snr_goes_in_and_out_by_its_flags(tmp_path):
    settings, tensors = public_file('sdxl', tmp_path / 'plain.safetensors')
    flags = {'v_pred': np.zeros(0, np.float32), 'ztsnr': np.zeros(0, np.float32)}
    safetensors.numpy.save_file(
        {key: np.array(array, order='C') for key, array in (tensors | flags).items()},
        tmp_path / 'flagged.safetensors',
    )
    convert(tmp_path / 'flagged.safetensors', tmp_path / 'model', choice=Choice(model=settings))
    found = store.open_model(tmp_path / 'model').settings
    assert found['schedule'] == dict(name='zero_terminal', base=settings['schedule'])
    assert found['parameterization'] == 'v'
    convert(tmp_path / 'model', tmp_path / 'back.safetensors', to='compvis')
    back = tensors_of(tmp_path / 'back.safetensors')
    assert {key: array.shape for key, array in back.items() if key in flags} == dict.fromkeys(flags, (0,))
    convert(tmp_path / 'back.safetensors', tmp_path / 'again')
    assert store.open_model(tmp_path / 'again').settings == found
