"""Specs to objects, and the errors that name the way out."""

import ml_collections
import pytest

from ldm_jax import build


def test_a_spec_becomes_the_object_of_its_module():
    sampler = build.build('samplers', dict(name='ddim', eta=0.5))
    assert type(sampler).__module__ == 'ldm_jax.samplers.ddim'
    assert sampler.eta == 0.5


def test_a_dotted_name_is_any_importable_module():
    same = build.build('samplers', dict(name='ldm_jax.samplers.ddim'))
    assert same == build.build('samplers', dict(name='ddim'))


def test_lists_become_tuples_and_dtypes_are_read_so_that_models_hash():
    spec = dict(
        name='unet', channel_mult=[1, 2], depth=[0, 1], num_heads=2, context_width=8, dtype='bfloat16'
    )
    model = build.build('models', spec)
    assert model.channel_mult == (1, 2)
    assert model.dtype == 'bfloat16'
    hash(model)


@pytest.mark.parametrize('wrap', [dict, ml_collections.ConfigDict])
def test_a_field_that_is_a_spec_is_built_too(wrap):
    spec = wrap(dict(name='zero_terminal', base=dict(name='linear', beta_end=0.01)))
    assert build.build('schedules', spec).base == build.build('schedules', spec['base'])
    spec['base']['name'] = 'lenear'
    with pytest.raises(ValueError, match=r"'lenear'.*'linear'"):
        build.build('schedules', spec)


def test_every_family_lists_its_components():
    for family in build.CLASSES:
        assert build.names(family), family
    assert {'unet', 'vae', 'clip_text'} <= set(build.names('models'))
    assert 'resnet' not in build.names('models')  # blocks are not components


@pytest.mark.parametrize(
    ('family', 'spec', 'words'),
    [
        ('samplers', dict(name='dimm'), ["'dimm'", "'ddim'", 'Did you mean']),
        ('samplers', dict(eta=1.0), ["'name'", 'eta']),
        ('samplers', dict(name='ddim', etta=1.0), ["'etta'", "'eta'"]),
        ('samplers', dict(name='nowhere.to_be.found'), ["'nowhere.to_be.found'"]),
        ('models', dict(name='layers'), ["'layers'", "'unet'"]),
        ('solvers', dict(name='ddim'), ["'solvers'", "'samplers'"]),
    ],
)
def test_a_wrong_spec_names_the_value_and_what_there_is(family, spec, words):
    with pytest.raises(ValueError) as error:
        build.build(family, spec)
    assert all(word in str(error.value) for word in words), error.value


def test_an_import_that_fails_inside_a_module_is_not_mistaken_for_a_wrong_name(tmp_path, monkeypatch):
    (tmp_path / 'parts').mkdir()
    (tmp_path / 'parts' / 'broken.py').write_text('import a_module_that_is_not_there')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match='a_module_that_is_not_there'):
        build.build('samplers', dict(name='parts.broken'))


def test_a_knob_that_is_missing_is_named():
    def half_life(step, *, steps):
        return step / steps

    with pytest.raises(
        ValueError, match=r"Decay 'half_life' needs steps: dict\(name='half_life', steps=\.\.\.\)"
    ):
        build.function('decay', {'half_life': half_life}, 'half_life')
    assert build.function('decay', {'half_life': half_life}, dict(name='half_life', steps=2))(1) == 0.5
