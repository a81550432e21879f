"""Wrong values in the JSON files of a diffusers folder: one error that names file and field, or settings that build.

Every field of every file of tiny folders is replaced by values of other types and sizes.
"""

import copy
import functools
import json

import pytest

from ldm_jax import build
from ldm_jax.checkpoints import open_checkpoint
from ldm_jax.checkpoints.diffusers import settings as folder_settings
from tests.checkpoints import folders
from tests.tiers import fast

VALUES = [
    None,
    True,
    False,
    'x',
    '../../x',
    -1,
    0,
    1.5,
    2**70,
    float('nan'),
    [],
    [None],
    ['x', 3],
    {},
    {'a': {}},
]
FEW = [None, True, 'x', -1, 2**70, [None], {}]
KINDS = {
    'StableDiffusionPipeline': VALUES,
    'StableUnCLIPImg2ImgPipeline': FEW,
    'StableDiffusionXLPipeline': FEW,
    'LDMTextToImagePipeline': FEW,
    'LDMSuperResolutionPipeline': FEW,
    'StableDiffusionPipeline (tiny VAE)': FEW,
}
NOTES = {'feature_extractor/preprocessor_config.json', 'tokenizer/vocab.json', 'tokenizer_2/vocab.json'}


def json_files(folder):
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())
        for path in sorted(folder.rglob('*.json'))
        if str(path.relative_to(folder)) not in NOTES
    }


def built(folder):
    """The settings, with everything built that they describe and every shape computed."""
    settings = folder_settings.read_settings(folder)
    for key, value in settings.items():
        for part, spec in value.items() if key == 'models' else ():
            _check(json.dumps({'models': {part: spec}}), str(folder))
        if key in build.COMPONENTS:
            _check(json.dumps({'models': {}, key: value}), str(folder))
    return settings


@functools.cache  # most values are refused, or change nothing
def _check(settings, folder):
    open_checkpoint.check_built(json.loads(settings), folder)


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=pytest.mark.slow if i else ()) for i, kind in enumerate(KINDS)]
)
def test_a_wrong_value_is_named_with_its_file_and_field(tmp_path, kind):
    folder_settings.write_settings(folders.TINY[kind], tmp_path)
    whole = built(tmp_path)
    files, raised = json_files(tmp_path), 0
    for name, content in files.items():
        for field in content:
            for value in KINDS[kind]:
                changed = copy.deepcopy(content) | {field: value}
                (tmp_path / name).write_text(json.dumps(changed))
                try:
                    built(tmp_path)
                except ValueError as error:
                    text = str(error)
                    assert str(tmp_path) in text, (name, field, value, text)
                    assert name.rpartition('/')[2] in text, (name, field, value, text)
                    if not field.startswith('_') and name != 'model_index.json':
                        assert field in text, (name, field, value, text)
                    assert '\n' not in text
                    raised += 1
        (tmp_path / name).write_text(json.dumps(content))
    assert built(tmp_path) == whole
    assert raised > 100


@pytest.mark.parametrize('content', fast(2, ['', '{', '[]', '3', 'null', '"text"', '[' * 10_000]))
def test_a_file_that_is_no_object(tmp_path, content):
    folder_settings.write_settings(folders.TINY['StableDiffusionPipeline'], tmp_path)
    for name in json_files(tmp_path):
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=name.rpartition('/')[2]):
            built(tmp_path)
        (tmp_path / name).write_text(before)


# Rows of the list of cases, with the words that they must give.
CASES = [
    ('scheduler/scheduler_config.json', 'beta_end', 'x'),
    ('scheduler/scheduler_config.json', 'beta_end', True),
    ('scheduler/scheduler_config.json', 'num_train_timesteps', '../../x'),
    ('scheduler/scheduler_config.json', 'trained_betas', [0.1, 'x']),
    ('scheduler/scheduler_config.json', 'trained_betas', [0.1, 2.0]),
    ('scheduler/scheduler_config.json', 'beta_schedule', 'exponential'),
    ('scheduler/scheduler_config.json', 'prediction_type', 'flow_prediction'),
    ('text_encoder/config.json', 'hidden_size', None),
    ('text_encoder/config.json', 'eos_token_id', 2**70),
    ('text_encoder/config.json', 'num_attention_heads', 3),
    ('text_encoder/config.json', 'architectures', 3),
    ('unet/config.json', 'down_block_types', True),
    ('unet/config.json', 'block_out_channels', [0, 0]),
    ('unet/config.json', 'norm_num_groups', 7),
    ('unet/config.json', 'layers_per_block', 10**9),
    ('vae/config.json', 'block_out_channels', '16'),
    ('tokenizer/special_tokens_map.json', 'pad_token', 3),
    ('model_index.json', 'text_encoder', 5),
    ('model_index.json', 'unet', ['diffusers']),
    ('model_index.json', '_class_name', 7),
]


@pytest.mark.parametrize(('name', 'field', 'value'), fast(5, CASES))
def test_cases(tmp_path, name, field, value):
    folder_settings.write_settings(folders.TINY['StableDiffusionPipeline'], tmp_path)
    content = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(content | {field: value}))
    with pytest.raises(ValueError) as caught:
        built(tmp_path)
    assert name in str(caught.value)
    assert field in str(caught.value)
