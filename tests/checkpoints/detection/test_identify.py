"""What single files are: every public one, by its keys and shapes."""

import json

import numpy as np
import pytest

import configs
from ldm_jax import build
from ldm_jax.checkpoints.detection.identify import identify
from ldm_jax.checkpoints.layouts import single_file
from tests.checkpoints import single_files
from tests.checkpoints.single_files import blank, exported, listings, reading

SAID = {'sd2_base': 'eps', 'sd2_v': 'v', 'sd2_sgm': 'eps'}  # what keys do not tell
YAML = {'ldm_semantic_synthesis512': {'model': {'params': {'image_size': 128}}}}
NAMES = sorted(listings())


def identified(name, **more):
    more = dict(read=reading(name), prediction=SAID.get(name), sidecar=YAML.get(name)) | more
    return identify(listings()[name], **more)


def without_defaults(config):
    """A config as identify gives it: plain, and without the parts that are not in files."""
    return {
        key: value for key, value in config.items() if key not in ('models', 'loss') and value is not None
    }


@pytest.mark.parametrize('name', NAMES)
def test_public_files_are_their_configs(name):
    found, config = identified(name), single_files.config(name)
    assert build.parts(found) == build.parts(config)
    assert json.loads(json.dumps(found)) == found
    scale = {} if config.get('scaling_factor', 1) else {'scaling_factor': single_files.SCALE}
    assert {key: value for key, value in found.items() if key != 'models'} == without_defaults(config) | scale


