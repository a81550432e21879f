"""Any field of a config from the command line."""

import pytest

import configs
from ldm_jax import build
from ldm_jax.training import config_fields, overrides
from ldm_jax.training.config_fields import fields
from ldm_jax.training.saving.resume_check import flat


def tiny(stage='latent_diffusion'):
    return configs.plain(configs.load(f'tiny:{stage}'))


def at(config, name):
    for key in name.split('.'):
        config = config[key]
    return config


@pytest.mark.parametrize(
    ('name', 'text', 'value'),
    [
        ('optimizer.weight_decay', '0.1', 0.1),
        ('optimizer.clip_norm', 'none', None),
        ('optimizer.curve.final_lr', '1e-5', 1e-5),
        ('discriminator_optimizer.lr', '1e-4', 1e-4),
        ('stage.objective.loss', 'l1', 'l1'),
        ('stage.objective.loss.name', 'huber', 'huber'),
        ('stage.objective.times', 'cosine', 'cosine'),
        ('stage.objective.offset_noise', '0.05', 0.05),
        ('stage.objective.weighting.gamma', '3', 3.0),
        ('stage.conditioning.text.null', 'zeros', 'zeros'),
        ('stage.conditioning.class_label.drop_rate', '0.1', 0.1),
        ('stage.conditioning.mine.name', 'ldm_jax.conditioning.sizes', 'ldm_jax.conditioning.sizes'),
        ('stage.samples.count', '2', 2),
        ('stage.samples.prompts', "('a red circle', 'a cross')", ['a red circle', 'a cross']),
        ('stage.encode', 'step', 'step'),
        ('schedule.beta_end', '0.02', 0.02),
        ('warm_start', 'emoji32', 'emoji32'),
        ('scaling_factor', '0.2', 0.2),
        ('pretrained.first_stage', 'models/x', 'models/x'),
        ('pretrained.first_stage.model', 'models/x', 'models/x'),
        ('pretrained.first_stage.dtype', 'bfloat16', 'bfloat16'),
        ('models.unet.remat', 'true', True),
        ('models.unet.channel_mult', '1,2', [1, 2]),
        ('models.unet.depth', '(1,)', [1]),
        ('models.unet.context_width', 'None', None),
        ('run.num_steps', '1e3', 1000),
        ('run.keep_every', '5', 5),
        ('run.ema.slow.name', 'power', 'power'),
        ('run.ema.main.warmup', 'false', False),
        ('run.writers', 'tensorboard', ['tensorboard']),
        ('run.profile', '(5, 8)', [5, 8]),
        ('run.parallel.fsdp', '4', 4),
        ('run.loader.threads', '2', 2),
        ('export.dtype', 'float16', 'float16'),
    ],
)
def test_a_field_is_set_whether_or_not_the_file_writes_it(name, text, value):
    config = overrides.apply(tiny(), [(name, text)])
    found = at(config, name)
    assert found == value
    assert type(found) is type(value)


def test_what_is_given_is_left_alone():
    config = tiny()
    overrides.apply(config, [('optimizer.curve.final_lr', '1'), ('models.unet.channels', '16')])
    assert config == tiny()


@pytest.mark.parametrize('order', [1, -1])
def test_another_component_has_fields_of_its_own(capsys, order):
    given = [
        ('data.name', 'image_folder'),
        ('data.path', 'somewhere'),
        ('data.select', "{'split': ['train']}"),
    ]
    config = overrides.apply(tiny(), given[::order])
    select = {'split': ['train']}
    assert config['data'] == dict(name='image_folder', path='somewhere', image_size=16, select=select)
    assert capsys.readouterr().err == 'data: image_folder instead of synthetic; kept image_size=16\n'


