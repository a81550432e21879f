"""Which settings of a run may change when it goes on."""

import json

import pytest

from ldm_jax.training.saving import resume_check

CONFIG = {
    'run': {'num_steps': 10, 'keep': 2, 'parallel': {'kind': 'single'}},
    'optimizer': {'lr': 0.1, 'curve': {'name': 'cosine', 'final_lr': 0.0}},
}


def changed(**run):
    return CONFIG | {'run': CONFIG['run'] | run}


@pytest.fixture
def begun(tmp_path):
    """The workdir of a run that has saved a step."""
    resume_check.record(tmp_path, CONFIG)
    (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
    return tmp_path


def test_a_config_is_kept_and_recognised(begun):
    assert json.loads((begun / 'config.json').read_text()) == CONFIG
    assert resume_check.read(begun) == CONFIG
    assert resume_check.changes(begun, CONFIG) == {}


def test_a_run_may_get_more_steps_and_other_upkeep(begun):
    more = changed(num_steps=20, keep=5, parallel={'kind': 'mesh'}, writers=['tensorboard'])
    assert resume_check.changes(begun, more) == {'run.num_steps': (10, 20)}


@pytest.mark.parametrize(
    ('other', 'words'),
    [
        (changed(num_steps=5), r"run.num_steps': \(10, 5\).*--allow_change run.num_steps"),
        (CONFIG | {'optimizer': {'lr': 0.2}}, r"optimizer.lr': \(0.1, 0.2\)"),
        (CONFIG | {'stage': {'conditioning': {'sizes': {}}}}, r'stage.conditioning.sizes'),
        (CONFIG | {'data': {'name': 'x'}}, r"data.name': \(None, 'x'\).*resume\.$"),
    ],
)
def test_what_would_train_something_else_is_refused_by_name(begun, other, words):
    with pytest.raises(ValueError, match=words):
        resume_check.changes(begun, other)


def test_what_is_safe_may_change_when_it_is_asked_for(begun):
    slower = CONFIG | {'optimizer': {'lr': 0.01, 'curve': {'name': 'constant'}}}
    with pytest.raises(ValueError, match='optimizer.curve'):
        resume_check.changes(begun, slower, ['optimizer.lr'])
    assert resume_check.changes(begun, slower, ['optimizer.lr', 'optimizer.curve']) == {
        'optimizer.lr': (0.1, 0.01),
        'optimizer.curve.name': ('cosine', 'constant'),
        'optimizer.curve.final_lr': (0.0, None),
    }
    assert resume_check.changes(begun, changed(num_steps=5), ['run.num_steps']) == {'run.num_steps': (10, 5)}


@pytest.mark.parametrize('name', ['optimizer.lrr', 'data', 'run.seed', 'models', 'run'])
def test_what_is_not_safe_cannot_be_asked_for(tmp_path, name):
    with pytest.raises(ValueError, match='--allow_change'):
        resume_check.changes(tmp_path, CONFIG, [name])


def test_a_start_that_saved_nothing_binds_nobody(tmp_path):
    resume_check.record(tmp_path, CONFIG)
    (tmp_path / 'checkpoints').mkdir()
    assert resume_check.changes(tmp_path, CONFIG | {'data': {'name': 'other'}}) == {}


def test_damaged_steps_bind_too(tmp_path):
    resume_check.record(tmp_path, CONFIG)
    (tmp_path / 'checkpoints' / 'damaged' / '5').mkdir(parents=True)
    with pytest.raises(ValueError, match='data.name'):
        resume_check.changes(tmp_path, CONFIG | {'data': {'name': 'other'}})


def test_names_of_older_workdirs_are_read(begun):
    old = CONFIG | {'initial': 'x', 'latent_scale': 0.2, 'run': CONFIG['run'] | {'picture_every': 3}}
    (begun / 'config.json').write_text(json.dumps(old))
    new = CONFIG | {'warm_start': 'x', 'scaling_factor': 0.2, 'run': CONFIG['run'] | {'image_every': 3}}
    assert resume_check.read(begun) == new
    assert resume_check.changes(begun, new) == {}
