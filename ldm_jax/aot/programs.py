"""The programs that a pod would run, lowered for devices that need not be there: from shapes, without any array.

What a config trains and how is all that is asked: parameters, batches and keys are jax.ShapeDtypeStruct with the
shardings of run.parallel, weights of pretrained parts are never read.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ldm_jax import build, costs, denoising, trees
from ldm_jax.checkpoints import store
from ldm_jax.conditioning import combine
from ldm_jax.conditioning.networks import TEXT_ENCODERS
from ldm_jax.diffusion import prng
from ldm_jax.diffusion.sampling import padded
from ldm_jax.inference import guidance as guided
from ldm_jax.inference import model as parts_of
from ldm_jax.inference import programs
from ldm_jax.inference.model_kinds import GUIDANCE_SCALE
from ldm_jax.inference.settings import TABLE, Sampling
from ldm_jax.models import vae
from ldm_jax.training import ema, optimizer
from ldm_jax.training import state as train_state
from ldm_jax.training import step as train_step
from ldm_jax.training.parallel import backend as parallel
from ldm_jax.training.parallel.sharded import Sharded
from ldm_jax.types import PyTree

SETTINGS = (*build.COMPONENTS, 'scaling_factor')  # of a config, beside its networks


@dataclasses.dataclass(frozen=True)
class Program:
    """A program for the devices of a mesh.

    mesh: sizes of its axes, by name. flops: of all devices together, as the model needs them (see `model_flops`).
    arguments: the name of each, 'state' for what lasts from step to step.
    """

    what: str
    lowered: jax.stages.Lowered
    mesh: Mapping[str, int]
    flops: float
    batch_size: int
    arguments: tuple[str, ...]

    def names(self, compiled: jax.stages.Compiled) -> list[str]:
        """The name of each array that the compiled program takes; those that it does not need are left out of it."""
        shardings, _ = compiled.input_shardings
        return [
            name
            for name, argument in zip(self.arguments, shardings, strict=True)
            for _ in jax.tree.leaves(argument)
        ]


def train(config: Mapping[str, Any], devices: Sequence[jax.Device], batch: int | None = None) -> Program:
    """The step that tools/train.py compiles for this config.

    Args:
        config: of a training run, as plain data; its stage is latent_diffusion, run.parallel.kind 'mesh' or 'single'.
        devices: to run on, all of run.parallel's.
        batch: examples that a device holds at once; run.batch_size is then that, over all devices and micro-batches.

    Raises ValueError for a config that asks for something else, or that leaves networks to be read from elsewhere.
    """
    run = config['run']
    spread = parallel.Parallel(**run.get('parallel', {}))
    if spread.kind == 'pmap':
        raise ValueError(
            "Set run.parallel.kind='mesh' to compile for a topology; with data alone it is pmap's program."
        )
    accumulate = run.get('accumulate', 1)
    batch_size = run['batch_size'] if batch is None else batch * len(devices) * accumulate
    stage = stage_of(config)
    tx = optimizer.optimizer(run['num_steps'], batch_size, **config['optimizer'])
    decays = {name: ema.named(spec) for name, spec in run.get('ema', {}).items()}

    def init(key):
        frozen = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), dict(stage.frozen))
        return train_state.create(stage.init(key), tx, decays, stage.memory(), frozen)

    backend = parallel.backend(spread, batch_size, stage.axes(), devices)
    assert isinstance(backend, Sharded)
    key = jax.eval_shape(lambda: prng.key(0))
    state = backend.like(init, key)
    shapes = examples(stage, batch_size)
    args = state, _placed(shapes, backend.batch), _placed(key, backend.replicated)
    step = train_step.of(stage, tx, decays, accumulate)
    lowered, _ = backend.traced(step, *args)
    return Program(
        'train',
        lowered,
        dict(backend.mesh.shape),
        model_flops(config, state, shapes),
        batch_size,
        ('state', 'batch', 'key'),
    )


def model_flops(config: Mapping[str, Any], state: PyTree, shapes: PyTree) -> float:
    """FLOPs of the matrix products and convolutions of one step, forward and backward, each counted once.

    Counted without rematerialisation, as the numerator of model FLOP utilisation.
    Ref: Chowdhery et al. 2022, arXiv:2204.02311, appendix B.
    """
    stage = stage_of(config, dict(remat=False, attention_backend='naive'))
    key = jax.eval_shape(lambda: prng.key(0))

    def gradients(state, batch, key):
        draws = stage.draw(key, batch)
        return jax.grad(lambda p: stage.loss(train_state.join(p, state.frozen), batch, draws)[0])(
            state.params
        )

    return 2.0 * costs.program_macs(jax.make_jaxpr(gradients)(state, shapes, key))


def stage_of(config: Mapping[str, Any], changed: Mapping[str, Any] | None = None) -> Any:
    """The stage of a config with the shapes of its pretrained parts in place of their parameters.

    changed: fields of networks to set, where they have them.
    """
    if config['stage']['name'] != 'latent_diffusion':
        raise ValueError(
            f'Only stage latent_diffusion can be compiled without its data; got {config["stage"]["name"]!r}.'
        )
    specs = model_specs(config)
    models = build.parts({'models': specs})
    for field, value in (changed or {}).items():
        models = {
            part: model.clone(**{field: value}) if hasattr(model, field) else model
            for part, model in models.items()
        }
    frozen = {part: trees.shapes(models[part]) for part in config.get('pretrained', {})}
    fields = build.components(config)
    if 'scaling_factor' in config:
        fields['scaling_factor'] = config['scaling_factor']
    return build.build('training.stages', {**models, **fields, **config['stage'], 'frozen': frozen})


def model_specs(config: Mapping[str, Any]) -> dict[str, Any]:
    """Part -> spec of every network of a training config.

    Raises ValueError where a pretrained part's spec would have to be read from a file that is not on this machine.
    """
    specs = {}
    for part, source in config.get('pretrained', {}).items():
        given = {'model': source} if isinstance(source, str) else dict(source)
        model = given.pop('model')
        if 'name' not in given:
            if not (os.path.isdir(model) and store.is_model(model)):
                raise ValueError(
                    f'What network pretrained.{part} is has to be read from {model!r}, which is no model directory '
                    f"here. Say it in the config: pretrained.{part}=dict(model={model!r}, name='vae', ...)."
                )
            given = store.open_model(model).settings['models'][part] | given
        specs[part] = given
    return specs | dict(config['models'])


def networks(stage: Any) -> dict[str, Any]:
    """Part -> network of a stage."""
    fields = {field.name: getattr(stage, field.name) for field in dataclasses.fields(stage)}
    return {name: value for name, value in fields.items() if hasattr(value, 'inputs')}


def examples(stage: Any, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch: images and tokens where they are encoded in the step, else what encoders made of them.

    Raises ValueError for a kind of conditioning whose examples have no shape of their own.
    """

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

    side, first = stage.latent_size, stage.first_stage
    size = side * (1 if first is None else first.downscale)
    cond = denoising.inputs(stage.unet, 1, side)[2]
    widths = denoising.conditioned_on(stage.unet)
    in_step = stage.encode == 'step' or first is None
    if in_step:
        found = {'image': array(size, size, 3, dtype=jnp.uint8)}
    elif isinstance(first, vae.Model):
        found = {'moments': array(side, side, 2 * first.z_channels)}
    else:
        found = {'latents': array(side, side, first.z_channels)}
    given = {
        'tokens': lambda: array(*cond.context.shape[1:2], dtype=jnp.int32),
        'tokens_2': lambda: array(*cond.context.shape[1:2], dtype=jnp.int32),
        'context': lambda: array(*cond.context.shape[1:]),
        'pooled': lambda: array(stage.text_encoder_2.projection_width),
        'label': lambda: array(dtype=jnp.int32),
        'size': lambda: array(6),
        'depth': lambda: array(size, size, 1),
        'vector': lambda: array(widths.vector),
        'concat': lambda: array(side, side, widths.concat),
        'source': lambda: array(size, size, 3),
        'map': lambda: array(size, size, dtype=jnp.int32),
    }
    kind: Any
    for name, kind in combine.kinds(stage.conditioning).items():
        if name == 'text' and in_step:
            keys = [key for part, key in TEXT_ENCODERS.items() if part in networks(stage)]
        elif name == 'text':
            keys = ['context', *(['pooled'] if kind.pooled else [])]
        else:
            keys = [key for key in kind.batch[0] if key != 'image']
        found |= {key: given[key]() for key in keys}
    return found


