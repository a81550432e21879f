"""What a model makes of images and captions, against its parts called one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build, trees
from ldm_jax.conditioning import encoder

TEXT = dict(name='clip_text', context_length=8, width=16, num_layers=1, num_heads=2)
SETTINGS = dict(
    models=dict(
        first_stage=dict(
            name='vae', channels=8, channel_mult=(1, 1), num_res_blocks=1, num_groups=4, z_channels=2
        ),
        text_encoder=TEXT,
        text_encoder_2=TEXT | dict(width=8, projection_width=4),
        unet=dict(name='unet'),
    ),
    tokenizer=dict(name='clip', context_length=8),
    tokenizer_2=dict(name='clip', context_length=8, pad_id=0),
)
IMAGE = jnp.linspace(-1, 1, 2 * 8 * 4 * 3).reshape(2, 8, 4, 3)


def params(networks):
    def weights(i, network):
        rng = np.random.default_rng(i)
        return jax.tree.map(
            lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), trees.shapes(network)
        )

    return {part: weights(i, network) for i, (part, network) in enumerate(networks.items())}


def run(function, *args):
    return jax.jit(function)(*args)


@pytest.mark.slow
def test_contexts_lie_side_by_side_and_the_last_one_gives_the_vector():
    parts = ['first_stage', 'text_encoder', 'text_encoder_2']
    model = encoder.from_settings(SETTINGS, parts)
    assert model.parts == parts
    networks = {part: build.build('models', SETTINGS['models'][part]) for part in parts}
    weights, texts = params(networks), ['a red apple', '']
    tokens = [build.build('text', SETTINGS[name])(texts) for name in ('tokenizer', 'tokenizer_2')]
    found = run(model, weights, IMAGE, model.tokens(texts))

    def by_hand(weights, image, tokens):
        one, two = (
            networks[part].apply({'params': weights[part]}, ids)
            for part, ids in zip(parts[1:], tokens, strict=True)
        )
        moments = networks['first_stage'].apply({'params': weights['first_stage']}, image, method='encode')
        return moments, jnp.concatenate([one.context, two.context], axis=-1), two.projected

    moments, context, pooled = run(by_hand, weights, IMAGE, tokens)
    assert found.keys() == {'moments', 'context', 'pooled'}
    np.testing.assert_allclose(found['moments'], moments, atol=1e-6)
    np.testing.assert_allclose(found['context'], context, atol=1e-6)
    np.testing.assert_allclose(found['pooled'], pooled, atol=1e-6)
    assert found['moments'].shape == (2, 4, 2, 4)


def test_parts_may_be_left_out_and_latents_differ_from_moments():
    settings = dict(models=dict(first_stage=dict(name='taesd', channels=4, num_blocks=(1, 1))))
    model = encoder.from_settings(settings, ['first_stage'])
    weights = params(model.modules)
    assert jax.eval_shape(model, weights, IMAGE, {}).keys() == {'latents'}
    model = encoder.from_settings(SETTINGS, ['text_encoder'])
    weights = params(model.modules)
    assert jax.eval_shape(model, weights, None, model.tokens(['x'])).keys() == {'context'}


def test_other_parts_are_refused():
    for parts in (['unet'], []):
        with pytest.raises(
            ValueError, match=r"among \['first_stage', 'text_encoder', 'text_encoder_2'\].*got"
        ):
            encoder.from_settings(SETTINGS, parts)
