"""Each kind of conditioning against what it is made of."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build, trees
from ldm_jax.conditioning import combine, depth, inpainting
from ldm_jax.conditioning.networks import Networks
from ldm_jax.models import class_embedder, clip_text, layers, spatial_rescaler, unet, vae
from ldm_jax.schedules import linear
from ldm_jax.text import clip
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
    tokenizers = {'tokens': TOKENIZER, 'tokens_2': TOKENIZER}
    return Networks(MODULES, params, 0.5, linear.Schedule(), tokenizers)


def latents_of(params, image):
    first_stage = MODULES['first_stage']
    return jax.jit(lambda p: first_stage.apply({'params': p}, image, method='latents'))(params['first_stage'])


def tokens(*texts):
    rows = jnp.asarray(TOKENIZER(list(texts)))
    return {'tokens': rows, 'tokens_2': rows}


def trained(name, networks, batch, drop=DROP, keys=KEYS, **fields):
    """The kind's Cond in training, compiled as in a step."""
    kind = build.build('conditioning', dict(name=name, drop_rate=0.5, **fields))

    def cond(params, batch):
        return kind.train(dataclasses.replace(networks, params=params), batch, drop, keys)

    return jax.jit(cond)(networks.params, batch)


def assert_dropped(found, kept, null):
    """Rows of found are those of kept, and null where DROP says."""
    expected = np.where(np.asarray(DROP).reshape(-1, *(1,) * (found.ndim - 1)), null, kept)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_text_is_both_encoders_side_by_side_and_the_second_one_s_vector(networks, params):
    texts = ['a cat', 'a dog', 'red', 'blue']
    found = trained('text', networks, tokens(*texts), pooled=True)

    def encode(part, *texts):
        return jax.jit(MODULES[part].apply)({'params': params[part]}, jnp.asarray(TOKENIZER(list(texts))))

    one, two = encode('text_encoder', *texts), encode('text_encoder_2', *texts)
    no_one, no_two = encode('text_encoder', ''), encode('text_encoder_2', '')
    assert_dropped(found.context[..., :8], one.context, no_one.context)
    assert_dropped(found.context[..., 8:], two.context, no_two.context)
    assert_dropped(found.vector, two.projected, no_two.projected)
    zeros = trained('text', networks, tokens(*texts), null='zeros')
    assert_dropped(zeros.context[..., 8:], two.context, 0)
    assert zeros.vector is None
    encoded = {'context': jnp.concatenate([one.context, two.context], -1), 'pooled': two.projected}
    again = trained('text', networks, encoded, pooled=True)
    np.testing.assert_allclose(again.context, found.context, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again.vector, found.vector, rtol=1e-5, atol=1e-6)


def test_a_class_is_a_token_or_a_row_of_the_unet_s_table(networks, params):
    batch = {'label': jnp.array([0, 1, 2, 3])}
    table = params['class_embedder']['embedding']['embedding']
    found = trained('class_label', networks, batch)
    np.testing.assert_array_equal(found.context[:, 0], table[jnp.array([0, 4, 2, 4])])
    modules = {'unet': MODULES['unet']}
    found = trained('class_label', Networks(modules, {}), batch)
    np.testing.assert_array_equal(found.label, [0, 10, 2, 10])


def test_sizes_are_sdxl_s_sinusoids(networks):
    size = jnp.array([[512, 384, 0, 16, 1024, 1024]] * B)
    found = trained('sizes', networks, {'size': size}).vector
    each = layers.timestep_embedding(jnp.array([512.0, 384, 0, 16, 1024, 1024]), 256)
    assert_dropped(found, np.tile(each.reshape(-1), (B, 1)), 0)
    assert found.shape == (B, 1536)


@pytest.mark.parametrize('kind', ['vector', 'concat'])
def test_what_the_data_bring_is_passed_on(kind, networks):
    given = jax.random.normal(jax.random.key(1), (B, 5) if kind == 'vector' else (B, 8, 8, 2))
    assert_dropped(getattr(trained(kind, networks, {kind: given}), kind), given, 0)


