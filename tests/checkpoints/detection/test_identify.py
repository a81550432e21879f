"""What single files are: every public one, by its keys and shapes."""

import json
import re

import numpy as np
import pytest

import configs
from ldm_jax import build, trees
from ldm_jax.checkpoints.detection.identify import identify
from ldm_jax.checkpoints.layouts import autoencoder, single_file
from ldm_jax.checkpoints.layouts import taesd as taesd_layout
from ldm_jax.models import taesd, vae, vq
from tests.checkpoints import single_files
from tests.checkpoints.single_files import blank, listings, reading

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


# Parts alone.


def below(name, prefix, instead=''):
    return {instead + key[len(prefix) :]: s for key, s in listings()[name].items() if key.startswith(prefix)}


@pytest.mark.parametrize(
    ('specs', 'name'),
    [
        (below('sd15', 'first_stage_model.'), 'kl_f8'),
        (below('sd15', 'first_stage_model.', 'first_stage_model.'), 'kl_f8'),
        (below('sd15', 'first_stage_model.', 'vae.'), 'sdxl_vae'),
        (below('x4_upscaler', 'first_stage_model.'), 'x4_upscaler_vae'),
        (below('sd15', 'cond_stage_model.transformer.'), 'clip_vit_l14_text'),
        (below('sd15', 'cond_stage_model.transformer.text_model.'), 'clip_vit_l14_text'),
        (below('sd2_base', 'cond_stage_model.model.'), 'open_clip_vit_h14_text'),
        (below('sdxl', 'conditioner.embedders.1.model.'), 'open_clip_vit_bigg14_text'),
        (below('sd21_unclip_l', 'embedder.model.visual.', 'visual.'), 'clip_vit_l14_vision'),
        (below('sd21_unclip_h', 'embedder.model.visual.', 'visual.'), 'open_clip_vit_h14_vision'),
        (below('ldm_txt2img_1p4b', 'cond_stage_model.transformer.'), 'ldm_bert_1280'),
        (below('ldm_text2img256', 'cond_stage_model.', ''), 'ldm_bert_640'),
        (below('ldm_layout2img', 'cond_stage_model.transformer.'), 'ldm_bert_512'),
    ],
)
def test_parts_alone_are_their_configs(specs, name):
    found, config = identify(specs), configs.load(name).to_dict()
    assert build.parts(found) == build.parts(config)
    assert found.get('tokenizer') == config.get('tokenizer')
    assert 'schedule' not in found
    layout = single_file.layout(found, specs)
    used = {key for rule in layout.rules for key in rule.torch}
    assert [key for key in specs.keys() - used if not layout.ignored(key)] == []


@pytest.mark.parametrize('names', ['diffusers', 'diffusers_old'])
@pytest.mark.parametrize(
    'model',
    [
        vae.Model(channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_levels=(1,)),
        vq.Model(17, channels=32, channel_mult=(1, 1, 3), num_res_blocks=1),
    ],
)
def test_autoencoders_in_the_names_of_diffusers(names, model):
    tensors = exported(autoencoder.layout(model, names), model)
    assert build.parts(identify(tensors)) == {'first_stage': model}


@pytest.mark.parametrize(
    ('model', 'names'),
    [
        (taesd.Model(), 'taesd'),
        (taesd.Model(), 'diffusers'),
        (taesd.Model(16, channels=8, num_blocks=(1, 2, 2)), 'taesd'),
        (taesd.Model(16, channels=8, num_blocks=(1, 2, 2)), 'diffusers'),
        (taesd.Model(32, mid_norm=True), 'taesd'),
    ],
)
def test_tiny_autoencoders(model, names):
    tensors = exported(taesd_layout.layout(model, names), model)
    found = identify(tensors)
    assert build.parts(found) == {'first_stage': model}
    layout = single_file.layout(found, tensors)
    assert {key for rule in layout.rules for key in rule.torch} == tensors.keys()


def exported(layout, model, part=''):
    """What an export would hold, by key."""
    leaves = {part + path: leaf for path, leaf in trees.named(trees.shapes(model, size=8)).items()}
    tensors = {}
    for rule in layout.rules:
        arrays = rule.to_torch(tuple(blank(leaves[path].shape) for path in rule.flax))
        tensors |= dict(zip(rule.torch, arrays, strict=True))
    return tensors


def test_a_tower_of_transformers_in_the_file_of_the_pair():
    pair = below('sd15', 'cond_stage_model.transformer.') | {
        'text_projection.weight': blank((768, 768)),
        'logit_scale': blank(()),
    }
    assert build.parts(identify(pair)) == build.parts(configs.load('clip_vit_l14_text'))


# Files of other kinds.


@pytest.mark.parametrize(
    ('keys', 'what'),
    [
        (['lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight', 'lora_te_x.alpha'], 'a LoRA'),
        (['unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight'], 'a LoRA'),
        (['string_to_param.*'], 'textual inversion'),
        (['clip_g', 'clip_l'], 'textual inversion'),
        (['control_model.time_embed.0.weight'], 'a ControlNet'),
        (
            ['controlnet_cond_embedding.conv_in.weight', 'down_blocks.0.resnets.0.conv1.weight'],
            'a ControlNet',
        ),
        (['model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight'], 'Stable Diffusion 3'),
        (['double_blocks.0.img_attn.qkv.weight'], 'Flux'),
        (['768.0.linear.0.weight'], 'a hypernetwork'),
        (['conv_in.weight', 'down_blocks.0.resnets.0.conv1.weight'], "U-Net in diffusers' names"),
        (['conv1.weight', 'layer4.0.conv1.weight', 'fc.weight'], 'a classifier'),
    ],
)
def test_other_files_are_called_what_they_are(keys, what):
    with pytest.raises(ValueError, match=rf'x\.pt looks like .*{what}.* Expected is a checkpoint'):
        identify({key: blank((2, 2)) for key in keys}, name='x.pt')


@pytest.mark.parametrize(
    'key', ['model.diffusion_model.out.2.weight', 'first_stage_model.encoder.conv_in.weight']
)
def test_files_that_are_not_whole_are_an_error(key):
    specs = {other: s for other, s in listings()['sd15'].items() if other != key}
    with pytest.raises(
        ValueError, match=rf'x\.pt: Its \w+ lacks the tensor {re.escape(key)}; is the file whole'
    ):
        identify(specs, name='x.pt')


def test_autoencoders_without_quant_conv_are_of_other_models():
    specs = {key: s for key, s in below('sd15', 'first_stage_model.').items() if 'quant_conv' not in key}
    with pytest.raises(ValueError, match='no quant_conv, as those of SD 3 and Flux'):
        identify(specs)


def test_nothing_known_is_an_error():
    with pytest.raises(ValueError, match=r"no key that is known; it begins with \['a', 'b'\]"):
        identify({'b': blank(()), 'a': blank(())})


@pytest.mark.parametrize(
    'name',
    [
        'ssd_1b',
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ('vega', 'koala_700m', 'bk_sdm_tiny', 'lcm_dreamshaper_v7', 'playground_v25')
        ),
    ],
)
def test_distilled_networks_are_known_by_their_blocks(name):
    settings = single_files.narrow(name)
    unet = build.build('models', settings['models']['unet'])
    layout = single_file.layout(settings | dict(models=dict(unet=settings['models']['unet'])))
    assert build.build('models', identify(exported(layout, unet, 'unet/'))['models']['unet']) == unet


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
