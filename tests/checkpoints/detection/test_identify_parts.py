"""Parts alone in a file of their own: text encoders, first stages, a tower of a pair; and files that are no model."""

import re

import pytest

import configs
from ldm_jax import build
from ldm_jax.checkpoints.detection.identify import identify
from ldm_jax.checkpoints.layouts import autoencoder, single_file
from ldm_jax.checkpoints.layouts import taesd as taesd_layout
from ldm_jax.models import taesd, vae, vq
from tests.checkpoints import single_files
from tests.checkpoints.single_files import below, blank, exported, listings


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


def test_a_tower_of_transformers_in_the_file_of_the_pair():
    pair = below('sd15', 'cond_stage_model.transformer.') | {
        'text_projection.weight': blank((768, 768)),
        'logit_scale': blank(()),
    }
    assert build.parts(identify(pair)) == build.parts(configs.load('clip_vit_l14_text'))


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
