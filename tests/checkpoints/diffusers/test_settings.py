"""Diffusers' JSON files: every published model there and back, files of their time, what cannot be expressed."""

import json

import pytest

import configs
from ldm_jax import build
from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
from tests.checkpoints import folders
from tests.checkpoints.published_files import KL_F8, OF_THEIR_TIME, write
from tests.tiers import fast

# What each published model is in diffusers; '' is a folder of one model.
PIPELINES = {
    'sd15': 'StableDiffusionPipeline',
    'sd15_inpainting': 'StableDiffusionInpaintPipeline',
    'instruct_pix2pix': 'StableDiffusionInstructPix2PixPipeline',
    'sd2_base': 'StableDiffusionPipeline',
    'sd2_v': 'StableDiffusionPipeline',
    'sd2_depth': 'StableDiffusionDepth2ImgPipeline',
    'sd2_inpainting': 'StableDiffusionInpaintPipeline',
    'sd21_unclip_l': 'StableUnCLIPImg2ImgPipeline',
    'sd21_unclip_h': 'StableUnCLIPImg2ImgPipeline',
    'x4_upscaler': 'StableDiffusionUpscalePipeline',
    'sdxl': 'StableDiffusionXLPipeline',
    'sdxl_inpainting': 'StableDiffusionXLInpaintPipeline',
    'sdxl_refiner': 'StableDiffusionXLImg2ImgPipeline',
    **dict.fromkeys(('bk_sdm_base', 'bk_sdm_small', 'bk_sdm_tiny'), 'StableDiffusionPipeline'),
    **dict.fromkeys(('ssd_1b', 'vega', 'koala_700m', 'koala_1b'), 'StableDiffusionXLPipeline'),
    'lcm_dreamshaper_v7': 'StableDiffusionPipeline',
    'playground_v25': 'StableDiffusionXLPipeline',
    'ldm_txt2img_1p4b': 'LDMTextToImagePipeline',
    'ldm_text2img256': 'LDMTextToImagePipeline',
    'ldm_celeba256': 'LDMPipeline',
    'ldm_ffhq256': 'LDMPipeline',
    'ldm_lsun_beds256': 'LDMPipeline',
    'ldm_bsr_sr': 'LDMSuperResolutionPipeline',
} | dict.fromkeys(
    (
        *('kl_f4', 'kl_f8', 'kl_f16', 'kl_f32', 'vq_f4', 'vq_f4_noattn', 'vq_f8', 'vq_f8_n256', 'vq_f16'),
        *('sdxl_vae', 'x4_upscaler_vae', 'taesd', 'clip_vit_l14_text', 'open_clip_vit_h14_text'),
        *('clip_vit_l14_vision', 'open_clip_vit_h14_vision', 'ldm_bert_1280', 'ldm_bert_640', 'ldm_bert_512'),
    ),
    '',
)
LACKING = {
    'sd2_depth': ('depth_estimator',),
    'ldm_txt2img_1p4b': ('tokenizer/vocab.txt',),
    'ldm_text2img256': ('tokenizer/vocab.txt',),
    'ldm_bert_1280': ('vocab.txt',),
    'ldm_bert_640': ('vocab.txt',),
}


def published(name):
    """The settings of a config."""
    settings = json.loads(configs.load(name).to_json())
    settings.pop('loss', None)
    return settings


def written(folder, name):
    return json.loads((folder / name).read_text('utf-8'))


