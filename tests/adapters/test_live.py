"""Adapters as factors in the program: what the merge gives, strengths without a compilation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import adapted, denoising, trees
from ldm_jax.adapters import apply, blocks, files, live
from ldm_jax.checkpoints.layouts import adapter_names
from ldm_jax.inference.opening import open_pipeline
from ldm_jax.inference.programs import scheduled
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.adapters import tiny
from tests.adapters.test_diffusers import write
from tests.oracles import relative_error

WORDS = ('attn1.to_q', 'attn2.to_k', 'conv', 'proj_in', 'self_attn.v', 'norm', 'fc1')


def random_adapter(models, params, path, seed, mixed=False):
    """A LoRA of linear layers and convolutions; or with others in between: DoRA, differences, LoHa, norms."""
    normal, tensors = np.random.default_rng(seed).standard_normal, {}
    for i, ((part, name), layer) in enumerate(adapter_names.layers(models).items()):
        leaf = trees.named(params[part])[f'{layer.path}/{layer.leaf}']
        stem = ('lora_unet_' if part == 'unet' else 'lora_te_') + name.replace('.', '_')
        if not any(word in name for word in WORDS):
            continue
        if layer.leaf == 'scale':
            if mixed:
                tensors |= {f'{stem}.w_norm': 0.3 * normal(leaf.shape), f'{stem}.b_norm': normal(leaf.shape)}
            continue
        shape = apply.torch_shape(leaf.shape)
        up, down = tiny.lora(shape, seed=100 * seed + i)
        if mixed and i % 4 == 0:
            tensors |= {f'{stem}.diff': normal(shape) / shape[1]}
            if f'{layer.path}/bias' in trees.named(params[part]):
                tensors |= {f'{stem}.diff_b': normal(shape[0])}
            continue
        tensors |= {f'{stem}.lora_up.weight': 0.3 * up, f'{stem}.lora_down.weight': down}
        tensors |= {f'{stem}.alpha': np.ones(())}
        if mixed and i % 4 == 1:
            tensors |= {f'{stem}.dora_scale': np.abs(normal((shape[0], *(1,) * (len(shape) - 1))))}
    write(path, {key: np.asarray(array, np.float32) for key, array in tensors.items()}, {})
    return files.read(path, models)


@pytest.fixture(scope='module')
def case(tmp_path_factory):
    """Networks, parameters and two adapters of them."""
    root, models = tmp_path_factory.mktemp('live'), tiny.models('sd1')
    params = tiny.params_of('sd1', tiny.torch_models('sd1'))
    adapters = [random_adapter(models, params, root / f'{i}.safetensors', i, mixed=i == 1) for i in (0, 1)]
    return models, params, adapters


def inputs(model, batch):
    x, t, cond = jax.tree.map(
        lambda s: np.random.default_rng(s.ndim).standard_normal(s.shape).astype(s.dtype),
        model.inputs(batch, 8),
    )
    return x, np.full_like(t, 500.0), cond


@pytest.mark.slow
def test_each_image_has_what_the_merge_of_its_strengths_gives(case):
    models, params, adapters = case
    used = [(adapters[0], blocks.strength((0.9, 0.5))), (adapters[1], blocks.strength(0.7))]
    factors = live.factors(params, used)
    assert adapted.count(factors) == 2
    strengths = np.array([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], np.float32)
    x, t, cond = inputs(models['unet'], 3)
    text, tokens = models['text_encoder'], np.full((3, 77), 7, np.int32)

    @jax.jit
    def network(strengths):
        own = (x, t, cond.replace(strengths=strengths))
        twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), own)
        return denoising.bound(models['unet'], params['unet'], factors['unet'])(*twice)

    @jax.jit
    def texts(strengths):
        own = dict(adapters=factors['text_encoder'], strengths=strengths)
        return adapted.apply(text, params['text_encoder'], tokens, **own).context

    found, said = network(strengths), texts(strengths)
    plain = jax.jit(models['unet'].apply)({'params': params['unet']}, x, t, cond)
    for i, row in enumerate(strengths):
        own = [(a, blocks.Strength(s.unet * r, s.text * r)) for (a, s), r in zip(used, row, strict=True)]
        merged = apply.merged(params, own)
        expected = jax.jit(models['unet'].apply)({'params': merged['unet']}, x, t, cond)[i]
        assert relative_error(found[i], expected) < 2e-5
        assert relative_error(found[3 + i], expected) < 2e-5  # of a second conditioning
        context = text.apply({'params': merged['text_encoder']}, tokens).context[i]
        assert relative_error(said[i], context) < 2e-5
        assert (relative_error(expected, plain[i]) > 0.01) == bool(row.any())


@pytest.mark.slow
def test_without_strengths_they_are_one_and_without_adapters_it_is_the_network(case):
    models, params, adapters = case
    used = [(adapters[0], blocks.strength(0.8))]
    x, t, cond = inputs(models['unet'], 1)
    unet = models['unet']
    factors, merged = live.factors(params, used)['unet'], apply.merged(params, used)['unet']
    run = jax.jit(lambda params, factors: denoising.bound(unet, params, factors)(x, t, cond))
    assert relative_error(run(params['unet'], factors), run(merged, {})) < 2e-5
    plain = jax.jit(unet.apply)({'params': params['unet']}, x, t, cond)
    assert np.array_equal(run(params['unet'], {}), plain)


def test_a_schedule_gives_each_evaluation_the_strength_of_its_step():
    seen = []

    def network(x, t, cond):
        seen.append(np.asarray(cond.strengths)[:, 0])
        return x

    times = np.array([900.0, 600.0, 300.0, 0.0, 0.0], np.float32)  # three steps, padded
    strengths = np.array([[[1.0, 2.0, 3.0, 3.0]], [[4.0, 5.0, 6.0, 6.0]]], np.float32)
    call = scheduled(network, times, 3)
    cond = dataclasses.replace(inputs(tiny.models('sd1')['unet'], 2)[2], strengths=strengths)
    for t in (900.0, 700.0, 600.0, 300.0, 100.0, np.array([900.0, 10.0])):
        call(np.zeros((2, 1)), t, cond)
    assert [s.tolist() for s in seen] == [[1, 4], [1, 4], [2, 5], [3, 6], [3, 6], [1, 6]]


@pytest.mark.slow
def test_a_hundred_strengths_and_another_adapter_compile_nothing(tmp_path):
    plain = open_pipeline('emoji32')
    models = dict(unet=plain.parts.unet, text_encoder=plain.parts.text_encoder)
    one, two = (random_adapter(models, plain.params, tmp_path / f'{i}.safetensors', i) for i in (0, 1))
    sampling = Sampling(num_steps=1, guidance=Guidance(scale=3.0))

    def images(pipeline):
        return text_to_image(
            pipeline, ['a red apple, noto style'] * 2, 'a lemon', seed=[1, 2], sampling=sampling
        )

    first, second = (open_pipeline('emoji32', adapters=[(a, 0.3)], live=True) for a in (one, two))
    reference = images(first)
    np.testing.assert_allclose(images(open_pipeline('emoji32', adapters=[(one, 0.3)])), reference, atol=1e-4)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if 'backend_compile' in name else None
    )
    made = [images((first, second)[i % 2].with_strengths([i / 50])) for i in range(100)]
    assert not compiled
    assert len({image.tobytes() for image in made}) == 100


def test_another_number_of_strengths_is_refused():
    pipeline = open_pipeline('emoji32')
    assert pipeline.num_adapters == 0
    with pytest.raises(ValueError, match=r'of K = 0 adapters that were opened with live=True; got \[2\]'):
        pipeline.with_strengths([1.0, 2.0])
