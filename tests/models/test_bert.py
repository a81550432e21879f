"""The text transformer of latent diffusion against the original code and diffusers, and its sizes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints.layouts import bert as layouts
from ldm_jax.models import bert
from tests import oracles

FIXTURE = Path(__file__).parent / 'fixtures' / 'encoders_bert.npz'  # made as README_encoders.md says
SMALL = bert.Model(vocab_size=20, context_length=9, width=24, num_layers=2, num_heads=2, head_width=8)


@pytest.mark.parametrize(
    ('fields', 'count'),
    [
        ({}, 542_895_360),
        (dict(width=640), 166_590_080),
        (dict(width=512, num_layers=16, vocab_size=8192, context_length=92), 54_656_000),
    ],
    ids=['txt2img-1p4B', 'text2img256', 'layout2img'],
)
def test_published_sizes_without_the_unused_output_layer(fields, count):
    assert trees.count(trees.shapes(bert.Model(**fields))) == count


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float64', 1e-9), ('float32', 1e-5)])
def test_equals_the_original(dtype, tolerance):
    with np.load(FIXTURE) as data:
        expected = dict(data)
    weights = {key.removeprefix('weights/'): value / 64 for key, value in expected.items() if '/' in key}
    with oracles.float64():
        model = SMALL.clone(dtype=jnp.dtype(dtype))
        params = oracles.params_like(model, layouts.layout(model), weights)
        out = jax.jit(model.apply)({'params': params}, expected['tokens'])
        assert oracles.relative_error(out, expected['context']) < tolerance
        out = jax.jit(model.apply)({'params': params}, expected['tokens'][:, :5])
        assert oracles.relative_error(out, expected['context_of_5']) < tolerance


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float64', 1e-9), ('float32', 1e-5)])
def test_equals_diffusers(dtype, tolerance):
    torch = pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    config = LDMBertConfig(
        vocab_size=20,
        max_position_embeddings=9,
        encoder_layers=2,
        encoder_ffn_dim=96,
        encoder_attention_heads=2,
        head_dim=8,
        d_model=24,
    )
    module = LDMBertModel(config).eval()
    oracles.randomize(module)
    module = module.to(getattr(torch, dtype))
    tokens = np.random.default_rng(0).integers(0, 20, (2, 9)).astype(np.int32)
    with torch.no_grad():
        theirs = module(torch.from_numpy(tokens), return_dict=True).last_hidden_state
    with oracles.float64():
        model = SMALL.clone(dtype=jnp.dtype(dtype))
        params = oracles.params_like(model, layouts.layout(model, 'diffusers'), oracles.tensors(module))
        assert oracles.relative_error(jax.jit(model.apply)({'params': params}, tokens), theirs) < tolerance


def test_tokens_that_cannot_be_encoded():
    params = trees.shapes(SMALL)
    with pytest.raises(ValueError, match='positions for 9 tokens; got 10'):
        SMALL.apply({'params': params}, np.zeros((1, 10), np.int32))
    with pytest.raises(ValueError, match=r'within 0 \.\. 19; got 0 \.\. 20'):
        SMALL.apply({'params': params}, np.array([[0, 20]]))