def sample(
    config: Mapping[str, Any],
    devices: Sequence[jax.Device],
    batch: int = 1,
    *,
    sampler: str = 'dpmpp_2m',
    num_steps: int = 25,
) -> Program:
    """The sampler, with guidance, of the model that a config trains, bfloat16, each device with images of its own.

    Args:
        batch: images of a device.
    """
    settings = {key: config[key] for key in SETTINGS if key in config} | {
        'models': model_specs(config),
        'parameterization': config['stage']['objective']['parameterization'],
        'latent_size': config['stage']['latent_size'],
    }
    parts = parts_of.from_settings(settings, dtype='bfloat16')
    sampling = Sampling(sampler)
    built, levels = sampling.plan(parts.schedule)
    total, side = batch * len(devices), parts.latent_size
    mesh = Mesh(devices, ('data',))
    whole, cut = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec('data'))
    weights = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.bfloat16), trees.shapes(parts.unet))
    params = _placed({'unet': weights}, whole)
    x, _, cond = denoising.inputs_of(parts.unet, total, side)
    keys = jax.ShapeDtypeStruct((total, 2), jnp.uint32)
    own, shared = guided.split(guided.arrays(sampling.guidance, total, GUIDANCE_SCALE))
    images = _placed(programs.Images(x, keys, (cond, cond), own), cut)
    job = programs.SamplerRun(images, padded(levels, TABLE), jnp.int32(num_steps), built, shared)
    run = programs.Programs(parts, tuple(devices))

    def walked(params, images):
        whole_job = dataclasses.replace(job, images=images)
        return run.advance(params, whole_job, run.begin(params, whole_job), 0, num_steps)

    lowered = jax.jit(walked).lower(params, images)
    macs = costs.cost(parts.unet, denoising.inputs_of(parts.unet, 2, side)).macs
    flops = 2.0 * macs * total * num_steps
    return Program('sample', lowered, {'data': len(devices)}, flops, total, ('state', 'images'))


def _placed(tree: PyTree, sharding: NamedSharding) -> PyTree:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)