def test_an_edited_image_s_latents_are_not_scaled(networks, params):
    image = jax.random.uniform(jax.random.key(1), (B, 16, 16, 3), minval=-1)
    found = trained('source', networks, {'source': image})
    latents = latents_of(params, image)
    assert_dropped(found.concat, latents, 0)


@pytest.mark.slow
def test_inpainting_is_a_mask_and_the_latents_of_the_rest(networks, params):
    image = jax.random.randint(jax.random.key(1), (B, 16, 16, 3), 0, 256).astype(jnp.uint8)
    mask = jnp.zeros((B, 16, 16, 1)).at[:, 4:12, 2:10].set(1)
    found = trained('inpainting', networks, {'image': image, 'mask': mask}).concat
    hole = jnp.where(mask == 1, 0.0, image / 127.5 - 1)
    latents = 0.5 * latents_of(params, hole)
    assert_dropped(found[..., 1:], latents, 0)
    assert_dropped(found[..., :1], mask[:, ::2, ::2], 0)


@pytest.mark.slow
def test_masks_are_rectangles_or_the_whole_image():
    masks = np.asarray(inpainting.masks(jax.random.split(jax.random.key(0), 2000), (16, 16), 0.25))
    assert set(np.unique(masks)) == {0, 1}
    share = masks.mean(axis=(1, 2, 3))
    np.testing.assert_allclose((share == 1).mean(), 0.25, atol=0.03)
    assert 0.05 < np.median(share[share < 1]) < 0.5
    one, again = (inpainting.masks(KEYS, (16, 16), 0.0) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one[0] != one[1]).any()


@pytest.mark.slow
def test_a_small_image_is_noised_as_its_label_says(networks):
    image = jnp.broadcast_to(jnp.linspace(-1, 1, 2000)[:, None, None, None], (2000, 16, 16, 3))
    keys, keep = jax.random.split(jax.random.key(3), 2000), jnp.zeros(2000, bool)
    plain = trained('low_resolution', networks, {'image': image}, keep, keys, factor=2)
    np.testing.assert_allclose(plain.concat, image[:, ::2, ::2], atol=1e-5)
    assert plain.label is None
    found = trained('low_resolution', networks, {'image': image}, keep, keys, factor=2, max_noise_level=350)
    assert (int(found.label.min()), int(found.label.max())) == (0, 350)
    level = linear.Schedule().level(found.label)
    noise = (found.concat - level.alpha[:, None, None, None] * plain.concat) / level.sigma[
        :, None, None, None
    ]
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.01)


def test_a_small_image_of_the_data_is_the_condition_at_the_latents_size(networks):
    small = jax.random.randint(jax.random.key(1), (B, 4, 4, 3), 0, 256).astype(jnp.uint8)
    batch = {'image': jnp.zeros((B, 16, 16, 3), jnp.uint8), 'small': small}
    found = trained('low_resolution', networks, batch)
    assert_dropped(found.concat, jax.image.resize(small / 127.5 - 1, (B, 8, 8, 3), 'bicubic'), 0)
    given = {'image': small / 127.5 - 1}
    sampled = build.build('conditioning', dict(name='low_resolution')).sample(networks, given)[1]
    np.testing.assert_allclose(sampled.concat[~DROP], found.concat[~DROP], atol=1e-5)
    as_latents = trained(
        'low_resolution', networks, batch | {'small': small.repeat(2, 1).repeat(2, 2)}, factor=2
    )
    assert_dropped(as_latents.concat, small.repeat(2, 1).repeat(2, 2) / 127.5 - 1, 0)
    with pytest.raises(
        ValueError, match=r"'small' is \[4, 4, 4, 3\] beside .*factor 2 it must be \[4, 8, 8, 3\]"
    ):
        trained('low_resolution', networks, batch, factor=2)


