"""What a network is told, kind by kind."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.models import class_embedder, clip_text, layers, spatial_rescaler, unet, vae
from ldm_jax.schedules import linear
from ldm_jax.text import clip
from ldm_jax.training import conditioning
from ldm_jax.training.conditioning import KINDS, Networks
from ldm_jax.types import Cond

B = 4
DROP = jnp.array([False, True, False, True])
KEYS = jax.random.split(jax.random.key(0), B)
TEXT = dict(context_length=8, num_layers=1, num_heads=2)
MODULES = {
    'unet': unet.Model(channels=8, num_groups=4, num_heads=1, num_classes=11),
    'first_stage': vae.Model(
        channels=8, channel_mult=(1, 1), num_res_blocks=1, num_groups=4, mid_attention=False
    ),
    'text_encoder': clip_text.Model(width=8, **TEXT),
    'text_encoder_2': clip_text.Model(width=16, projection_width=12, **TEXT),
    'class_embedder': class_embedder.Model(num_classes=5, width=6),
    'rescaler': spatial_rescaler.Model(num_stages=1, in_channels=7, out_channels=3),
}
TOKENIZER = clip.Tokenizer(context_length=8)


@pytest.fixture(scope='module')
def params():
    parts = [part for part in MODULES if part != 'unet']
    return {part: trees.init(MODULES[part], jax.random.key(i)) for i, part in enumerate(parts)}


@pytest.fixture
def networks(params):
    return Networks(MODULES, params, {'tokens': TOKENIZER, 'tokens_2': TOKENIZER}, 0.5)


def latents_of(params, image):
    first_stage = MODULES['first_stage']
    return jax.jit(lambda p: first_stage.apply({'params': p}, image, method='latents'))(params['first_stage'])


def tokens(*texts):
    rows = jnp.asarray(TOKENIZER(list(texts)))
    return {'tokens': rows, 'tokens_2': rows}


def told(kind, networks, batch, drop=DROP, keys=KEYS, **knobs):
    """The kind's Cond, compiled as in a step."""

    def tell(params, batch):
        return KINDS[kind](dataclasses.replace(networks, params=params), batch, drop, keys, **knobs)

    return jax.jit(tell)(networks.params, batch)


def assert_dropped(found, kept, null):
    """Rows of found are those of kept, and null where DROP says."""
    expected = np.where(np.asarray(DROP).reshape(-1, *(1,) * (found.ndim - 1)), null, kept)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_text_is_both_encoders_side_by_side_and_the_second_one_s_vector(networks, params):
    texts = ['a cat', 'a dog', 'red', 'blue']
    found = told('text', networks, tokens(*texts), pooled=True)

    def encode(part, *texts):
        return jax.jit(MODULES[part].apply)({'params': params[part]}, jnp.asarray(TOKENIZER(list(texts))))

    one, two = encode('text_encoder', *texts), encode('text_encoder_2', *texts)
    no_one, no_two = encode('text_encoder', ''), encode('text_encoder_2', '')
    assert_dropped(found.context[..., :8], one.context, no_one.context)
    assert_dropped(found.context[..., 8:], two.context, no_two.context)
    assert_dropped(found.vector, two.projected, no_two.projected)
    zeros = told('text', networks, tokens(*texts), null='zeros')
    assert_dropped(zeros.context[..., 8:], two.context, 0)
    assert zeros.vector is None
    encoded = {'context': jnp.concatenate([one.context, two.context], -1), 'pooled': two.projected}
    again = told('text', networks, encoded, pooled=True)
    np.testing.assert_allclose(again.context, found.context, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again.vector, found.vector, rtol=1e-5, atol=1e-6)


def test_a_class_is_a_token_or_a_row_of_the_unet_s_table(networks, params):
    batch = {'label': jnp.array([0, 1, 2, 3])}
    table = params['class_embedder']['embedding']['embedding']
    found = told('class', networks, batch)
    np.testing.assert_array_equal(found.context[:, 0], table[jnp.array([0, 4, 2, 4])])
    modules = {'unet': MODULES['unet']}
    found = told('class', Networks(modules, {}, {}, 1.0), batch)
    np.testing.assert_array_equal(found.label, [0, 10, 2, 10])