@pytest.mark.parametrize('name', fast(12, PIPELINES))
def test_every_published_model_there_and_back(name, tmp_path):
    settings = published(name)
    lacking = diffusers_settings.write_settings(settings, tmp_path)
    assert lacking == LACKING.get(name, ())
    again = diffusers_settings.read_settings(tmp_path)
    assert build.parts(again) == build.parts(settings)
    if name == 'taesd':
        settings.pop('image_size')  # AutoencoderTiny does not tell
    for key in settings.keys() - {'models'}:
        assert again[key] == settings[key], key
    assert again.keys() - settings.keys() <= {'scaling_factor'}  # of vector quantization: 1
    index = tmp_path / 'model_index.json'
    assert index.is_file() == bool(PIPELINES[name])
    if PIPELINES[name]:
        assert json.loads(index.read_text())['_class_name'] == PIPELINES[name]
    assert not list(tmp_path.rglob('*-partial'))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('ldm_cin256', 'models.class_embedder=.* no pipeline of diffusers has such a part'),
        ('ldm_cin256_v2', 'models.class_embedder='),
        ('ldm_semantic_synthesis256', 'models.rescaler='),
        ('ldm_lsun_churches256', r'unet.num_heads=8 .* over \[192, 384, 768\] channels'),
        ('ldm_inpainting_big', 'unet.in_channels=7 '),
        ('ldm_layout2img', "without 'tokenizer' cannot be written"),
        ('rdm768', 'context_length=1 .* all 77 tokens'),
        ('open_clip_vit_bigg14_text', 'text_encoder.output_layer=-2'),
    ],
)
def test_what_diffusers_cannot_express_is_refused_before_anything_is_written(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        diffusers_settings.write_settings(published(name), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('kind', 'path', 'value', 'message'),
    [
        ('StableDiffusionPipeline', 'unet.resblock_updown', True, 'unet.resblock_updown=True'),
        ('StableDiffusionPipeline', 'unet.channel_mult', [2, 4], r'unet.channel_mult=\(2, 4\)'),
        ('StableDiffusionPipeline', 'unet.mid_depth', 0, 'unet.mid_depth=0'),
        ('StableDiffusionPipeline', 'unet.depth', [1, 2], 'unet.mid_depth=1 .* last level, 2'),
        ('StableDiffusionPipeline', 'unet.in_channels', 12, 'unet.in_channels=12'),
        ('StableDiffusionPipeline', 'text_encoder.output_layer', -2, 'text_encoder.output_layer=-2'),
        ('StableDiffusionPipeline', 'first_stage.channel_mult', [2, 4], 'first_stage.channel_mult='),
        ('StableDiffusionXLPipeline', 'text_encoder.final_norm', True, 'text_encoder.final_norm=True'),
        ('StableDiffusionXLPipeline', 'text_encoder_2.projection_width', None, 'text_encoder_2.projection'),
        ('StableDiffusionXLPipeline', 'unet.vector_width', 40, 'unet.vector_width=40 .* 6 sizes'),
        ('LDMPipeline', 'unet.num_classes', 10, 'unet.num_classes=10'),
        ('LDMPipeline', 'unet.context_width', 16, 'unet.context_width=16 .* no text_encoder'),
    ],
)
def test_fields_without_a_counterpart_are_named(kind, path, value, message, tmp_path):
    settings = json.loads(json.dumps(folders.TINY[kind]))
    part, field = path.split('.')
    settings['models'][part][field] = value
    with pytest.raises(ValueError, match=message):
        diffusers_settings.write_settings(settings, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('key', ['schedule', 'parameterization', 'scaling_factor', 'latent_size'])
def test_settings_that_a_pipeline_needs_are_named(key, tmp_path):
    settings = dict(folders.TINY['StableDiffusionPipeline'])
    del settings[key]
    with pytest.raises(ValueError, match=f"without '{key}' cannot be written"):
        diffusers_settings.write_settings(settings, tmp_path)


@pytest.mark.parametrize('name', fast(3, folders.TINY))
def test_a_tokenizer_that_is_missing_follows_from_the_text_encoder(name, tmp_path):
    settings = folders.TINY[name]
    without = {key: value for key, value in settings.items() if not key.startswith('tokenizer')}
    if 'LDMText' in name:  # whose vocabulary is not in the package
        with pytest.raises(ValueError, match="without 'tokenizer' cannot be written"):
            diffusers_settings.write_settings(without, tmp_path)
        return
    for place, given in (('whole', settings), ('without', without)):
        (tmp_path / place).mkdir()
        diffusers_settings.write_settings(given, tmp_path / place)
    files = {
        place: {str(p.relative_to(tmp_path / place)): p.read_text() for p in (tmp_path / place).rglob('*.*')}
        for place in ('whole', 'without')
    }
    assert files['whole'] == files['without']
    for path in sorted((tmp_path / 'without').glob('tokenizer*/*')):
        path.unlink()
    found = diffusers_settings.read_settings(tmp_path / 'without')
    for key in ('tokenizer', 'tokenizer_2'):
        assert found.get(key) == settings.get(key)


def test_more_that_cannot_be_written(tmp_path):
    base = folders.TINY['StableDiffusionPipeline']
    for changed, message in (
        (base | dict(schedule=dict(name='flow')), "schedule=.*'flow'"),
        (base | dict(parameterization='flow'), "parameterization='flow'"),
        (dict(models=dict(first_stage=dict(name='taesd', mid_norm=True))), 'first_stage.mid_norm=True'),
        (folders.TINY['LDMSuperResolutionPipeline'] | dict(scaling_factor=0.5), 'scaling_factor=0.5'),
        (folders.TINY['StableDiffusionUpscalePipeline'] | dict(scaling_factor=0.5), 'always takes 0.08333'),
    ):
        with pytest.raises(ValueError, match=message):
            diffusers_settings.write_settings(changed, tmp_path)
    unclip = json.loads(json.dumps(folders.TINY['StableUnCLIPImg2ImgPipeline']))
    del unclip['models']['image_normalizer']
    with pytest.raises(ValueError, match='needs an image_normalizer too'):
        diffusers_settings.write_settings(unclip, tmp_path)
    with pytest.raises(FileNotFoundError, match='make it first'):
        diffusers_settings.write_settings(base, tmp_path / 'nowhere')


@pytest.mark.parametrize('name', OF_THEIR_TIME)
def test_files_of_their_time_are_the_published_models(name, tmp_path):
    write(tmp_path, OF_THEIR_TIME[name])
    settings, expected = diffusers_settings.read_settings(tmp_path), published(name)
    assert build.parts(settings) == build.parts(expected)
    for key in expected.keys() - {'models'}:
        assert settings[key] == expected[key], key
    assert json.loads(json.dumps(settings)) == settings  # plain data


def test_a_folder_without_an_index_or_of_one_model(tmp_path):
    files = OF_THEIR_TIME['sdxl']
    write(tmp_path, {name: text for name, text in files.items() if name != 'model_index.json'})
    assert build.parts(diffusers_settings.read_settings(tmp_path)) == build.parts(published('sdxl'))
    write(tmp_path / 'one', {'config.json': KL_F8})
    assert diffusers_settings.read_settings(tmp_path / 'one') == dict(
        models=dict(first_stage=dict(name='vae')), image_size=512
    )
    with pytest.raises(FileNotFoundError, match='neither model_index.json nor config.json'):
        diffusers_settings.read_settings(tmp_path / 'nothing')


def test_specs_say_only_what_differs(tmp_path):
    write(tmp_path, OF_THEIR_TIME['sd15'])
    assert diffusers_settings.read_settings(tmp_path)['models'] == dict(
        unet=dict(name='unet', num_heads=8, context_width=768),
        first_stage=dict(name='vae'),
        text_encoder=dict(name='clip_text'),
    )


def test_prediction_goes_before_the_scheduler_and_is_needed_without(tmp_path):
    write(tmp_path, OF_THEIR_TIME['sd15'])
    assert diffusers_settings.read_settings(tmp_path, 'v')['parameterization'] == 'v'
    with pytest.raises(ValueError, match="must be 'eps', 'v' or None; got 'x0'"):
        diffusers_settings.read_settings(tmp_path, 'x0')
    (tmp_path / 'scheduler' / 'scheduler_config.json').unlink()
    settings = diffusers_settings.read_settings(tmp_path)
    assert settings['parameterization'] == 'eps'
    assert 'schedule' not in settings
    write(tmp_path / '2', dict(OF_THEIR_TIME['sd2_v']))
    (tmp_path / '2' / 'scheduler' / 'scheduler_config.json').unlink()
    with pytest.raises(ValueError, match="Give prediction='eps' or 'v'"):
        diffusers_settings.read_settings(tmp_path / '2')
    assert diffusers_settings.read_settings(tmp_path / '2', 'v')['parameterization'] == 'v'


def test_scaling_factors_that_old_files_leave_out(tmp_path):
    for name, scale in (('sd15', 0.18215), ('x4_upscaler', 0.08333), ('ldm_celeba256', 1.0)):
        write(tmp_path / name, OF_THEIR_TIME[name])
        assert diffusers_settings.read_settings(tmp_path / name)['scaling_factor'] == scale


def test_components_that_are_not_ours_are_errors_or_left(tmp_path):
    files = dict(OF_THEIR_TIME['sd15'])
    index = files['model_index.json']
    write(tmp_path, files | {'model_index.json': index | dict(safety_checker=['stable_diffusion', 'X'])})
    diffusers_settings.read_settings(tmp_path)
    write(tmp_path, {'model_index.json': index | dict(controlnet=['diffusers', 'ControlNetModel'])})
    with pytest.raises(ValueError, match=r"has 'controlnet' \(ControlNetModel\), which is not supported"):
        diffusers_settings.read_settings(tmp_path)


def test_what_is_there_is_replaced(tmp_path):
    diffusers_settings.write_settings(folders.TINY['StableDiffusionPipeline'], tmp_path)
    diffusers_settings.write_settings(folders.TINY['StableDiffusionInpaintPipeline'], tmp_path)
    assert diffusers_settings.read_settings(tmp_path)['models']['unet']['in_channels'] == 9
