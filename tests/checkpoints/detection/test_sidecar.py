"""The YAML beside a checkpoint: numbers are read as numbers, anything else is one error with file, field and value."""

import json

import pytest

from ldm_jax.checkpoints import convert, store
from ldm_jax.checkpoints.detection import file_schedules, sidecar
from tests.checkpoints.single_files import listings, reading
from tests.checkpoints.test_convert import public_file

GOOD = 'model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    '


def read(tmp_path, text):
    (tmp_path / 'model.yaml').write_text(text)
    return sidecar.read(tmp_path / 'model.ckpt')


def params(tmp_path, line):
    return sidecar.params(read(tmp_path, GOOD + line + '\n'))


@pytest.mark.parametrize(
    ('line', 'key', 'value'),
    [
        ('scale_factor: 2e-1', 'scale_factor', 0.2),  # text to YAML 1.1
        ('scale_factor: "0.18215"', 'scale_factor', 0.18215),
        ('scale_factor: 1', 'scale_factor', 1.0),
        ('linear_start: 85e-5\n    linear_end: "0.012"', 'linear_start', 0.00085),
        ('timesteps: "1000"', 'timesteps', 1000),
        ('image_size: 64', 'image_size', 64),
        ('parameterization: v', 'parameterization', 'v'),
        ('beta_schedule: cosine', 'beta_schedule', 'cosine'),
    ],
)
def test_numbers_are_read_as_numbers(tmp_path, line, key, value):
    found = params(tmp_path, line)[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('scale_factor: abc', ['scale_factor', "'abc'", 'number']),
        ('scale_factor: .nan', ['scale_factor', 'nan']),
        ('scale_factor: .inf', ['scale_factor', 'inf']),
        ('scale_factor: -1', ['scale_factor', '-1']),
        ('scale_factor: 0', ['scale_factor', '0']),
        ('scale_factor: true', ['scale_factor', 'True']),
        ('scale_factor:', ['scale_factor', 'None']),
        ('scale_factor: [1]', ['scale_factor', '[1]']),
        ('scale_by_std: 3', ['scale_by_std', '3']),
        ('linear_start: 0.5\n    linear_end: 0.1', ['linear_start', '0.5', '0.1']),
        ('linear_start: 0.1\n    linear_end: 1.5', ['linear_end', '1.5']),
        ('linear_start: 0.1', ['linear_end']),
        ('timesteps: 1', ['timesteps', '1']),
        ('timesteps: 1e9', ['timesteps']),
        ('timesteps: 10.5', ['timesteps', '10.5']),
        ('image_size: ../../x', ['image_size', "'../../x'"]),
        ('image_size: -64', ['image_size', '-64']),
        ('beta_schedule: sqrt', ['beta_schedule', "'sqrt'", 'sqrt_linear']),
        ('beta_schedule: 3', ['beta_schedule', '3']),
        ('parameterization: noise', ['parameterization', "'noise'", 'eps']),
        ('parameterization: []', ['parameterization', '[]']),
        ('given_betas: [0.1]', ['given_betas']),
        ('denoiser_config: 3', ['denoiser_config', '3']),
        ('denoiser_config: {params: []}', ['denoiser_config.params', '[]']),
        ('denoiser_config: {params: {scaling_config: {target: 3}}}', ['scaling_config.target', '3']),
    ],
)
def test_wrong_fields_are_named(tmp_path, line, words):
    with pytest.raises(ValueError) as caught:
        params(tmp_path, line)
    assert 'model.yaml' in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('model: some_name\n', ["model is 'some_name'"]),
        ('model:\n', ['model is None']),
        ('model: []\n', ['model is []']),
        ('model:\n  params:\n', ['model.params is None']),
        ('model:\n  params: 3\n', ['model.params is 3']),
        ('model:\n  target: [x]\n  params: {}\n', ['model.target is']),
        ('- a\n', ['list']),
        ('', ['no settings']),
        ('a: [\n', ['no YAML']),
        ('a: !!python/object/apply:os.system [true]\n', ['no YAML']),
    ],
)
def test_wrong_files_are_named(tmp_path, text, words):
    with pytest.raises(ValueError) as caught:
        read(tmp_path, text)
    assert 'model.yaml' in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert '\n' not in str(caught.value)


def test_one_of_something_else_says_nothing(tmp_path):
    assert sidecar.params(read(tmp_path, 'title: my model\n')) == {}
    assert sidecar.read(tmp_path / 'other.ckpt') is None


@pytest.mark.parametrize(
    ('line', 'name'),
    [
        ('', 'scaled_linear'),
        ('beta_schedule: linear', 'scaled_linear'),
        ('beta_schedule: sqrt_linear', 'linear'),
        ('beta_schedule: cosine', 'squared_cosine'),
    ],
)
def test_its_schedule_is_taken_where_the_file_has_no_table(tmp_path, line, name):
    found = read(tmp_path, GOOD + 'linear_start: 0.001\n    linear_end: 0.02\n    ' + line + '\n')
    found = file_schedules.schedule({}, None, found, (0.00085, 0.012))
    assert found['name'] == name
    assert found.get('beta_end', 0.02) == 0.02


def test_a_table_of_another_schedule_than_it_says_is_an_error(tmp_path):
    found = read(tmp_path, GOOD + 'linear_start: 0.001\n    linear_end: 0.02\n')
    with pytest.raises(ValueError, match='betas.*YAML beside it says'):
        file_schedules.schedule(listings()['sd15'], reading('sd15'), found, (0.00085, 0.012))


def test_nothing_is_written_for_a_wrong_one(tmp_path):
    from ldm_jax.checkpoints.convert import convert

    public_file('sd15', tmp_path / 'model.safetensors')
    for text in (GOOD + 'scale_factor: abc\n', 'model: some_name\n'):
        (tmp_path / 'model.yaml').write_text(text)
        with pytest.raises(ValueError, match=r'model\.yaml'):
            convert(str(tmp_path / 'model.safetensors'), str(tmp_path / 'out'))
    assert {path.name for path in tmp_path.iterdir()} == {'model.safetensors', 'model.yaml'}


def test_a_scale_that_the_metadata_leaves_out_is_the_sidecars(tmp_path):
    source = tmp_path / 'model.safetensors'
    convert.convert(str(store.find('emoji32')), str(source), to='compvis')
    content = source.read_bytes()
    length = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + length])
    ours = json.loads(header['__metadata__']['settings.json'])
    del ours['scaling_factor']
    header['__metadata__']['settings.json'] = json.dumps(ours)
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    source.write_bytes(len(text).to_bytes(8, 'little') + text + content[8 + length :])
    with pytest.raises(ValueError, match='scale'):
        convert.convert(str(source), str(tmp_path / 'without'))
    assert not (tmp_path / 'without').exists()
    source.with_suffix('.yaml').write_text('model:\n  params:\n    scale_factor: 2e-1\n')
    convert.convert(str(source), str(tmp_path / 'with'))
    assert store.open_model(str(tmp_path / 'with')).settings['scaling_factor'] == 0.2