def test_sizes_are_sdxl_s_sinusoids(networks):
    size = jnp.array([[512, 384, 0, 16, 1024, 1024]] * B)
    found = told('size', networks, {'size': size}).vector
    each = layers.timestep_embedding(jnp.array([512.0, 384, 0, 16, 1024, 1024]), 256)
    assert_dropped(found, np.tile(each.reshape(-1), (B, 1)), 0)
    assert found.shape == (B, 1536)


@pytest.mark.parametrize('kind', ['vector', 'concat'])
def test_what_the_data_bring_is_passed_on(kind, networks):
    given = jax.random.normal(jax.random.key(1), (B, 5) if kind == 'vector' else (B, 8, 8, 2))
    assert_dropped(getattr(told(kind, networks, {kind: given}), kind), given, 0)


def test_an_edited_image_s_latents_are_not_scaled(networks, params):
    image = jax.random.uniform(jax.random.key(1), (B, 16, 16, 3), minval=-1)
    found = told('source', networks, {'source': image})
    latents = latents_of(params, image)
    assert_dropped(found.concat, latents, 0)


@pytest.mark.slow
def test_inpainting_is_a_mask_and_the_latents_of_the_rest(networks, params):
    image = jax.random.randint(jax.random.key(1), (B, 16, 16, 3), 0, 256).astype(jnp.uint8)
    mask = jnp.zeros((B, 16, 16, 1)).at[:, 4:12, 2:10].set(1)
    found = told('inpainting', networks, {'image': image, 'mask': mask}).concat
    hole = jnp.where(mask == 1, 0.0, image / 127.5 - 1)
    latents = 0.5 * latents_of(params, hole)
    assert_dropped(found[..., 1:], latents, 0)
    assert_dropped(found[..., :1], mask[:, ::2, ::2], 0)


@pytest.mark.slow
def test_masks_are_rectangles_or_the_whole_image():
    masks = np.asarray(conditioning._masks(jax.random.split(jax.random.key(0), 2000), (16, 16), 0.25))
    assert set(np.unique(masks)) == {0, 1}
    share = masks.mean(axis=(1, 2, 3))
    np.testing.assert_allclose((share == 1).mean(), 0.25, atol=0.03)
    assert 0.05 < np.median(share[share < 1]) < 0.5
    one, again = (conditioning._masks(KEYS, (16, 16), 0.0) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one[0] != one[1]).any()


@pytest.mark.slow
def test_a_small_image_is_noised_as_its_label_says(networks):
    image = jnp.broadcast_to(jnp.linspace(-1, 1, 2000)[:, None, None, None], (2000, 16, 16, 3))
    keys, keep = jax.random.split(jax.random.key(3), 2000), jnp.zeros(2000, bool)
    plain = told('low_resolution', networks, {'image': image}, keep, keys)
    np.testing.assert_allclose(plain.concat, image[:, ::4, ::4], atol=1e-5)
    assert plain.label is None
    found = told('low_resolution', networks, {'image': image}, keep, keys, max_noise_level=350)
    assert (int(found.label.min()), int(found.label.max())) == (0, 350)
    level = linear.Schedule().level(found.label)
    noise = (found.concat - level.alpha[:, None, None, None] * plain.concat) / level.sigma[
        :, None, None, None
    ]
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.01)


def test_a_map_of_classes_goes_through_the_rescaler(networks, params):
    maps = jax.random.randint(jax.random.key(1), (B, 16, 16), 0, 7)
    found = told('semantic_map', networks, {'map': maps})
    one_hot = jnp.asarray(np.eye(7, dtype=np.float32)[maps])
    assert_dropped(found.concat, MODULES['rescaler'].apply({'params': params['rescaler']}, one_hot), 0)


def test_parts_are_put_side_by_side():
    one = Cond(context=jnp.ones((B, 3, 2)), vector=jnp.ones((B, 2)))
    two = Cond(vector=jnp.zeros((B, 3)), label=jnp.arange(B))
    found = conditioning.merge([one, two])
    np.testing.assert_array_equal(found.vector, np.tile([1, 1, 0, 0, 0], (B, 1)))
    assert found.context is one.context
    assert found.label is two.label
    assert conditioning.merge([]) == Cond()
    with pytest.raises(ValueError, match='Two kinds'):
        conditioning.merge([two, two])
    with pytest.raises(ValueError, match="No conditioning 'caption'"):
        conditioning.check(['caption'])
    assert KINDS.keys() == conditioning.NEEDS.keys()