def with_keys(name, **shapes):
    return listings()[name] | {key: blank(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(('name', 'width'), [('sd21_unclip_l', 768), ('sd21_unclip_h', 1024)])
def test_statistics_of_embeddings_are_a_part_where_they_are_stored(name, width):
    stored = {f'noise_augmentor.data_{key}': blank((1, width)) for key in ('mean', 'std')}
    found = identify(listings()[name] | stored, read=reading(name))
    assert build.parts(found) == build.parts(configs.load(name))


@pytest.mark.parametrize('name', [name for name in NAMES if 'unet' in single_files.config(name)['models']])
def test_a_u_net_alone_is_of_the_same_family(name):
    """Its family, and so its heads, come from fewer facts then; the schedule is the published one."""
    config, bare = single_files.config(name), 'model.diffusion_model.'
    if config['scaling_factor'] is None:
        config['scaling_factor'] = 0.5
    sidecar = {'model': {'params': {'scale_factor': config['scaling_factor']}}}
    for prefix in (bare, ''):
        specs = {prefix + key[len(bare) :]: s for key, s in listings()[name].items() if key.startswith(bare)}
        found = identify(specs, prediction=SAID.get(name), sidecar=sidecar)
        assert build.parts(found) == {'unet': build.parts(config)['unet']}
        for key in ('schedule', 'parameterization', 'scaling_factor'):
            assert found[key] == config[key]
        if name not in YAML:
            assert (found['latent_size'], found['image_size']) == (
                config['latent_size'],
                config['image_size'],
            )


# Stable Diffusion 2: eps or v.


def test_what_stable_diffusion_2_predicts_is_never_guessed():
    with pytest.raises(ValueError, match=r"x\.ckpt is of the family sd2.*prediction='eps'.*YAML"):
        identify(listings()['sd2_v'], name='x.ckpt')
    with pytest.raises(ValueError, match=r"must be 'eps' or 'v'; got 'epsilon'"):
        identify(listings()['sd2_v'], prediction='epsilon')


def compvis_yaml(**params):
    return {'model': {'target': 'ldm.models.diffusion.ddpm.LatentDiffusion', 'params': params}}


def sgm_yaml(scaling):
    target = f'sgm.modules.diffusionmodules.denoiser_scaling.{scaling}'
    denoiser = {'params': {'scaling_config': {'target': target}}}
    return {
        'model': {'target': 'sgm.models.diffusion.DiffusionEngine', 'params': {'denoiser_config': denoiser}}
    }


@pytest.mark.parametrize(
    ('evidence', 'predicts'),
    [
        (dict(sidecar=compvis_yaml(parameterization='v')), 'v'),
        (dict(sidecar=compvis_yaml(linear_start=0.00085, linear_end=0.012)), 'eps'),  # the class's default
        (dict(sidecar=sgm_yaml('VScaling')), 'v'),
        (dict(sidecar=sgm_yaml('EpsScaling')), 'eps'),
        (dict(metadata={'modelspec.prediction_type': 'epsilon'}), 'eps'),
        (dict(metadata={'modelspec.prediction_type': 'v'}), 'v'),
        (dict(metadata={'modelspec.architecture': 'stable-diffusion-v2-768-v'}), 'v'),
        (dict(metadata={'modelspec.architecture': 'stable-diffusion-v2-512'}), 'eps'),
        (dict(metadata={'ss_v2': 'True', 'ss_v_parameterization': 'True'}), 'v'),
        (dict(metadata={'ss_v2': 'True', 'ss_v_parameterization': 'None'}), 'eps'),
        (dict(scalars={'global_step': 875_000}), 'eps'),
        (dict(model=configs.load('sd2_v')), 'v'),
        # the order: the argument, the YAML, the metadata
        (dict(prediction='eps', sidecar=compvis_yaml(parameterization='v')), 'eps'),
        (dict(sidecar=sgm_yaml('VScaling'), metadata={'modelspec.prediction_type': 'epsilon'}), 'v'),
        (dict(metadata={'modelspec.prediction_type': 'v'}, scalars={'global_step': 875_000}), 'v'),
        (dict(prediction='eps', model=configs.load('sd2_v')), 'eps'),
    ],
)
def test_what_says_eps_or_v(evidence, predicts):
    found = identify(listings()['sd2_v'], **evidence)
    assert found['parameterization'] == predicts
    if 'model' not in evidence:  # the v model is the one of 768 pixels
        assert found['image_size'] == {'eps': 512, 'v': 768}[predicts]


def test_marks_in_the_file_go_before_the_family():
    assert identify(with_keys('sdxl', v_pred=()))['parameterization'] == 'v'
    assert identify(listings()['sd15'])['parameterization'] == 'eps'
    # A fine-tuned upscaler may stop at any step; that number means Stable Diffusion 2 base only.
    assert identify(listings()['x4_upscaler'], scalars={'global_step': 875_000})['parameterization'] == 'v'


def test_the_mean_of_latents_is_playgrounds():
    specs = with_keys('sdxl', edm_mean=(1, 4, 1, 1), edm_std=(1, 4, 1, 1))
    playground = configs.load('playground_v25')
    found = identify(specs)  # the published numbers, where the file's are not read
    assert build.parts(found) == build.parts(playground)
    assert (found['parameterization'], found['scaling_factor']) == ('edm', 0.5)
    assert build.build('schedules', found['schedule']) == build.build('schedules', playground.schedule)
    values = {'edm_mean': np.array([1.0, 2, 3, 4]), 'edm_std': np.array([5.0, 6, 7, 8])}
    for model in (None, configs.load('sdxl').to_dict()):
        found = identify(specs, read=values.__getitem__, model=model)
        assert found['models']['first_stage']['latents_std'] == [5, 6, 7, 8]
        assert found['parameterization'] == 'edm'


SCALED_LINEAR = dict(name='scaled_linear', beta_start=0.00085, beta_end=0.012, num_train_steps=1000)


@pytest.mark.parametrize('named', [False, True])
@pytest.mark.parametrize('by', ['flag', 'metadata'])
def test_zero_terminal_snr_is_said_by_a_flag_or_by_metadata(named, by):
    specs = with_keys('sdxl', v_pred=(), **({'ztsnr': ()} if by == 'flag' else {}))
    metadata = {'ss_zero_terminal_snr': 'True'} if by == 'metadata' else {}
    model = configs.load('sdxl') if named else None
    found = identify(specs, model=model, metadata=metadata)
    assert found['schedule'].pop('base') | SCALED_LINEAR == SCALED_LINEAR
    assert found['schedule'] == dict(name='zero_terminal')
    assert found['parameterization'] == 'v'
    assert identify(with_keys('sdxl', v_pred=()), model=model)['schedule']['name'] == 'scaled_linear'


@pytest.mark.parametrize('named', [False, True])
def test_edm_with_the_sign_of_v_is_said_by_two_flags(named):
    specs = with_keys('sdxl', **{'edm_vpred.sigma_max': (), 'edm_vpred.sigma_min': ()})
    held = {'edm_vpred.sigma_max': np.float32(120), 'edm_vpred.sigma_min': np.float32(0.25)}
    model = configs.load('sdxl') if named else None
    found = identify(specs, read=held.__getitem__, model=model)
    assert found['schedule'] == dict(name='edm', sigma_max=120.0, sigma_min=0.25)
    assert found['parameterization'] == 'edm_v'
    with pytest.raises(ValueError, match="predicts v; leave the prediction 'eps' out"):
        identify(specs, read=held.__getitem__, model=model, prediction='eps')


def test_words_that_are_neither_are_an_error():
    with pytest.raises(ValueError, match="parameterization of the YAML is 'x0'"):
        identify(listings()['sd15'], sidecar=compvis_yaml(parameterization='x0'))
    with pytest.raises(ValueError, match="scaling_config.target of the YAML is 'EDMScaling'"):
        identify(listings()['sdxl'], sidecar=sgm_yaml('EDMScaling'))


# The schedule and the scale.


def test_the_file_s_tables_are_the_schedule():
    for start, end, dtype, absent in (
        (0.0015, 0.0205, np.float32, ()),
        (0.001, 0.03, np.float32, ()),  # of nobody
        (0.00085, 0.012, np.float16, ()),
        (0.00085, 0.012, np.float16, ('betas',)),
        (0.0015, 0.0195, np.float32, ('betas',)),
    ):
        tables = single_files.tables(start, end, dtype=dtype)
        specs = {key: s for key, s in listings()['sd15'].items() if key not in absent}
        schedule = identify(specs, read=tables.__getitem__)['schedule']
        assert (schedule['beta_start'], schedule['beta_end']) == (start, end)
    short = identify(listings()['sd15'], read=single_files.tables(0.00085, 0.012, 250).__getitem__)
    assert short['schedule']['num_train_steps'] == 250


def test_tables_of_other_schedules_are_read_too():
    linear = np.linspace(0.0002, 0.03, 1000)
    root = np.linspace(0.0001, 0.03, 500) ** 0.5
    for table, expected in (
        (linear, dict(name='linear', beta_start=0.0002, beta_end=0.03, num_train_steps=1000)),
        (root, dict(name='trained_betas', betas=root.astype(np.float32).tolist())),
    ):
        read = {'betas': table.astype(np.float32)}.__getitem__
        assert identify(listings()['sd15'], read=read)['schedule'] == expected


@pytest.mark.parametrize('table', [np.linspace(0.3, 0.001, 1000, dtype=np.float16), np.linspace(-1, 2, 1000)])
def test_tables_of_no_schedule_are_an_error(table):
    with pytest.raises(ValueError, match=r'1000 numbers from \S+ to \S+, of no noise schedule .*--model'):
        identify(listings()['sd15'], read={'betas': table}.__getitem__)


def test_the_yaml_s_numbers_count_and_may_not_contradict_the_file():
    sidecar = compvis_yaml(linear_start=0.0012, linear_end=0.021, scale_factor=0.3)
    found = identify(listings()['sd15'], sidecar=sidecar)
    assert found['schedule']['beta_start'] == 0.0012
    assert found['scaling_factor'] == 0.3
    with pytest.raises(ValueError, match=r'(?s)betas are those of .*0\.012.*; the YAML .* 0\.021'):
        identify(listings()['sd15'], sidecar=sidecar, read=reading('sd15'))


def test_a_scale_that_only_the_file_can_tell():
    specs = {key: s for key, s in listings()['ldm_lsun_churches256'].items() if key != 'scale_factor'}
    for model in (None, configs.load('ldm_lsun_churches256')):
        with pytest.raises(ValueError, match="buffer 'scale_factor'.*YAML"):
            identify(specs, model=model)
        assert identify(specs, model=model, sidecar=compvis_yaml(scale_factor=0.3))['scaling_factor'] == 0.3


# What shapes leave open.


@pytest.mark.slow
def test_narrow_networks_whose_heads_are_not_known_ask_for_a_config():
    unet = single_files.narrow('sdxl')['models']['unet'] | dict(
        channels=32, channel_mult=(1, 1, 2), head_width=8
    )
    settings = dict(configs.load('sdxl').to_dict(), models=dict(unet=unet))
    specs = exported(single_file.layout(settings), build.parts(settings)['unet'], 'unet/')
    with pytest.raises(ValueError, match=r'does not split into .*head_width=64.*--model'):
        identify(specs)
    found = identify(specs, model=settings)
    assert build.parts(found) == build.parts(settings)
    assert 'loss' not in found


def test_a_config_counts_for_the_parts_that_the_file_holds():
    found = identify(listings()['rdm768'], model=configs.load('rdm768'))
    assert found['models'].keys() == {'unet', 'first_stage'}
    with pytest.raises(
        ValueError, match=r"the named config has \['first_stage'\], not \['text_encoder', 'unet'\]"
    ):
        identify(listings()['sd15'], model=configs.load('kl_f8'))


def test_heads_of_the_guided_model_stay_one():
    """Class 1000 and a single head go together; the first version has heads of width 32."""
    assert identified('ldm_cin256_v2')['models']['unet']['num_heads'] == 1
    assert identified('ldm_cin256')['models']['unet']['head_width'] == 32
    assert identified('sd15')['models']['unet']['num_heads'] == 8


def test_quick_gelu_and_padding_go_with_the_family():
    sdxl, sd2 = identified('sdxl'), identified('sd2_base')
    assert sdxl['tokenizer']['pad_id'] == 49407
    assert sdxl['tokenizer_2']['pad_id'] == sd2['tokenizer']['pad_id'] == 0
    models = build.parts(sdxl)
    assert (models['text_encoder'].activation, models['text_encoder_2'].activation) == ('quick_gelu', 'gelu')
    assert (models['text_encoder'].num_layers, build.parts(sd2)['text_encoder'].num_layers) == (12, 23)