@pytest.mark.parametrize('name', ['schedule', 'schedule.name'])
def test_what_belonged_to_the_old_component_is_dropped(capsys, name):
    config = overrides.apply(
        tiny() | dict(schedule=dict(name='scaled_linear', beta_end=0.02, num_train_steps=100)),
        [(name, 'cosine')],
    )
    assert config['schedule'] == {'name': 'cosine'} | {
        key: 100 for key in ('num_train_steps',) if key in fields(config, ('schedule',))
    }
    assert 'dropped beta_end' in capsys.readouterr().err
    config = overrides.apply(tiny(), [('stage.objective.weighting', 'uniform')])
    assert config['stage']['objective']['weighting'] == {'name': 'uniform'}
    config = overrides.apply(tiny() | {'optimizer': {'lr': 1.0, 'b2': 0.9}}, [('optimizer.name', 'sgd')])
    assert config['optimizer'] == {'lr': 1.0, 'b2': 0.9, 'name': 'sgd'} or 'b2' not in config['optimizer']


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('optimizer.wieght_decay', '0', "'weight_decay'"),
        ('optimzer.lr', '0', "'optimizer'"),
        ('optimizer.b3', '0', "'b1'"),
        ('optimizer.name', 'adan', "'adamw'"),
        ('optimizer.lr', 'x', 'takes a number'),
        ('optimizer.curve.finallr', '0', "'final_lr'"),
        ('stage.objective.los', 'l1', "'loss'"),
        ('stage.objective.loss.name', 'l3', "'l1'"),
        ('stage.unet', 'x', 'No field of stage'),
        ('stage.conditioning.txt.null', 'x', "'text'"),
        ('stage.conditioning.text.nul', 'x', "'null'"),
        ('stage.samples.counts', '2', "'count'"),
        ('stage.latent_size', '8.5', 'takes a whole number'),
        ('schedule.betaend', '0', "'beta_end'"),
        ('schedule.name', 'cosin', "'cosine'"),
        ('models.unet.remt', 'true', "'remat'"),
        ('models.unet.remat', '2', 'takes true or false'),
        ('models.unet.name', 'unett', "'unet'"),
        ('run.num_step', '1', "'num_steps'"),
        ('run.ema.main.deca', '1', "'decay'"),
        ('run.parallel.fsdb', '1', "'fsdp'"),
        ('run.num_steps.x', '1', 'is a value'),
        ('export.dtyp', 'float16', "'dtype'"),
        ('data.image_sise', '8', "'image_size'"),
    ],
)
def test_a_wrong_one_is_named_with_the_nearest(name, text, words):
    with pytest.raises(ValueError, match=words) as error:
        overrides.apply(tiny(), [(name, text)])
    assert '\n' not in str(error.value)


def test_a_mistake_in_the_file_is_named_too():
    config = tiny()
    config['run']['sav_every'] = 5
    with pytest.raises(ValueError, match="'save_every'"):
        overrides.apply(config, [])


def trained():
    """Every variant of every config that trains something."""
    for name in configs.names():
        for variant in configs.variants(name) or ('',):
            yield f'{name}:{variant}' if variant else name


@pytest.mark.parametrize('name', list(trained()))
def test_every_config_has_known_fields_alone(name):
    overrides.check(configs.plain(configs.load(name)))


@pytest.mark.parametrize('name', list(trained()))
def test_a_field_set_to_its_own_value_changes_nothing(name):
    config = configs.plain(configs.load(name))
    given = [
        (field, value if isinstance(value, str) else repr(value)) for field, value in flat(config).items()
    ]
    assert overrides.apply(config, given) == config


@pytest.mark.parametrize('family', ['schedules', 'models', 'conditioning', 'text', 'data', 'training.stages'])
def test_the_values_of_every_component_have_a_kind(family):
    """So that a wrong one is refused: an annotation that cannot be read would let anything through."""
    for name in build.names(family):
        fields = config_fields.component(family, {'name': name})
        assert fields.keys() >= {'name'}
        unreadable = [field for field, hint in fields.items() if hint is config_fields.ANY]
        assert not unreadable, (name, unreadable)
