"""Programs from configs, with no array and no weights."""

import copy

import jax
import jax.numpy as jnp
import pytest

import configs
from ldm_jax import costs, trees
from ldm_jax.aot import programs, report
from ldm_jax.training import state as train_state
from ldm_jax.training.parallel import backend as parallel

TINY = dict(
    stage=dict(
        name='latent_diffusion',
        latent_size=8,
        objective=dict(parameterization='eps'),
        conditioning=dict(text=dict(drop_rate=0.1, null='zeros')),
    ),
    models=dict(
        unet=dict(
            name='unet',
            channels=16,
            channel_mult=(1, 2),
            num_res_blocks=1,
            depth=(0, 1),
            num_heads=2,
            context_width=8,
            num_groups=4,
            remat=True,
            dtype='bfloat16',
        ),
    ),
    pretrained=dict(
        first_stage=dict(model='nowhere', name='vae', channels=8, channel_mult=(1, 2), num_groups=4)
    ),
    schedule=dict(name='scaled_linear'),
    scaling_factor=0.2,
    optimizer=dict(lr=1e-3),
    run=dict(
        num_steps=10,
        batch_size=16,
        ema=dict(main=dict(name='constant', decay=0.99)),
        parallel=dict(kind='mesh', data=2, fsdp=4),
    ),
)


# In a 3 x 3 convolution over 4 x 4 pixels (10 / 12)^2 of the products are not with padding; a model's count has all.
PADDED = 0.69


def changed(**parts):
    config = copy.deepcopy(TINY)
    for part, fields in parts.items():
        config[part] = config[part] | fields
    return config


@pytest.fixture(scope='module')
def compiled():
    program = programs.train(TINY, jax.devices())
    compiled = program.lowered.compile()
    return program, report.measured(compiled.as_text(), program.mesh, program.names(compiled))


@pytest.mark.slow
def test_weights_are_gathered_and_activations_are_not(compiled):
    _, work = compiled
    moved = {(c.kind, c.axes, c.moves) for c in work.collectives if c.moves}
    assert moved == {('all-gather', ('fsdp',), 'weights')}
    assert {c.axes for c in work.collectives if c.kind == 'all-reduce'} <= {
        ('data',),
        ('fsdp',),
        ('data', 'fsdp'),
    }


@pytest.mark.slow
def test_what_is_cut_is_gathered_forward_and_backward(compiled):
    _, work = compiled
    stage = programs.stage_of(TINY)
    backend = parallel.backend(parallel.Parallel(**TINY['run']['parallel']), 16, stage.axes())
    params = trees.named(
        backend.like(lambda key: {'unet': trees.init(stage.unet, key, size=8)}, jax.random.key(0))
    )
    cut = [leaf for leaf in params.values() if 'fsdp' in leaf.sharding.spec]
    gathered = sum(c.nbytes for c in work.collectives if c.kind == 'all-gather')
    # Forward, forward again and for the input's gradient, which the compiler may make one. On a CPU bfloat16 is
    # gathered as the float32 that it computes with.
    assert 1.9 < gathered / sum(4 * leaf.size for leaf in cut) < 3
    summed = sum(c.nbytes for c in work.collectives if c.kind == 'all-reduce')
    assert 1 <= summed / sum(4 * leaf.size for leaf in params.values()) < 3


@pytest.mark.slow
def test_the_program_computes_what_the_model_needs_and_forward_again(compiled):
    program, work = compiled
    share = work.flops * 8 / program.flops
    # The blocks' forward pass, which is run again, is a third of all.
    assert 4 / 3 * PADDED < share < 4 / 3


@pytest.mark.slow
def test_batches_have_what_the_stage_wants():
    sd, xl = (programs.stage_of(configs.load(name).to_dict()) for name in ('train_sd15', 'train_sdxl'))
    shapes = {name: leaf.shape for name, leaf in programs.examples(sd, 4).items()}
    assert shapes == {'moments': (4, 64, 64, 8), 'context': (4, 77, 768)}
    shapes = {name: leaf.shape for name, leaf in programs.examples(xl, 2).items()}
    assert shapes == {
        'moments': (2, 128, 128, 8),
        'context': (2, 77, 2048),
        'pooled': (2, 1280),
        'size': (2, 6),
    }
    in_step = configs.load('train_sdxl').to_dict()
    in_step['stage']['encode'] = 'step'
    shapes = programs.examples(programs.stage_of(in_step), 2)
    assert shapes['image'].shape == (2, 1024, 1024, 3)
    assert shapes['image'].dtype == jnp.uint8
    assert shapes['tokens'].shape == shapes['tokens_2'].shape == (2, 77)


@pytest.mark.slow
def test_a_models_flops_are_three_times_its_forward_pass():
    stage = programs.stage_of(TINY)
    params = {'unet': trees.shapes(stage.unet)}
    state = train_state.TrainState(None, None, params, {}, None, None, dict(stage.frozen))
    flops = programs.model_flops(TINY, state, programs.examples(stage, 4))
    forward = 2 * costs.cost(stage.unet, stage.unet.inputs(4, 8)).macs
    assert 2.8 < flops / forward <= 3  # the first layer's input needs no gradient


@pytest.mark.slow
def test_the_published_configs_have_the_published_networks():
    for name, count in {'train_sd15': 859_520_964, 'train_sdxl': 2_567_463_684}.items():
        stage = programs.stage_of(configs.load(name).to_dict())
        assert trees.count(trees.shapes(stage.unet)) == count
        assert stage.unet.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (changed(pretrained=dict(first_stage='runs/vae/model')), 'Say it in the config'),
        (changed(stage=dict(name='contrastive')), 'Only stage latent_diffusion'),
        (changed(run=dict(parallel=dict(kind='pmap'))), "kind='mesh'"),
        (changed(run=dict(parallel=dict(kind='mesh', data=3))), '8 devices'),
        (changed(run=dict(batch_size=12)), 'a multiple of the 8 devices'),
    ],
)
def test_what_cannot_be_compiled_is_refused(config, words):
    with pytest.raises(ValueError, match=words):
        programs.train(config, jax.devices())


@pytest.mark.slow
def test_samplers_of_devices_do_not_talk():
    program = programs.sample(changed(), jax.devices(), batch=1, sampler='ddim', num_steps=5)
    compiled = program.lowered.compile()
    work = report.measured(compiled.as_text(), program.mesh, program.names(compiled))
    assert work.collectives == ()
    assert work.unknown_loops == 0
    assert PADDED < work.flops * 8 / program.flops <= 1
