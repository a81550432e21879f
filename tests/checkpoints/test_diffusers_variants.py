"""Folders of other versions: names, levels, layers and axes, recognized by the keys."""

import jax
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
from ldm_jax.checkpoints.layouts import diffusers_folder, rules
from tests import oracles
from tests.checkpoints import folders


def exported(name):
    """Settings, parameters and today's tensors of a tiny model."""
    settings = folders.TINY[name]
    params = folders.random_params(settings)
    return settings, params, apply_layout.export_params(diffusers_folder.layout(settings), params)


def read(settings, tensors):
    layout = diffusers_folder.layout(settings, tensors.keys())
    return apply_layout.import_params(layout, tensors, rules.unflatten(folders.shapes(settings)))


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_early_names_of_attention():
    settings, params, tensors = exported('LDMPipeline')
    early = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
    renamed = {}
    for key, tensor in tensors.items():
        for new, old in early.items():
            key = key.replace(f'.{new}.', f'.{old}.') if '.attentions.' in key else key
        renamed[key] = tensor
    for part in ('unet/mid_block', 'vqvae/encoder.mid_block'):
        assert f'{part}.attentions.0.proj_attn.weight' in renamed
    assert_equal(read(settings, renamed), params)


def test_towers_with_and_without_their_level_and_position_ids():
    settings, params, tensors = exported('StableUnCLIPImg2ImgPipeline')
    # Without projection today's transformers leave the level out, with projection they do not.
    flat = {
        key.replace('text_encoder/text_model.', 'text_encoder/'): tensor for key, tensor in tensors.items()
    }
    assert flat.keys() != tensors.keys()
    positions = {
        'text_encoder/embeddings.position_ids': np.arange(77.0)[None],
        'image_encoder/vision_model.embeddings.position_ids': np.arange(5)[None],
    }
    assert_equal(read(settings, flat | positions), params)
    old = {'text_encoder/text_model.embeddings.position_ids': np.arange(77)[None]}
    assert_equal(read(settings, tensors | old), params)


def test_a_last_layer_that_is_not_used_and_no_more_than_one():
    settings, params, tensors = exported('StableDiffusionPipeline (2)')
    level = 'text_encoder/text_model.encoder.layers'
    more = {
        key.replace('.layers.1.', '.layers.2.'): tensor
        for key, tensor in tensors.items()
        if '.layers.1.' in key
    }
    assert any(key.startswith(f'{level}.2.') for key in more)
    assert_equal(read(settings, tensors | more), params)
    flat = {key.replace('text_model.', ''): tensor for key, tensor in (tensors | more).items()}
    assert_equal(read(settings, flat), params)
    layout = diffusers_folder.layout(settings, (tensors | more).keys())
    assert layout.ignored(f'{level}.2.mlp.fc1.weight') == 'a layer after the last one that is used'
    again = {key.replace('.layers.2.', '.layers.3.'): tensor for key, tensor in more.items()}
    with pytest.raises(ValueError, match=r'encoder\.layers\.3\..* unknown'):
        read(settings, tensors | more | again)


@pytest.mark.parametrize('linear', [False, True])
def test_projections_as_matrices_and_as_convolutions(linear):
    settings, params, tensors = exported('StableDiffusionXLPipeline' if linear else 'StableDiffusionPipeline')
    other, found = {}, 0
    for key, tensor in tensors.items():
        if '.attentions.' in key and key.endswith(('.proj_in.weight', '.proj_out.weight')):
            assert tensor.ndim == (2 if linear else 4)
            tensor, found = tensor[..., None, None] if linear else tensor[..., 0, 0], found + 1
        other[key] = tensor
    assert found
    assert_equal(read(settings, other), params)
    bad = next(key for key in other if key.endswith('proj_in.weight'))
    other[bad] = np.zeros((*other[bad].shape[:2], 3, 3), np.float32)
    with pytest.raises(ValueError, match='expected a matrix, or a convolution of size 1'):
        read(settings, other)


def test_what_takes_no_part_is_left_with_a_reason_and_nothing_else():
    settings, params, tensors = exported('StableDiffusionDepth2ImgPipeline')
    left = {
        'safety_checker/concept_embeds': 'classifier of what to hide',
        'safety_checker/vision_model.vision_model.embeddings.position_ids': 'classifier of what to hide',
        'depth_estimator/dpt.embeddings.cls_token': 'MiDaS',
        'text_encoder/text_projection.weight': 'no projection',
        'text_encoder/logit_scale': 'temperature',
    }
    layout = diffusers_folder.layout(settings, tensors.keys() | left.keys())
    for key, reason in left.items():
        assert reason in layout.ignored(key), key
    assert_equal(read(settings, tensors | dict.fromkeys(left, np.zeros(1))), params)
    for key in ('unet/time_embedding.cond_proj.weight', 'controlnet/conv_in.weight', 'conv_in.weight'):
        with pytest.raises(ValueError, match=f'{key} unknown'):
            read(settings, tensors | {key: np.zeros(1)})


def test_latent_diffusion_s_language_model_head_is_left():
    settings, params, tensors = exported('LDMTextToImagePipeline')
    assert_equal(read(settings, tensors | {'bert/to_logits.weight': np.zeros((30, 16))}), params)


def test_statistics_are_rows_in_the_folder_and_vectors_here():
    settings, params, tensors = exported('StableUnCLIPImg2ImgPipeline')
    assert tensors['image_normalizer/mean'].shape == (1, 12)
    assert_equal(read(settings, tensors), params)


def test_a_folder_of_one_model_has_bare_keys(tmp_path):
    whole, params, tensors = exported('StableDiffusionPipeline')
    for part, folder in (('unet', 'unet/'), ('first_stage', 'vae/'), ('text_encoder', 'text_encoder/')):
        settings = dict(whole, models={part: whole['models'][part]})
        bare = {key.removeprefix(folder): tensor for key, tensor in tensors.items() if key.startswith(folder)}
        assert_equal(read(settings, bare), {part: params[part]})
        again = apply_layout.export_params(diffusers_folder.layout(settings), {part: params[part]})
        assert again.keys() == bare.keys()
        diffusers_settings.write_settings(settings, tmp_path)
        assert folders.configs_in(tmp_path).keys() == {''}
        found = diffusers_settings.read_settings(tmp_path)
        assert build.parts(found) == build.parts(settings)
    assert (tmp_path / 'vocab.json').is_file()  # the tokenizer of the text encoder is beside it


def test_text_is_read_as_the_pipelines_of_sdxl_read_it():
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    config = transformers.CLIPTextConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=7,
        projection_dim=12,
        hidden_act='gelu',
        bos_token_id=28,
        eos_token_id=2,  # as files before 4.31 have it: the end is where the highest id is
    )
    net = transformers.CLIPTextModelWithProjection(config).eval()
    oracles.randomize(net)
    saved = dict(config.to_dict(), architectures=['CLIPTextModelWithProjection'])
    part, spec = diffusers_settings.network(saved, xl=True)
    settings = dict(models={part: spec})
    state = oracles.tensors(net)
    params = read(settings, state)[part]
    tokens = np.array([[28, 4, 5, 29, 0, 0, 0], [28, 9, 8, 7, 6, 29, 29]])
    with torch.no_grad():
        expected = net(torch.tensor(tokens), output_hidden_states=True)
    run = jax.jit(build.parts(settings)[part].apply)
    output = run({'params': params}, tokens)
    assert oracles.relative_error(output.context, expected.hidden_states[-2].numpy()) < 1e-5
    assert oracles.relative_error(output.projected, expected.text_embeds.numpy()) < 1e-5