def test_a_map_of_classes_goes_through_the_rescaler(networks, params):
    maps = jax.random.randint(jax.random.key(1), (B, 16, 16), 0, 7)
    found = trained('label_map', networks, {'map': maps})
    one_hot = jnp.asarray(np.eye(7, dtype=np.float32)[maps])
    assert_dropped(found.concat, MODULES['rescaler'].apply({'params': params['rescaler']}, one_hot), 0)


def test_parts_are_put_side_by_side():
    one = Cond(context=jnp.ones((B, 3, 2)), vector=jnp.ones((B, 2)))
    two = Cond(vector=jnp.zeros((B, 3)), label=jnp.arange(B))
    found = combine.merge([one, two])
    np.testing.assert_array_equal(found.vector, np.tile([1, 1, 0, 0, 0], (B, 1)))
    assert found.context is one.context
    assert found.label is two.label
    assert combine.merge([]) == Cond()
    with pytest.raises(ValueError, match='Two kinds'):
        combine.merge([two, two])


def test_a_spec_is_built_text_first_and_written_back():
    spec = dict(
        concat={},
        sizes=dict(count=5),
        text=dict(drop_rate=0.1, null='zeros'),
        tiny=dict(name='tests.conditioning.my_kind'),
    )
    found = combine.kinds(spec)
    assert list(found) == ['text', 'concat', 'sizes', 'tiny']
    again = combine.written(found)
    assert again['sizes'] == dict(name='sizes', drop_rate=0.0, count=5, width=256)
    assert combine.kinds(again) == found
    assert combine.kinds(json.loads(json.dumps(again))) == found
    for wrong, words in (
        (dict(txt={}), "No conditioning module 'txt'.*Did you mean 'text'"),
        (dict(text=dict(drop=0.1)), "No field of conditioning/text 'drop'"),
        (dict(text=dict(drop_rate=1.0)), 'text.drop_rate.*1.0'),
        (dict(text=dict(null='none')), "No null of text 'none'"),
        (dict(pose=dict(name='vector')), "conditioning.pose is the kind 'vector'"),
        (dict(inpainting=dict(form='sd')), "No form of inpainting 'sd'"),
    ):
        with pytest.raises(ValueError, match=words):
            combine.kinds(wrong)


def test_a_network_must_take_what_the_conditioning_fills(networks):
    modules = {'unet': unet.Model(channels=8, num_groups=4, num_heads=1, context_width=8, vector_width=4)}
    kinds = combine.kinds(dict(text={}))
    with pytest.raises(
        ValueError, match=r"conditioned on \['context', 'vector'\].*\['text'\] fills \['context'\]"
    ):
        combine.check_network(kinds, Networks(modules, {}))
    combine.check_network(combine.kinds(dict(text=dict(pooled=True))), Networks(modules, {}))
    with pytest.raises(
        ValueError, match=r"'label_map' needs \['rescaler'\] among the models; have \['unet'\]"
    ):
        combine.check_network(combine.kinds(dict(label_map={})), Networks(modules, {}))


@pytest.mark.parametrize('size', [(8, 12), (7, 50), (24, 36)])
def test_depth_maps_are_scaled_as_torch_does(size):
    torch = pytest.importorskip('torch')
    depths = np.random.default_rng(0).uniform(100, 2000, (2, 24, 36, 1)).astype(np.float32)
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(np.moveaxis(depths, -1, 1)), size=size, mode='bicubic'
    )
    expected = np.moveaxis(scaled.numpy(), 1, -1)
    np.testing.assert_allclose(depth.resized(depths, size), expected, rtol=1e-5, atol=1e-3)
    low, high = (f(expected, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    found = depth.normalized(depth.resized(depths, size))
    np.testing.assert_allclose(found, 2 * (expected - low) / (high - low) - 1, atol=1e-5)
