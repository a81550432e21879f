"""The CLIP text transformer against the transformers library, and its published sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints.layouts import transformers_clip
from ldm_jax.models import clip_text
from tests import oracles
from tests.tiers import fast

END = 59
SMALL = clip_text.Model(
    vocab_size=60, context_length=9, width=32, num_layers=2, num_heads=4, projection_width=20, end_id=END
)
TOKENS = np.array(
    [
        [58, 3, 7, 11, END, END, END, END, END],  # padded with the end token: SD 1
        [58, 5, END, 0, 0, 0, 0, 0, 0],  # padded with 0: SD 2, OpenCLIP
        [58, 1, 2, 3, 4, 5, 6, 7, END],
    ],
    np.int32,
)


@pytest.mark.parametrize(
    ('fields', 'count'),
    [
        ({}, 123_060_480),
        (dict(width=1024, num_layers=23, num_heads=16, activation='gelu'), 340_387_840),
        (
            dict(width=1024, num_layers=24, num_heads=16, activation='gelu', projection_width=1024),
            354_032_640,
        ),
        (
            dict(width=1280, num_layers=32, num_heads=20, activation='gelu', projection_width=1280),
            694_659_840,
        ),
    ],
    ids=['CLIP-L', 'OpenCLIP-H in SD 2', 'OpenCLIP-H', 'OpenCLIP-bigG'],
)
def test_published_sizes(fields, count):
    assert trees.count(trees.shapes(clip_text.Model(**fields))) == count


def reference(activation):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    config = transformers.CLIPTextConfig(
        vocab_size=SMALL.vocab_size,
        max_position_embeddings=SMALL.context_length,
        hidden_size=SMALL.width,
        intermediate_size=4 * SMALL.width,
        num_hidden_layers=SMALL.num_layers,
        num_attention_heads=SMALL.num_heads,
        projection_dim=SMALL.projection_width,
        hidden_act=activation,
        bos_token_id=58,
        eos_token_id=END,
    )
    module = transformers.CLIPTextModelWithProjection(config).eval()
    oracles.randomize(module)
    return torch, module


@pytest.mark.parametrize('activation', ['quick_gelu', 'gelu'])
@pytest.mark.parametrize(('dtype', 'tolerance'), fast(1, [('float64', 1e-9), ('float32', 1e-5)]))
def test_every_output_equals_transformers(activation, dtype, tolerance):
    torch, module = reference(activation)
    module = module.to(getattr(torch, dtype))
    with torch.no_grad():
        tokens = torch.from_numpy(TOKENS)
        theirs = module(tokens, output_hidden_states=True)
        pooled = module.text_model(tokens).pooler_output
        hidden = theirs.hidden_states  # the embeddings, then each layer
        normed = [module.text_model.final_layer_norm(each).numpy() for each in hidden]
    with oracles.float64():
        model = SMALL.clone(activation=activation, dtype=jnp.dtype(dtype))
        params = oracles.params_like(model, transformers_clip.layout(model), oracles.tensors(module))
        out = jax.jit(model.apply)({'params': params}, TOKENS)
        assert out.context.dtype == dtype
        assert oracles.relative_error(out.context, theirs.last_hidden_state) < tolerance
        assert oracles.relative_error(out.pooled, pooled) < tolerance
        assert oracles.relative_error(out.projected, theirs.text_embeds) < tolerance
        if (activation, dtype) != ('quick_gelu', 'float64'):
            return
        settings = [(layer, norm) for layer in (-1, -2, 2, 1, 0) for norm in (True, False)]
        chosen = [model.clone(output_layer=layer, final_norm=norm) for layer, norm in settings]
        outs = jax.jit(lambda p: [each.apply({'params': p}, TOKENS) for each in chosen])(params)
        for (layer, norm), out in zip(settings, outs, strict=True):
            expected = (normed if norm else hidden)[layer]
            assert oracles.relative_error(out.context, expected) < tolerance, (layer, norm)
            assert oracles.relative_error(out.pooled, pooled) < tolerance, (layer, norm)

        # Causal: tokens that are left out at the end change nothing before them.
        del params['projection']
        chosen = model.clone(projection_width=None)
        out = jax.jit(chosen.apply)({'params': params}, TOKENS[:2, :5])
        assert oracles.relative_error(out.context, theirs.last_hidden_state[:2, :5]) < tolerance
        assert oracles.relative_error(out.pooled, pooled[:2]) < tolerance
        assert out.projected is None


def random_params(model):
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: generator.standard_normal(s.shape).astype(np.float32) / 6, trees.shapes(model)
    )


@pytest.mark.slow
def test_bfloat16_computes_near_float32():
    model = SMALL.clone(num_layers=1)
    params = random_params(model)
    exact = jax.jit(model.apply)({'params': params}, TOKENS)
    out = jax.jit(model.clone(dtype=jnp.bfloat16).apply)({'params': params}, TOKENS)
    assert out.context.dtype == out.projected.dtype == jnp.bfloat16
    assert oracles.relative_error(out.context, exact.context) < 0.05
    assert oracles.relative_error(out.projected, exact.projected) < 0.05


def test_remat_marks_the_layers_and_changes_no_name():
    remat = SMALL.clone(remat=True)
    shapes = trees.shapes(SMALL)
    assert trees.named(trees.shapes(remat)) == trees.named(shapes)
    for model, expected in ((SMALL, 0), (remat, SMALL.num_layers)):
        jaxpr = jax.make_jaxpr(lambda p, model=model: model.apply({'params': p}, TOKENS))(shapes)
        names = [eqn.primitive.name for eqn in jaxpr.eqns]
        marked = [name for name in names if 'remat' in name or 'checkpoint' in name]  # jax renamed it before
        assert len(marked) == expected, names


def test_initial_spread_is_that_of_the_authors():
    expected = {
        'token_embedding/embedding': 0.02,
        'position_embedding': 0.01,
        'layer_1/ff_in/kernel': (2 * 128) ** -0.5,
        'layer_1/ff_out/kernel': (2 * 2 * 128) ** -0.5,
        'projection/kernel': 128**-0.5,
    }
    model = clip_text.Model(vocab_size=512, width=128, num_heads=4, num_layers=2, projection_width=128)

    @jax.jit
    def spreads(key):
        params = nn.meta.unbox(model.init(key, np.zeros((1, 4), np.int32))['params'])
        return {path: leaf.std() for path, leaf in trees.named(params).items() if path in expected}

    found = spreads(jax.random.key(0))
    assert found.keys() == expected.keys()
    for path, spread in expected.items():
        assert abs(found[path] / spread - 1) < 0.05, path


@pytest.mark.parametrize(
    ('tokens', 'message'),
    [
        (np.zeros((1, 10), np.int32), 'positions for 9 tokens; got 10'),
        (np.zeros((1, 9), np.float32), 'must be integers'),
        (np.zeros(9, np.int32), r'integers \[B, L\]'),
        (np.full((1, 9), 60, np.int32), r'within 0 \.\. 59; got 60'),
        (np.full((1, 9), -1, np.int32), r'got -1'),
    ],
)
def test_tokens_that_cannot_be_encoded(tokens, message):
    params = trees.shapes(SMALL)  # never read: the tokens are looked at first
    with pytest.raises(ValueError, match=message):
        SMALL.apply({'params': params}, tokens)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(activation='gelu_tanh'), "No activation 'gelu_tanh'; have .*Did you mean 'gelu'"),
        (dict(output_layer=-14), 'between -13 and 12'),
        (dict(output_layer=13), 'between -13 and 12'),
        (dict(num_heads=7), 'multiple of num_heads 7'),
    ],
)
def test_fields_that_cannot_be_built(fields, message):
    with pytest.raises(ValueError, match=message):
        clip_text.Model(**fields)
