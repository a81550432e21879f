"""Diffusers' JSON files: every published model there and back, files of their time, what cannot be expressed."""

import importlib
import inspect
import json
import re

import pytest

import configs
from ldm_jax.checkpoints import diffusers_json
from ldm_jax.checkpoints.diffusers import encoders, first_stages, pipelines, schedulers, tokenizers, unets
from ldm_jax.text import clip
from tests.checkpoints import folders

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
    """The settings of a config, with unCLIP's statistics, as wide as half of the vector."""
    settings = json.loads(configs.load(name).to_json())
    settings.pop('loss', None)
    if 'unclip' in name:
        width = settings['models']['unet']['vector_width'] // 2
        settings['models'].setdefault('image_normalizer', dict(name='image_normalizer', width=width))
    return settings


def written(folder, name):
    return json.loads((folder / name).read_text('utf-8'))


def write(folder, files):
    """JSON files by name."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), 'utf-8')


@pytest.mark.parametrize('name', PIPELINES)
def test_every_published_model_there_and_back(name, tmp_path):
    settings = published(name)
    lacking = diffusers_json.write_settings(settings, tmp_path)
    assert lacking == LACKING.get(name, ())
    again = diffusers_json.read_settings(tmp_path)
    assert folders.parts(again) == folders.parts(settings)
    if name == 'taesd':
        settings.pop('image_size')  # AutoencoderTiny does not tell
    for key in settings.keys() - {'models'}:
        assert again[key] == settings[key], key
    assert again.keys() - settings.keys() <= {'latent_scale'}  # of vector quantization: 1
    index = tmp_path / 'model_index.json'
    assert index.is_file() == bool(PIPELINES[name])
    if PIPELINES[name]:
        assert json.loads(index.read_text())['_class_name'] == PIPELINES[name]
    assert not list(tmp_path.rglob('*.partial'))


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
        diffusers_json.write_settings(published(name), tmp_path)
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
        diffusers_json.write_settings(settings, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('key', ['schedule', 'parameterization', 'latent_scale', 'latent_size', 'tokenizer'])
def test_settings_that_a_pipeline_needs_are_named(key, tmp_path):
    settings = dict(folders.TINY['StableDiffusionPipeline'])
    del settings[key]
    with pytest.raises(ValueError, match=f"without '{key}' cannot be written"):
        diffusers_json.write_settings(settings, tmp_path)


def test_more_that_cannot_be_written(tmp_path):
    base = folders.TINY['StableDiffusionPipeline']
    for changed, message in (
        (base | dict(schedule=dict(name='cosine')), 'schedule.name='),
        (base | dict(parameterization='x0'), "parameterization='x0'"),
        (dict(models=dict(first_stage=dict(name='taesd', mid_norm=True))), 'first_stage.mid_norm=True'),
        (folders.TINY['LDMSuperResolutionPipeline'] | dict(latent_scale=0.5), 'latent_scale=0.5'),
        (folders.TINY['StableDiffusionUpscalePipeline'] | dict(latent_scale=0.5), 'always takes 0.08333'),
    ):
        with pytest.raises(ValueError, match=message):
            diffusers_json.write_settings(changed, tmp_path)
    unclip = json.loads(json.dumps(folders.TINY['StableUnCLIPImg2ImgPipeline']))
    del unclip['models']['image_normalizer']
    with pytest.raises(ValueError, match='needs an image_normalizer too'):
        diffusers_json.write_settings(unclip, tmp_path)
    with pytest.raises(FileNotFoundError, match='make it first'):
        diffusers_json.write_settings(base, tmp_path / 'nowhere')


# Files as folders of their time have them.
SD15_UNET = dict(
    _class_name='UNet2DConditionModel',
    _diffusers_version='0.6.0',
    act_fn='silu',
    attention_head_dim=8,
    block_out_channels=[320, 640, 1280, 1280],
    center_input_sample=False,
    cross_attention_dim=768,
    down_block_types=['CrossAttnDownBlock2D'] * 3 + ['DownBlock2D'],
    downsample_padding=1,
    flip_sin_to_cos=True,
    freq_shift=0,
    in_channels=4,
    layers_per_block=2,
    mid_block_scale_factor=1,
    norm_eps=1e-05,
    norm_num_groups=32,
    out_channels=4,
    sample_size=64,
    up_block_types=['UpBlock2D'] + ['CrossAttnUpBlock2D'] * 3,
)
SD2_UNET = dict(
    SD15_UNET,
    attention_head_dim=[5, 10, 20, 20],
    cross_attention_dim=1024,
    dual_cross_attention=False,
    only_cross_attention=False,
    use_linear_projection=True,
    upcast_attention=True,
    num_class_embeds=None,
    sample_size=96,
)
X4_UNET = dict(
    SD2_UNET,
    attention_head_dim=8,
    block_out_channels=[256, 512, 512, 1024],
    down_block_types=['DownBlock2D'] + ['CrossAttnDownBlock2D'] * 3,
    up_block_types=['CrossAttnUpBlock2D'] * 3 + ['UpBlock2D'],
    in_channels=7,
    num_class_embeds=1000,
    only_cross_attention=[True, True, True, False],
    sample_size=128,
)
UNCLIP_UNET = dict(
    SD2_UNET,
    class_embed_type='projection',
    projection_class_embeddings_input_dim=2048,
    time_embedding_type='positional',
    resnet_time_scale_shift='default',
)
SDXL_UNET = dict(
    SD15_UNET,
    addition_embed_type='text_time',
    addition_embed_type_num_heads=64,
    addition_time_embed_dim=256,
    attention_head_dim=[5, 10, 20],
    block_out_channels=[320, 640, 1280],
    class_embeddings_concat=False,
    conv_in_kernel=3,
    cross_attention_dim=2048,
    down_block_types=['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
    up_block_types=['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
    mid_block_only_cross_attention=None,
    projection_class_embeddings_input_dim=2816,
    resnet_out_scale_factor=1.0,
    sample_size=128,
    transformer_layers_per_block=[1, 2, 10],
    upcast_attention=None,
    use_linear_projection=True,
)
REFINER_UNET = dict(
    SDXL_UNET,
    attention_head_dim=[6, 12, 24, 24],
    block_out_channels=[384, 768, 1536, 1536],
    cross_attention_dim=1280,
    down_block_types=['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types=['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
    projection_class_embeddings_input_dim=2560,
    transformer_layers_per_block=4,
)
KL_F8 = dict(
    _class_name='AutoencoderKL',
    _diffusers_version='0.6.0',
    act_fn='silu',
    block_out_channels=[128, 256, 512, 512],
    down_block_types=['DownEncoderBlock2D'] * 4,
    in_channels=3,
    latent_channels=4,
    layers_per_block=2,
    out_channels=3,
    sample_size=512,
    up_block_types=['UpDecoderBlock2D'] * 4,
)
CELEBA_UNET = dict(
    _class_name='UNet2DModel',
    _diffusers_version='0.1.2',
    act_fn='silu',
    attention_head_dim=32,
    block_out_channels=[224, 448, 672, 896],
    center_input_sample=False,
    down_block_types=['DownBlock2D'] + ['AttnDownBlock2D'] * 3,
    downsample_padding=1,
    flip_sin_to_cos=True,
    freq_shift=0,
    in_channels=3,
    layers_per_block=2,
    mid_block_scale_factor=1,
    norm_eps=1e-05,
    norm_num_groups=32,
    out_channels=3,
    sample_size=64,
    time_embedding_type='positional',
    up_block_types=['AttnUpBlock2D'] * 3 + ['UpBlock2D'],
)
VQ_F4 = dict(
    _class_name='VQModel',
    _diffusers_version='0.1.2',
    act_fn='silu',
    block_out_channels=[128, 256, 512],
    down_block_types=['DownEncoderBlock2D'] * 3,
    in_channels=3,
    latent_channels=3,
    layers_per_block=2,
    num_vq_embeddings=8192,
    out_channels=3,
    sample_size=256,
    up_block_types=['UpDecoderBlock2D'] * 3,
)
CLIP_L = dict(
    architectures=['CLIPTextModel'],
    attention_dropout=0.0,
    bos_token_id=0,
    dropout=0.0,
    eos_token_id=2,
    hidden_act='quick_gelu',
    hidden_size=768,
    initializer_factor=1.0,
    initializer_range=0.02,
    intermediate_size=3072,
    layer_norm_eps=1e-05,
    max_position_embeddings=77,
    model_type='clip_text_model',
    num_attention_heads=12,
    num_hidden_layers=12,
    pad_token_id=1,
    projection_dim=768,
    torch_dtype='float32',
    transformers_version='4.22.0.dev0',
    vocab_size=49408,
)
OPEN_CLIP_H = CLIP_L | dict(
    hidden_act='gelu',
    hidden_size=1024,
    intermediate_size=4096,
    num_attention_heads=16,
    num_hidden_layers=23,
    projection_dim=512,
)
BIG_G = CLIP_L | dict(
    architectures=['CLIPTextModelWithProjection'],
    hidden_act='gelu',
    hidden_size=1280,
    intermediate_size=5120,
    num_attention_heads=20,
    num_hidden_layers=32,
    projection_dim=1280,
)
SCHEDULER = dict(
    _class_name='PNDMScheduler',
    _diffusers_version='0.6.0',
    beta_end=0.012,
    beta_schedule='scaled_linear',
    beta_start=0.00085,
    num_train_timesteps=1000,
    set_alpha_to_one=False,
    skip_prk_steps=True,
    steps_offset=1,
    trained_betas=None,
    clip_sample=False,
)
V_SCHEDULER = dict(SCHEDULER, _class_name='DDIMScheduler', prediction_type='v_prediction')
END_PAD = {'tokenizer_config.json': dict(pad_token='<|endoftext|>'), 'special_tokens_map.json': {}}
# Stable Diffusion 2 says one thing in each file, and the map is what counts.
ZERO_PAD = {
    'tokenizer_config.json': dict(pad_token='<|endoftext|>'),
    'special_tokens_map.json': dict(pad_token='!'),
}


def pipeline(kind, scheduler=SCHEDULER, padding=END_PAD, **networks):
    """The files of a folder."""
    nets = {
        name: ['diffusers' if '_class_name' in c else 'transformers', '?'] for name, c in networks.items()
    }
    empty = {name: [None, None] for name in ('text_encoder', 'safety_checker', 'feature_extractor')}
    files = {'model_index.json': empty | nets | dict(_class_name=kind, scheduler=['diffusers', '?'])}
    files |= {f'{name}/config.json': config for name, config in networks.items()}
    files['scheduler/scheduler_config.json'] = scheduler
    for name in networks:
        if name.startswith('text_encoder'):
            pads = ZERO_PAD if name == 'text_encoder_2' else padding
            files |= {
                f'{name.replace("text_encoder", "tokenizer")}/{file}': text for file, text in pads.items()
            }
    return files


SDXL_VAE = dict(KL_F8, scaling_factor=0.13025, force_upcast=True, sample_size=1024)
OF_THEIR_TIME = {
    'sd15': pipeline('StableDiffusionPipeline', unet=SD15_UNET, vae=KL_F8, text_encoder=CLIP_L),
    'sd2_v': pipeline(
        'StableDiffusionPipeline', V_SCHEDULER, ZERO_PAD, unet=SD2_UNET, vae=KL_F8, text_encoder=OPEN_CLIP_H
    ),
    'x4_upscaler': pipeline(
        'StableDiffusionUpscalePipeline',
        dict(V_SCHEDULER, beta_start=0.0001, beta_end=0.02),
        ZERO_PAD,
        unet=X4_UNET,
        vae=dict(
            KL_F8,
            block_out_channels=[128, 256, 512],
            down_block_types=['DownEncoderBlock2D'] * 3,
            up_block_types=['UpDecoderBlock2D'] * 3,
        ),
        text_encoder=OPEN_CLIP_H,
    ),
    'sdxl': pipeline(
        'StableDiffusionXLPipeline',
        dict(SCHEDULER, _class_name='EulerDiscreteScheduler', prediction_type='epsilon'),
        unet=SDXL_UNET,
        vae=SDXL_VAE,
        text_encoder=CLIP_L,
        text_encoder_2=BIG_G,
    ),
    'sdxl_refiner': pipeline(
        'StableDiffusionXLImg2ImgPipeline', unet=REFINER_UNET, vae=SDXL_VAE, text_encoder_2=BIG_G
    ),
    'sd21_unclip_h': pipeline(
        'StableUnCLIPImg2ImgPipeline',
        V_SCHEDULER,
        ZERO_PAD,
        unet=UNCLIP_UNET,
        vae=KL_F8,
        text_encoder=OPEN_CLIP_H,
        image_encoder=dict(
            architectures=['CLIPVisionModelWithProjection'],
            hidden_act='gelu',
            hidden_size=1280,
            image_size=224,
            intermediate_size=5120,
            num_attention_heads=16,
            num_channels=3,
            num_hidden_layers=32,
            patch_size=14,
            projection_dim=1024,
        ),
        image_normalizer=dict(_class_name='StableUnCLIPImageNormalizer', embedding_dim=1024),
    ),
    'ldm_celeba256': pipeline(
        'LDMPipeline',
        dict(SCHEDULER, beta_start=0.0015, beta_end=0.0195),
        unet=CELEBA_UNET,
        vqvae=VQ_F4,
    ),
}


@pytest.mark.parametrize('name', OF_THEIR_TIME)
def test_files_of_their_time_are_the_published_models(name, tmp_path):
    write(tmp_path, OF_THEIR_TIME[name])
    settings, expected = diffusers_json.read_settings(tmp_path), published(name)
    assert folders.parts(settings) == folders.parts(expected)
    for key in expected.keys() - {'models'}:
        assert settings[key] == expected[key], key
    assert json.loads(json.dumps(settings)) == settings  # plain data


def test_a_folder_without_an_index_or_of_one_model(tmp_path):
    files = OF_THEIR_TIME['sdxl']
    write(tmp_path, {name: text for name, text in files.items() if name != 'model_index.json'})
    assert folders.parts(diffusers_json.read_settings(tmp_path)) == folders.parts(published('sdxl'))
    write(tmp_path / 'one', {'config.json': KL_F8})
    assert diffusers_json.read_settings(tmp_path / 'one') == dict(
        models=dict(first_stage=dict(name='vae')), image_size=512
    )
    with pytest.raises(FileNotFoundError, match='neither model_index.json nor config.json'):
        diffusers_json.read_settings(tmp_path / 'nothing')


def test_specs_say_only_what_differs(tmp_path):
    write(tmp_path, OF_THEIR_TIME['sd15'])
    assert diffusers_json.read_settings(tmp_path)['models'] == dict(
        unet=dict(name='unet', num_heads=8, context_width=768),
        first_stage=dict(name='vae'),
        text_encoder=dict(name='clip_text'),
    )


# Per network, one setting of another model at a time.
@pytest.mark.parametrize(
    ('config', 'key', 'value', 'message'),
    [
        (SD15_UNET, 'class_embed_type', 'timestep', "'timestep'; only None or 'projection'"),
        (SD15_UNET, 'class_embed_type', 'simple_projection', "'simple_projection'; only"),
        (SD15_UNET, 'class_embed_type', 'projection', 'projection_class_embeddings_input_dim is None'),
        (SD15_UNET, 'addition_embed_type', 'text_image', "'text_image'; only"),
        (UNCLIP_UNET, 'addition_embed_type', 'text_time', 'there is a class_embed_type already'),
        (SD15_UNET, 'time_cond_proj_dim', 256, '256; only None'),  # latent consistency models
        (SD15_UNET, 'mid_block_scale_factor', 1.414, '1.414; only 1'),
        (SD15_UNET, 'mid_block_type', 'UNetMidBlock2DSimpleCrossAttn', 'only'),
        (SD15_UNET, 'down_block_types', ['SimpleCrossAttnDownBlock2D'] * 4, 'supported are'),
        (SD15_UNET, 'up_block_types', ['UpBlock2D'] * 4, 'must mirror'),
        (SD15_UNET, 'only_cross_attention', True, 'give a list'),
        (SD15_UNET, 'act_fn', 'gelu', "'gelu'; only 'silu' or 'swish'"),
        (SD15_UNET, 'norm_eps', 1e-6, '1e-06; only 1e-05'),
        (SD15_UNET, 'encoder_hid_dim_type', 'text_proj', 'only None'),
        (SD15_UNET, 'num_attention_heads', 4, 'only None'),
        (SD15_UNET, 'layers_per_block', [2, 2, 2, 1], 'all levels must share one'),
        (SD15_UNET, 'block_out_channels', [320, 500, 1280, 1280], 'multiple of the first'),
        (SD15_UNET, 'attention_head_dim', [8, 8, 16, 16], 'heads of one width'),
        (SD15_UNET, 'attention_head_dim', [8, 8], 'one entry for each of the 4 levels'),
        (SDXL_UNET, 'transformer_layers_per_block', [1, [2, 2], 10], 'each level must have one number'),
        (SDXL_UNET, 'reverse_transformer_layers_per_block', [10, 3, 1], 'must mirror the way down'),
        (SD15_UNET, 'flux_capacitor', 88, 'this key is not known'),
        (CELEBA_UNET, 'downsample_padding', 0, '0; only 1'),
        (CELEBA_UNET, 'downsample_type', 'resnet', 'change the resolution alike'),
        (CELEBA_UNET, 'class_embed_type', 'identity', 'only None'),
        (CELEBA_UNET, 'resnet_time_scale_shift', 'scale_shift', 'attn_norm_num_groups is None; it must be'),
        (CELEBA_UNET, 'time_embedding_type', 'fourier', 'only'),
        (KL_F8, 'use_quant_conv', False, 'False; only True'),
        (KL_F8, 'latents_mean', [0.1] * 4, 'only None'),
        (KL_F8, 'shift_factor', 0.1, 'only'),
        (KL_F8, 'act_fn', 'relu', 'only'),
        (VQ_F4, 'norm_type', 'spatial', "only 'group'"),
        (VQ_F4, 'vq_embed_dim', 4, '4; only None or 3'),
        (VQ_F4, 'lookup_from_codebook', True, 'only False'),
        (dict(_class_name='AutoencoderTiny'), 'latent_magnitude', 4, '4; only 3'),
        (dict(_class_name='AutoencoderTiny'), 'num_decoder_blocks', [1, 3, 3, 3], 'must be'),
        (CLIP_L, 'intermediate_size', 512, 'it must be 4 hidden_size, 3072'),
        (CLIP_L, 'hidden_act', 'gelu_new', "'gelu_new'; only 'quick_gelu' or 'gelu'"),
        (CLIP_L, 'layer_norm_eps', 1e-6, 'only'),
        (CLIP_L, 'architectures', ['BertModel'], "No network class of config.json 'BertModel'; have"),
    ],
)
def test_settings_that_ldm_jax_does_not_have_are_named(config, key, value, message):
    diffusers_json.network(config)
    with pytest.raises(ValueError, match=message) as caught:
        diffusers_json.network(dict(config, **{key: value}))
    assert 'config.json' in str(caught.value)


@pytest.mark.parametrize(
    ('config', 'changes', 'fields'),
    [
        (SD15_UNET, dict(attention_head_dim=[5, 10, 20, 20]), dict(head_width=64, num_heads=None)),
        (SD15_UNET, dict(attention_head_dim=[8, 8, 8, 8]), dict(num_heads=8)),
        (SD15_UNET, dict(resnet_time_scale_shift='scale_shift'), dict(scale_shift=True)),
        (SD15_UNET, dict(transformer_layers_per_block=[1, 2, 3, 4]), dict(depth=(1, 2, 3, 0), mid_depth=4)),
        (CELEBA_UNET, dict(attention_head_dim=None), dict(num_heads=1, head_width=None)),
        (CELEBA_UNET, dict(add_attention=False), dict(mid_depth=0)),
        (CELEBA_UNET, dict(num_class_embeds=10), dict(num_classes=10)),
        (KL_F8, dict(mid_block_add_attention=False), dict(mid_attention=False)),
        (KL_F8, dict(latent_channels=16, layers_per_block=1), dict(z_channels=16, num_res_blocks=1)),
        (CLIP_L, dict(eos_token_id=2, vocab_size=100), dict(end_id=99, vocab_size=100)),
        (CLIP_L, dict(eos_token_id=7), dict(end_id=7)),
        (CLIP_L, dict(num_hidden_layers=24), dict(num_layers=24)),
    ],
)
def test_settings_that_it_has_are_kept(config, changes, fields):
    part, spec = diffusers_json.network(config | changes)
    model = folders.parts(dict(models={part: spec}))[part]
    assert {field: getattr(model, field) for field in fields} == fields


@pytest.mark.parametrize(
    ('class_name', 'defaults'),
    [
        ('UNet2DConditionModel', unets.CONDITIONAL_DEFAULTS),
        ('UNet2DModel', unets.PLAIN_DEFAULTS),
        ('AutoencoderKL', first_stages.DEFAULTS | dict(latent_channels=4)),
        ('VQModel', first_stages.DEFAULTS | dict(latent_channels=3, num_vq_embeddings=256)),
        ('AutoencoderTiny', first_stages.TINY_DEFAULTS),
        ('StableUnCLIPImageNormalizer', dict(embedding_dim=768)),
    ],
)
def test_defaults_are_those_of_the_classes_of_diffusers(class_name, defaults):
    pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    parameters = inspect.signature(folders.class_of(class_name).__init__).parameters
    for key, value in defaults.items():
        theirs = parameters[key].default
        assert (list(theirs) if isinstance(theirs, tuple) else theirs) == value, key


def test_keys_that_must_be_at_their_default_are_checked_against_it():
    pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    # A file that says nothing is the class with nothing said, wherever that can be expressed.
    for class_name in ('UNet2DConditionModel', 'UNet2DModel', 'AutoencoderKL', 'VQModel', 'AutoencoderTiny'):
        parameters = inspect.signature(folders.class_of(class_name).__init__).parameters
        whole = {
            key: list(p.default) if isinstance(p.default, tuple) else p.default
            for key, p in parameters.items()
            if p.default is not inspect.Parameter.empty
        }
        silent = dict(_class_name=class_name)
        assert diffusers_json.network(silent) == diffusers_json.network(silent | whole), class_name


@pytest.mark.parametrize(
    ('class_name', 'defaults'),
    [
        ('CLIPTextConfig', encoders.TEXT_DEFAULTS),
        ('CLIPVisionConfig', encoders.VISION_DEFAULTS),
        ('LDMBertConfig', encoders.BERT_DEFAULTS),
    ],
)
def test_defaults_of_encoders_are_those_of_the_libraries(class_name, defaults):
    pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    pytest.importorskip('diffusers')
    place = importlib.import_module('diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion')
    config = getattr(place if class_name.startswith('LDM') else transformers, class_name)()
    assert {key: getattr(config, key) for key in defaults} == defaults


def test_schedulers_of_diffusers_are_read_with_their_own_defaults():
    pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    found = 0
    for name in dir(diffusers.schedulers):
        cls = getattr(diffusers.schedulers, name)
        parameters = inspect.signature(cls.__init__).parameters if inspect.isclass(cls) else {}
        if not {'beta_start', 'beta_end', 'beta_schedule'} <= parameters.keys():
            continue
        start, end, shape = (parameters[f'beta_{key}'].default for key in ('start', 'end', 'schedule'))
        if name in ('CogVideoXDDIMScheduler', 'CogVideoXDPMScheduler', 'DDIMInverseScheduler'):
            continue  # of other models, or of the way back
        assert schedulers.DEFAULTS.get(name, schedulers.COMMON) == (start, end, shape), name
        found += 1
    assert found > 15


def test_schedules_are_read_or_refused():
    schedule, prediction = schedulers.read(SCHEDULER)
    assert schedule == dict(name='scaled_linear', beta_start=0.00085, beta_end=0.012, num_train_steps=1000)
    assert prediction == 'eps'  # silence means epsilon
    for changes, message in (
        (dict(beta_schedule='squaredcos_cap_v2'), "'squaredcos_cap_v2'; only 'scaled_linear'"),
        (dict(prediction_type='sample'), "'sample'; have"),
        (dict(trained_betas=[0.1, 0.2]), 'trained_betas is'),
        (dict(rescale_betas_zero_snr=True), 'rescale_betas_zero_snr is True'),
    ):
        with pytest.raises(ValueError, match=message):
            schedulers.read(SCHEDULER | changes)
    silent = {key: value for key, value in SCHEDULER.items() if key != 'beta_schedule'}
    with pytest.raises(ValueError, match="'linear'; only"):
        schedulers.read(silent)


def test_prediction_goes_before_the_scheduler_and_is_needed_without(tmp_path):
    write(tmp_path, OF_THEIR_TIME['sd15'])
    assert diffusers_json.read_settings(tmp_path, 'v')['parameterization'] == 'v'
    with pytest.raises(ValueError, match="must be 'eps', 'v' or None; got 'x0'"):
        diffusers_json.read_settings(tmp_path, 'x0')
    (tmp_path / 'scheduler' / 'scheduler_config.json').unlink()
    settings = diffusers_json.read_settings(tmp_path)
    assert settings['parameterization'] == 'eps'
    assert 'schedule' not in settings
    write(tmp_path / '2', dict(OF_THEIR_TIME['sd2_v']))
    (tmp_path / '2' / 'scheduler' / 'scheduler_config.json').unlink()
    with pytest.raises(ValueError, match="Give prediction='eps' or 'v'"):
        diffusers_json.read_settings(tmp_path / '2')
    assert diffusers_json.read_settings(tmp_path / '2', 'v')['parameterization'] == 'v'


def test_latent_scales_that_old_files_leave_out(tmp_path):
    for name, scale in (('sd15', 0.18215), ('x4_upscaler', 0.08333), ('ldm_celeba256', 1.0)):
        write(tmp_path / name, OF_THEIR_TIME[name])
        assert diffusers_json.read_settings(tmp_path / name)['latent_scale'] == scale


def test_components_that_are_not_ours_are_errors_or_left(tmp_path):
    files = dict(OF_THEIR_TIME['sd15'])
    index = files['model_index.json']
    write(tmp_path, files | {'model_index.json': index | dict(safety_checker=['stable_diffusion', 'X'])})
    diffusers_json.read_settings(tmp_path)
    write(tmp_path, {'model_index.json': index | dict(controlnet=['diffusers', 'ControlNetModel'])})
    with pytest.raises(ValueError, match=r"has 'controlnet' \(ControlNetModel\), which is not supported"):
        diffusers_json.read_settings(tmp_path)


TEXTS = ('a photo of a cat', '', "A dog's LIFE, 1999", 'naïve café & 東京', 'x' * 500)


@pytest.mark.parametrize('pad_id', [49407, 0])
def test_the_tokenizer_that_transformers_loads_gives_our_ids(pad_id, tmp_path):
    transformers = pytest.importorskip('transformers')
    spec = dict(name='clip', context_length=20, pad_id=pad_id)
    for name, text in tokenizers.write(spec).items():
        (tmp_path / name).write_text(text, 'utf-8')
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 20
    ids = theirs(list(TEXTS), padding='max_length', truncation=True)['input_ids']
    with pytest.warns(UserWarning, match='Text too long'):
        ours = clip.Tokenizer(context_length=20, pad_id=pad_id)(TEXTS)
    assert ids == ours.tolist()
    assert len(theirs) == clip.VOCAB_SIZE
    assert tokenizers.read_clip(tmp_path, 20) == spec


@pytest.mark.parametrize(
    ('config', 'special', 'pad_id'),
    [
        ({}, {}, 49407),
        (dict(pad_token='<|endoftext|>'), dict(pad_token='!'), 0),
        (dict(pad_token='!', added_tokens_decoder={}), dict(pad_token='<|endoftext|>'), 0),
        ({}, dict(pad_token=dict(content='!', lstrip=False)), 0),
    ],
)
def test_padding_as_transformers_reads_it(config, special, pad_id, tmp_path):
    transformers = pytest.importorskip('transformers')
    files = tokenizers.write(dict(name='clip'))
    files['tokenizer_config.json'] = json.dumps(config)
    files['special_tokens_map.json'] = json.dumps(special)
    for name, text in files.items():
        (tmp_path / name).write_text(text, 'utf-8')
    assert tokenizers.read_clip(tmp_path, 77)['pad_id'] == pad_id
    assert transformers.CLIPTokenizer.from_pretrained(tmp_path).pad_token_id == pad_id


def test_padding_outside_of_the_vocabulary_is_an_error(tmp_path):
    write(tmp_path, {'tokenizer_config.json': dict(pad_token='<pad>')})
    with pytest.raises(
        ValueError, match=re.escape("pad_token is '<pad>', which is not in CLIP's vocabulary")
    ):
        tokenizers.read_clip(tmp_path, 77)


def test_another_bert_vocabulary_leaves_the_tokenizer_out(tmp_path):
    (tmp_path / 'vocab.txt').write_text('[PAD]\n[UNK]\n')
    assert tokenizers.read_bert(tmp_path, 77) is None
    (tmp_path / 'vocab.txt').write_text('word\n' * 30522)
    assert tokenizers.read_bert(tmp_path, 77) == dict(name='bert', context_length=77)


def test_images_are_prepared_as_for_clip(tmp_path):
    transformers = pytest.importorskip('transformers')
    diffusers_json.write_settings(folders.TINY['StableUnCLIPImg2ImgPipeline'], tmp_path)
    config = written(tmp_path, 'feature_extractor/preprocessor_config.json')
    theirs = transformers.CLIPImageProcessor(
        size=dict(shortest_edge=8), crop_size=dict(height=8, width=8)
    ).to_dict()
    for key in config.keys() - {'feature_extractor_type', 'image_processor_type'}:
        value = list(theirs[key]) if isinstance(theirs[key], tuple) else theirs[key]
        assert config[key] == value, key
    assert pipelines.kind_of(folders.TINY['StableUnCLIPImg2ImgPipeline']).pipeline == pipelines.UNCLIP


def test_what_is_there_is_replaced(tmp_path):
    diffusers_json.write_settings(folders.TINY['StableDiffusionPipeline'], tmp_path)
    diffusers_json.write_settings(folders.TINY['StableDiffusionInpaintPipeline'], tmp_path)
    assert diffusers_json.read_settings(tmp_path)['models']['unet']['in_channels'] == 9
