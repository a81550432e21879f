"""Networks' config.json: fields that are refused, fields that are kept, and the meaning of a missing key."""

import importlib
import inspect

import pytest

from ldm_jax import build
from ldm_jax.checkpoints.diffusers import conditional_unet, encoders, first_stages, plain_unet
from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
from tests.checkpoints import folders
from tests.checkpoints.published_files import (
    CELEBA_UNET,
    CLIP_L,
    KL_F8,
    SD15_UNET,
    SDXL_UNET,
    UNCLIP_UNET,
    VQ_F4,
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
        (SD15_UNET, 'time_cond_proj_dim', 'wide', 'must be null or an integer'),
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
        (SDXL_UNET, 'transformer_layers_per_block', [1, [2, 2], 10], 'there must be a reverse_transformer'),
        (SDXL_UNET, 'reverse_transformer_layers_per_block', [[10, 10], 2, 1], 'a list of 3'),
        (SD15_UNET, 'flux_capacitor', 88, 'this key is not known'),
        (CELEBA_UNET, 'downsample_padding', 0, '0; only 1'),
        (CELEBA_UNET, 'downsample_type', 'resnet', 'it must be downsample_type'),
        (CELEBA_UNET, 'class_embed_type', 'identity', 'only None'),
        (CELEBA_UNET, 'resnet_time_scale_shift', 'scale_shift', 'attn_norm_num_groups is None; it must be'),
        (CELEBA_UNET, 'time_embedding_type', 'fourier', 'only'),
        (KL_F8, 'use_quant_conv', False, 'False; only True'),
        (KL_F8, 'latents_mean', [0.1] * 4, 'must both have 4 numbers'),
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
        (CLIP_L, 'architectures', ['BertModel'], "No network class .* of config.json 'BertModel'; have"),
    ],
)
def test_settings_that_ldm_jax_does_not_have_are_named(config, key, value, message):
    diffusers_settings.network(config)
    with pytest.raises(ValueError, match=message) as caught:
        diffusers_settings.network(dict(config, **{key: value}))
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
    part, spec = diffusers_settings.network(config | changes)
    model = build.parts(dict(models={part: spec}))[part]
    assert {field: getattr(model, field) for field in fields} == fields


@pytest.mark.parametrize(
    ('class_name', 'defaults'),
    [
        ('UNet2DConditionModel', conditional_unet.DEFAULTS),
        ('UNet2DModel', plain_unet.DEFAULTS),
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
        assert diffusers_settings.network(silent) == diffusers_settings.network(silent | whole), class_name


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


def test_images_are_prepared_as_for_clip():
    transformers = pytest.importorskip('transformers')
    config = encoders.preprocessor(build.parts(folders.TINY['StableUnCLIPImg2ImgPipeline'])['image_encoder'])
    theirs = transformers.CLIPImageProcessor(
        size=dict(shortest_edge=8), crop_size=dict(height=8, width=8)
    ).to_dict()
    for key in config.keys() - {'feature_extractor_type', 'image_processor_type'}:
        value = list(theirs[key]) if isinstance(theirs[key], tuple) else theirs[key]
        assert config[key] == value, key
