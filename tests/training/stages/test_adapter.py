"""Training of adapters: gradients are PEFT's, the factors alone are trained, and other programs load the files."""

import copy
import json

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import safetensors.numpy
import torch
from PIL import Image

import configs
from ldm_jax import adapted, denoising, trees
from ldm_jax.adapters import apply, blocks, files
from ldm_jax.checkpoints import loading
from ldm_jax.checkpoints.convert import convert
from ldm_jax.training import from_config, start
from ldm_jax.training import state as train_state
from ldm_jax.training.monitoring import writers
from ldm_jax.training.preemption import Preemption
from ldm_jax.training.stages import adapter
from tests import tiny_models
from tests.adapters import tiny
from tests.oracles import float64, relative_error

TARGETS = ['attn1.to_q', 'attn2.to_k', 'ff.net.0.proj', 'resnets.0.conv1']
PATTERNS = [rf'.*{name}' for name in TARGETS]


@pytest.mark.slow
@pytest.mark.parametrize('kind', adapter.KINDS)
def test_outputs_and_gradients_are_those_of_peft(kind):
    net = copy.deepcopy(tiny.torch_models('sd1')['unet']).double()
    config = peft.LoraConfig(r=3, lora_alpha=2, use_dora=kind == 'dora', target_modules=TARGETS)
    theirs = peft.get_peft_model(net, config).double()
    models, params = tiny.models('sd1'), tiny.params_of('sd1', tiny.torch_models('sd1'))
    settings = adapter.Settings(kind, 3, 2.0, PATTERNS, init='kaiming')
    layers = adapter.layers(settings, models)
    normal = np.random.default_rng(0).standard_normal
    named = dict(theirs.base_model.model.named_modules())
    with float64():
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
        factors = adapter.initial(settings, models, params, jax.random.key(0))
        factors = jax.tree.map(lambda a: jnp.asarray(a + 0.1 * normal(a.shape), jnp.float64), factors)
        leaves = trees.named(factors)
        with torch.no_grad():
            for layer in layers:
                at, module = f'{layer.part}/{layer.path}/0', named[layer.name]
                values = {'lora_A': apply.to_torch(leaves[f'{at}/down']), 'lora_B': leaves[f'{at}/up'].T}
                for name, value in values.items():
                    weight = getattr(module, name)['default'].weight
                    weight.copy_(torch.tensor(np.array(value)).reshape(weight.shape))
                if kind == 'dora':
                    own = module.lora_magnitude_vector['default'].weight
                    own.copy_(torch.tensor(np.array(leaves[f'{at}/magnitude'])).reshape(own.shape))
        x, context = normal((2, 8, 8, 4)), normal((2, 7, 12))
        t = np.zeros(2)  # diffusers makes the sinusoids of other times in float32
        unet, cond = models['unet'].clone(dtype=jnp.float64), denoising.inputs(models['unet'], 1, 8)[2]
        cond = cond.replace(context=context)

        def loss(factors):
            acting = adapter.scaled(settings, models, factors)
            out = denoising.bound(unet, params['unet'], acting['unet'])(x, t, cond)
            return jnp.sum(out**2), out

        (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(factors)
    out = theirs(
        torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(t), encoder_hidden_states=torch.tensor(context)
    ).sample
    (out**2).sum().backward()
    assert relative_error(found, out.detach().numpy().transpose(0, 2, 3, 1)) < 1e-9
    gradient = trees.named(gradient)
    for layer in layers:
        at, module = f'{layer.part}/{layer.path}/0', named[layer.name]
        down, up = (getattr(module, name)['default'].weight.grad.numpy() for name in ('lora_A', 'lora_B'))
        assert (
            relative_error(np.asarray(apply.to_torch(gradient[f'{at}/down'])).reshape(down.shape), down)
            < 1e-8
        )
        assert relative_error(np.asarray(gradient[f'{at}/up']).T.reshape(up.shape), up) < 1e-8
        if kind == 'dora':
            magnitude = module.lora_magnitude_vector['default'].weight.grad.numpy().reshape(-1)
            assert relative_error(gradient[f'{at}/magnitude'], magnitude) < 1e-8


@pytest.mark.slow
def test_fresh_factors_change_nothing_and_have_the_ranks_of_their_layers():
    models, params = tiny.models('sd1'), tiny.params_of('sd1', tiny.torch_models('sd1'))
    for kind in adapter.KINDS:
        settings = adapter.named(
            dict(kind=kind, rank=4, targets=['all'], parts=['unet', 'text_encoder'],
                 ranks={'.*attn1.*': 2}, alphas={'.*mlp.*': 1.0})
        )  # fmt: skip
        factors = adapter.scaled(
            settings, models, adapter.initial(settings, models, params, jax.random.key(0))
        )
        leaves = trees.named(factors)
        down = {path: leaf for path, leaf in leaves.items() if path.endswith('down')}
        assert {leaf.shape[-1] for path, leaf in down.items() if 'attn1' in path} == {2}
        assert {leaf.shape[-1] for path, leaf in down.items() if 'attn1' not in path} == {4}
        shape = jax.eval_shape(lambda: trees.init(models['unet'], jax.random.key(0)))
        assert shape.keys() == params['unet'].keys()
        text = models['text_encoder']
        tokens = np.full((1, 77), 3, np.int32)
        plain = text.apply({'params': params['text_encoder']}, tokens).context
        found = adapted.apply(text, params['text_encoder'], tokens, adapters=factors['text_encoder']).context
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)
    assert settings.scale_of(next(x for x in adapter.layers(settings, models) if 'mlp' in x.name)) == 0.25


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(kind='lore'), "No adapter 'lore'; have .* Did you mean 'lora'"),
        (dict(rang=4), "No field of adapter 'rang'; have .* Did you mean 'rank'"),
        (dict(rank=0), 'The rank of an adapter is a whole number from 1 on; got 0'),
        (dict(parts=['unit']), "No part for an adapter 'unit'.*Did you mean 'unet'"),
        (dict(targets=['(']), r"'\(' of an adapter is no regular expression"),
        (dict(targets=['.*attn3.*']), r"no layer fits '\.\*attn3\.\*'; words are"),
        (dict(parts=['text_encoder_2']), "names 'text_encoder_2', which has no layers"),
    ],
)
def test_wrong_settings_are_one_line(fields, message):
    with pytest.raises(ValueError, match=message):
        adapter.layers(adapter.named(fields), tiny.models('sd1'))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A tiny text model, and two images with captions."""
    root = tmp_path_factory.mktemp('model')
    rng = np.random.default_rng(0)
    (root / 'images').mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / 'images' / f'{i}.png')
    rows = [json.dumps(dict(file_name=f'{i}.png', caption=f'thing {i}')) for i in range(4)]
    (root / 'images' / 'metadata.jsonl').write_text('\n'.join(rows))
    return tiny_models.save(root, 'text'), root / 'images'


def config_of(model, steps, **more):
    path, images = model
    config = configs.plain(configs.load('lora:emoji32'))
    config['warm_start'] = path
    config['data'] |= dict(path=str(images), image_size=16)
    config['stage'] |= dict(encode='step', conditioning=dict(text=dict(drop_rate=0.1)), samples=dict(count=0))
    config['stage']['adapter'] = dict(kind='dora', rank=2, targets=['all'], parts=['unet', 'text_encoder'])
    config['optimizer'] = dict(name='adamw', lr=1e-3, curve='constant')
    config['run'] |= dict(num_steps=steps, batch_size=8, log_every=1, save_every=2, image_every=0) | more
    return config


def run(config, workdir):
    start.train(config, workdir, Preemption())
    return safetensors.numpy.load_file(workdir / f'{workdir.name}.safetensors')


@pytest.mark.slow
def test_it_trains_the_factors_alone_resumes_to_the_bit_and_alike_on_many_devices(model, tmp_path):
    config = config_of(model, 4)
    stage, _ = from_config.stage(config, loading.load)
    job = from_config.work(config, stage, start.check(config))
    state = jax.eval_shape(job.init, jax.random.key(0))
    names = trees.named(dict(params=state.params, opt=state.opt_state))
    assert all(adapted.COLLECTION in name for name, leaf in names.items() if leaf.ndim)
    assert trees.count(state.params) < 0.2 * trees.count(state.frozen)
    assert isinstance(state, train_state.TrainState)
    whole = run(config, tmp_path / 'whole' / 'style')
    run(config_of(model, 2), tmp_path / 'parts' / 'style')
    parts = run(config, tmp_path / 'parts' / 'style')
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(array, parts[key]) for key, array in whole.items())
    assert any(np.any(array) for key, array in whole.items() if 'lora_up' in key)
    for spread in (dict(kind='pmap'), dict(kind='mesh', data=2, fsdp=4)):
        other = run(config_of(model, 4, parallel=spread), tmp_path / spread['kind'] / 'style')
        for key, array in whole.items():
            np.testing.assert_allclose(other[key], array, rtol=1e-3, atol=1e-5, err_msg=key)
    assert [line['step'] for line in writers.read_metrics(tmp_path / 'whole' / 'style')] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize('kind', adapter.KINDS)
def test_its_files_give_diffusers_the_weights_that_they_give_here(model, tmp_path, kind):
    config = config_of(model, 2)
    config['stage']['adapter']['kind'] = kind
    workdir = tmp_path / 'style'
    tensors = run(config, workdir)
    # What A1111 and ComfyUI look for.
    assert {key.partition('.')[0].partition('_unet_')[0].partition('_te_')[0] for key in tensors} == {'lora'}
    ends = {'lora_up.weight', 'lora_down.weight', 'alpha'} | ({'dora_scale'} if kind == 'dora' else set())
    assert {key.partition('.')[2] for key in tensors} == ends
    with safetensors.safe_open(workdir / 'style.safetensors', 'np') as file:
        metadata = file.metadata()
    assert metadata['ss_output_name'] == 'style'
    assert metadata['ss_network_dim'] == '2'
    assert metadata['sshs_model_hash'] == files.file_hash(workdir / 'style.safetensors')
    loaded = loading.load(model[0])
    convert(model[0], str(tmp_path / 'diffusers'), to='diffusers')
    one, other = (
        files.read(path, loaded.parts)
        for path in (
            workdir / 'style.safetensors',
            workdir / 'diffusers' / 'pytorch_lora_weights.safetensors',
        )
    )
    ours = apply.merged(loaded.params, [(one, blocks.strength(0.7))])
    again = apply.merged(loaded.params, [(other, blocks.strength(0.7))])
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    # Magnitudes diffusers reads in its own form alone, and of the U-Net alone.
    for path in [workdir / 'diffusers', *([workdir / 'style.safetensors'] if kind == 'lora' else [])]:
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / 'diffusers', safety_checker=None)
        folder, name = (path.parent, path.name) if path.suffix else (path, None)
        pipe.load_lora_weights(str(folder), weight_name=name)
        pipe.fuse_lora(components=['unet', 'text_encoder'], lora_scale=1.0)
        pipe.unload_lora_weights()
        pipe.save_pretrained(tmp_path / 'fused')
        theirs = loading.load(str(tmp_path / 'fused')).params
        mine = apply.merged(loaded.params, [(one, blocks.strength(1.0))])
        for part in ('unet', 'text_encoder')[: 2 if kind == 'lora' else 1]:
            named = trees.named(theirs[part])
            for key, leaf in trees.named(mine[part]).items():
                np.testing.assert_allclose(leaf, named[key], rtol=1e-5, atol=1e-6, err_msg=f'{path} {key}')
