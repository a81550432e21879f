"""The pair of CLIP towers against transformers and OpenCLIP, and the loss that trains them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build, trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import open_clip, transformers_clip
from ldm_jax.models import clip, clip_text, clip_vision
from tests import oracles
from tests.tiers import fast

FIXTURE = Path(__file__).parent / 'fixtures' / 'encoders_open_clip.npz'  # made as README_encoders.md says
TEXT = dict(
    context_length=7, width=24, num_heads=3, num_layers=3, vocab_size=30, end_id=29, projection_width=20
)
VISION = dict(image_size=12, patch_size=4, width=32, num_heads=4, num_layers=2, projection_width=20)


def pair(activation='quick_gelu', dtype='float32'):
    shared = dict(activation=activation, dtype=jnp.dtype(dtype))
    return clip.Model(text=clip_text.Model(**TEXT, **shared), vision=clip_vision.Model(**VISION, **shared))


@pytest.mark.slow
def test_published_size():
    assert trees.count(trees.shapes(build.build('models', dict(name='clip')))) == 427_616_513


def test_the_temperature_starts_where_the_authors_started_it():
    text, vision = (dict(fields, num_layers=0) for fields in (TEXT, VISION))
    model = clip.Model(text=clip_text.Model(**text), vision=clip_vision.Model(**vision))
    inputs = [np.zeros(s.shape, s.dtype) for s in model.inputs()]
    scale = jax.jit(lambda key: model.init(key, *inputs)['params']['logit_scale'].value)(jax.random.key(0))
    np.testing.assert_allclose(np.exp(scale), 1 / 0.07, rtol=1e-6)


def fixture():
    with np.load(FIXTURE) as data:
        arrays = dict(data)
    weights = {key.removeprefix('weights/'): value / 64 for key, value in arrays.items() if '/' in key}
    return arrays, weights


def test_pair_equals_open_clip_in_float32():
    expected, weights = fixture()
    model = pair('gelu')
    params = oracles.params_like(model, open_clip.layout(model), weights)
    images = np.float32(expected['images'] / 64)
    image, text, scale = jax.jit(model.apply)({'params': params}, images, expected['tokens'])
    assert oracles.relative_error(image, expected['image_embeds']) < 1e-5
    assert oracles.relative_error(text, expected['text_embeds']) < 1e-5
    assert oracles.relative_error(scale, expected['scale']) < 1e-5


def test_every_output_equals_open_clip_in_float64():
    expected, weights = fixture()
    with oracles.float64():
        model = pair('gelu', 'float64')
        params = oracles.params_like(model, open_clip.layout(model), weights)
        tokens, images = expected['tokens'], expected['images'] / 64

        @jax.jit
        def outputs(params):
            found = {}
            for layer, norm, name in [
                (-1, True, 'last_normed'),
                (-2, True, 'penultimate_normed'),
                (-2, False, 'penultimate'),
            ]:
                tower = model.text.clone(output_layer=layer, final_norm=norm)
                text = tower.apply({'params': params['text']}, tokens)
                found |= {name: text.context, 'pooled': text.pooled, 'text_projected': text.projected}
            for layer, name in [(-1, 'vision_last'), (-2, 'vision_penultimate')]:
                tower = model.vision.clone(output_layer=layer)
                image = tower.apply({'params': params['vision']}, images)
                found |= {name: image.hidden, 'image_projected': image.projected}
            found['text_embeds'] = model.apply({'params': params}, tokens, method='encode_text')
            found['image_embeds'] = model.apply({'params': params}, images, method='encode_image')
            found['scale'] = model.apply({'params': params}, images, tokens)[2]
            return found

        for name, out in outputs(params).items():
            assert oracles.relative_error(out, expected[name]) < 1e-9, name


def test_stable_diffusion_2_leaves_the_last_layer_out():
    expected, weights = fixture()
    with oracles.float64():
        fields = dict(TEXT, num_layers=2, projection_width=None)
        model = clip_text.Model(**fields, activation='gelu', dtype=jnp.dtype('float64'))
        params = oracles.params_like(model, open_clip.layout(model, extra_layers=1), weights)
        out = jax.jit(model.apply)({'params': params}, expected['tokens'])
        assert oracles.relative_error(out.context, expected['penultimate_normed']) < 1e-9


@pytest.mark.parametrize(('dtype', 'tolerance'), fast(1, [('float64', 1e-9), ('float32', 1e-5)]))
def test_embeddings_and_loss_equal_transformers(dtype, tolerance):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')

    def config(fields, **more):
        return dict(
            hidden_size=fields['width'],
            intermediate_size=4 * fields['width'],
            num_hidden_layers=fields['num_layers'],
            num_attention_heads=fields['num_heads'],
            **more,
        )

    text = config(
        TEXT,
        vocab_size=30,
        max_position_embeddings=7,
        bos_token_id=28,
        eos_token_id=29,
        pad_token_id=29,
    )
    vision = config(VISION, image_size=12, patch_size=4)
    settings = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)
    module = transformers.CLIPModel(settings).eval()
    for part in module.children():  # not the temperature, which stays at its initial log(1 / 0.07)
        oracles.randomize(part)
    module = module.to(getattr(torch, dtype))
    tokens = np.array([[28, 3, 29, 29, 29, 29, 29], [28, 5, 6, 1, 29, 0, 0]], np.int32)
    images = np.random.default_rng(1).standard_normal((2, 12, 12, 3)).astype(dtype)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        theirs = module(input_ids=torch.from_numpy(tokens), pixel_values=pixels, return_loss=True)
    with oracles.float64():
        model = pair(dtype=dtype)
        params = oracles.params_like(model, transformers_clip.layout(model), oracles.tensors(module))
        image, text, scale = jax.jit(model.apply)({'params': params}, images, tokens)
        assert oracles.relative_error(image, theirs.image_embeds) < tolerance
        assert oracles.relative_error(text, theirs.text_embeds) < tolerance
        assert oracles.relative_error(scale * image @ text.T, theirs.logits_per_image) < tolerance
        assert oracles.relative_error(clip.contrastive_loss(image, text, scale), theirs.loss) < tolerance


def test_the_trees_of_the_towers_are_theirs_alone():
    model = pair()
    params = trees.shapes(model)
    assert params.keys() == {'text', 'vision', 'logit_scale'}
    for tower, inside in ((model.text, params['text']), (model.vision, params['vision'])):
        assert trees.named(trees.shapes(tower)) == trees.named(inside)


def test_loss_in_closed_form():
    loss = jax.jit(clip.contrastive_loss)
    eye, same = np.eye(4, dtype=np.float32), np.full((4, 4), 0.5, np.float32)
    np.testing.assert_allclose(loss(eye, eye, 0.0), np.log(4), rtol=1e-6)
    np.testing.assert_allclose(loss(eye, eye, 3.0), np.log(1 + 3 * np.exp(-3)), rtol=1e-6)
    np.testing.assert_allclose(loss(same, same, 50.0), np.log(4), rtol=1e-6)  # all alike: chance
    # Both directions count: every image prefers the first text, but each text prefers its own image.
    logits = np.diag([0.0, 2, 3, 4]).astype(np.float32)
    logits[:, 0] = 5
    of_image = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    of_text = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    expected = (of_image.mean() + of_text.mean()) / 2
    np.testing.assert_allclose(loss(logits, eye, 1.0), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(eye, logits.T, 1.0), expected, rtol=1e-6)


def test_towers_must_meet():
    with pytest.raises(ValueError, match='projection_width 8 of text and 20 of vision'):
        clip.Model(text=clip_text.Model(projection_width=8), vision=clip_vision.Model(**VISION))
    with pytest.raises(ValueError, match='projection_width None of text'):
        clip.Model(text=clip_text.Model(), vision=clip_vision.Model(**VISION))


def test_a_tower_reads_the_file_of_the_pair():
    _, weights = fixture()
    for kind, fields in ((clip_text, TEXT), (clip_vision, VISION)):
        for projection_width in (20, None):
            model = kind.Model(**dict(fields, projection_width=projection_width))
            params = apply_layout.import_params(open_clip.layout(model), weights, trees.shapes(model))
            assert ('projection' in params) == (projection_width is not None)
