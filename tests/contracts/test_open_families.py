"""Every family that a config names parts of: each name builds, a dotted name works, a wrong one is one line."""

import dataclasses
import pathlib
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion import (
    grids,
    guidance,
    loss,
    noise_sources,
    parameterization,
    spacings,
    timestep_sampling,
    weighting,
)
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.training import ema, lr_schedules, optimizer
from ldm_jax.training.monitoring import writers

NEEDS = {  # knobs without which a name cannot be built
    'timesteps': dict(values=(999, 500, 3)),
    'sigmas': dict(values=(14.0, 3.0, 0.5)),
    'half_life': dict(steps=100),
}


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family is named: from a spec to what it makes, which fails for a wrong one."""

    names: Sequence[str]
    make: Callable[[Any], Any]
    dotted: str  # a function of ldm_jax that is in none of its tables, or one that is, by its path


def curve(spec):
    return lr_schedules.rate(1e-3, 10, curve=spec)(3)


def objective(**settings):
    return loss.objective(Schedule(), **dict(parameterization='v') | settings)


def rule(spec):
    """Guidance rules are named in settings by a string, whose knobs are fields beside it."""
    spec = {'name': spec} if isinstance(spec, str) else dict(spec)
    name = spec.pop('name')
    if spec:
        return build.function('rule of guidance', guidance.RULES, dict(name=name, **spec))
    return Sampling(guidance=Guidance(rule=name))


FAMILIES = {
    'parameterization': Family(
        list(parameterization.PARAMETERIZATIONS),
        lambda spec: parameterization.named(spec)(Schedule().level(500.0)),
        'ldm_jax.diffusion.parameterization.v',
    ),
    'weighting': Family(
        list(weighting.WEIGHTINGS),
        lambda spec: objective(weighting=spec),
        'ldm_jax.diffusion.weighting.min_snr',
    ),
    'loss': Family(list(loss.DISTANCES), lambda spec: objective(loss=spec), 'ldm_jax.diffusion.loss.huber'),
    'training times': Family(
        [*timestep_sampling.QUANTILES, 'importance'],
        lambda spec: objective(times=spec),
        'ldm_jax.diffusion.timestep_sampling.mode',
    ),
    'grid': Family(
        grids.names(),
        lambda spec: grids.named(spec)(Schedule(), 3),
        'ldm_jax.diffusion.spacings.karras',
    ),
    'rule of guidance': Family(list(guidance.RULES), rule, 'ldm_jax.diffusion.guidance.projected'),
    'noise source': Family(
        list(noise_sources.SOURCES),
        lambda spec: noise_sources.noise(spec, [1], (2, 2, 3)),
        'ldm_jax.diffusion.torch_noise.CpuGenerator',
    ),
    'learning-rate curve': Family(list(lr_schedules.CURVES), curve, 'ldm_jax.training.lr_schedules.linear'),
    'moving average': Family(list(ema.DECAYS), ema.named, 'ldm_jax.training.ema.constant'),
    'optimizer': Family(
        list(optimizer.RULES),
        lambda spec: optimizer.optimizer(10, 4, lr=1e-3, **({'name': spec} if isinstance(spec, str) else spec)),
        'ldm_jax.training.optimizer.lion',
    ),
    'writer': Family(list(writers.KINDS), writers.named, 'ldm_jax.training.monitoring.writers.TensorBoard'),
}  # fmt: skip
KNOBLESS = {'noise source'}  # named by a string alone
each_family = pytest.mark.parametrize('kind', FAMILIES)
EACH_NAME = [(kind, name) for kind, family in FAMILIES.items() for name in family.names]


def spec_of(name, **more):
    return dict(name=name, **NEEDS.get(name.rpartition('.')[2], {}), **more)


def one_line(error):
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(('kind', 'name'), EACH_NAME)
def test_every_name_builds(kind, name):
    made = FAMILIES[kind].make(name if kind in KNOBLESS or name not in NEEDS else spec_of(name))
    assert made is not None


@each_family
def test_a_dotted_name_is_the_function_of_that_name(kind):
    family = FAMILIES[kind]
    assert family.make(family.dotted) is not None


@each_family
def test_a_dotted_name_may_be_of_a_module_of_ones_own(kind, monkeypatch):
    family = FAMILIES[kind]
    path, _, attribute = family.dotted.rpartition('.')
    own = types.ModuleType('my_project')
    own.mine = getattr(sys.modules[path], attribute)
    monkeypatch.setitem(sys.modules, 'my_project', own)
    assert family.make('my_project.mine') is not None
    with pytest.raises(ValueError, match=r"'mime'.*Did you mean 'mine'"):
        family.make('my_project.mime')
    with pytest.raises(ValueError, match='nowhere.to_be_found'):
        family.make('nowhere.to_be_found')


@each_family
def test_an_unknown_name_is_one_line_with_the_nearest(kind):
    family = FAMILIES[kind]
    name = family.names[0]
    with pytest.raises(ValueError, match=f"Did you mean '{name}'") as error:
        family.make(f'{name}z')
    assert kind in one_line(error)


@pytest.mark.parametrize('kind', sorted(FAMILIES.keys() - KNOBLESS))
def test_an_unknown_knob_is_one_line_that_names_it(kind):
    family = FAMILIES[kind]
    name = family.names[0]
    with pytest.raises(ValueError, match="'knobb'") as error:
        family.make(spec_of(name, knobb=1))
    assert name in one_line(error)


@pytest.mark.parametrize('family', build.CLASSES)
def test_components_are_found_by_name_and_by_path(family):
    for name in build.names(family):
        assert hasattr(build._imported(f'ldm_jax.{family}.{name}'), build.CLASSES[family]), name
    with pytest.raises(ValueError, match='Did you mean') as error:
        build.build(family, dict(name=f'{build.names(family)[0]}z'))
    one_line(error)
    with pytest.raises(ValueError, match='knobb') as error:
        build.build(family, dict(name=f'ldm_jax.{family}.{build.names(family)[0]}', knobb=1))
    one_line(error)


def test_a_spacing_of_ones_own_is_a_grid_with_its_knobs(monkeypatch):
    def halves(schedule, num_steps, *, share=0.5):
        return (schedule.num_train_steps - 1) * share ** np.arange(num_steps)

    monkeypatch.setitem(sys.modules, 'my_project', types.SimpleNamespace(halves=halves))
    levels = grids.named(dict(name='my_project.halves', share=0.25, end='first'))(Schedule(), 3)
    np.testing.assert_allclose(levels.t, [999, 999 / 4, 999 / 16, 0], rtol=1e-6)


def test_names_are_listed_without_importing_what_they_name(tmp_path):
    import subprocess

    code = (
        'import sys\n'
        'from ldm_jax.diffusion import aliases\n'
        'aliases.names(); aliases.resolve("Euler a Karras")\n'
        'print([name for name in sys.modules if name.startswith("ldm_jax.samplers.")])\n'
    )
    found = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=pathlib.Path.cwd()
    )
    assert found.stdout.strip() == '[]', found.stdout + found.stderr


def test_a_default_of_a_signature_imports_no_sampler():
    import subprocess

    code = (
        'import sys\n'
        'import ldm_jax.pipelines.text_to_image, ldm_jax.pipelines.upscale\n'
        'print([name for name in sys.modules if name.startswith("ldm_jax.samplers.")])\n'
    )
    found = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=pathlib.Path.cwd()
    )
    assert found.stdout.strip() == '[]', found.stdout + found.stderr


def test_a_sampler_and_a_grid_of_ones_own_are_settings(monkeypatch):
    from ldm_jax.samplers import heun

    own = types.ModuleType('my_project')
    own.mine, own.Sampler = spacings.karras, heun.Sampler
    monkeypatch.setitem(sys.modules, 'my_project', own)
    monkeypatch.setitem(sys.modules, 'my_project.solver', own)
    for sampler in ('my_project.solver', dict(name='my_project.solver', s_churn=1.0)):
        made, levels = Sampling(sampler, 'my_project.mine', num_steps=3).plan(Schedule())
        assert isinstance(made, heun.Sampler)
        assert levels.t.shape == (4,)
