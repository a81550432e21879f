"""The tasks: which models and which fields of a request each is for, and how a plan becomes its call."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ldm_jax import knobs
from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.pipelines.class_to_image import class_to_image
from ldm_jax.pipelines.depth_to_image import depth_to_image
from ldm_jax.pipelines.edit import edit
from ldm_jax.pipelines.hires import hires
from ldm_jax.pipelines.image_to_image import image_to_image
from ldm_jax.pipelines.inpaint import inpaint
from ldm_jax.pipelines.inpaint_without_text import inpaint_without_text
from ldm_jax.pipelines.interpolate import interpolate
from ldm_jax.pipelines.layout_to_image import layout_to_image
from ldm_jax.pipelines.outpaint import outpaint
from ldm_jax.pipelines.refine import refine
from ldm_jax.pipelines.semantic_to_image import semantic_to_image
from ldm_jax.pipelines.super_resolution import super_resolution
from ldm_jax.pipelines.text_to_image import text_to_image
from ldm_jax.pipelines.unconditional import unconditional
from ldm_jax.pipelines.upscale import upscale
from ldm_jax.pipelines.variations import variations
from ldm_jax.requests.plan import Plan
from ldm_jax.requests.request import Request

SIZES = tuple(
    f'{prefix}{name}'
    for prefix in ('', 'negative_')
    for name in ('original_size', 'crop_top_left', 'target_size')
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A row: how a plan becomes a call.

    kinds: of models that it is for.
    needs: fields of a request that it cannot do without; takes: others that mean something to it, beside those that
        mean something to every task.
    defaults: of those, values where the request leaves them open.
    """

    run: Callable[..., np.ndarray]
    kinds: tuple[str, ...]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Misfit(ValueError):
    """No task takes the fields of a request, all of them together and no more.

    Attributes:
        fields: the names of those that are too many, or want others beside them.
    """

    def __init__(self, message: str, fields: set[str]):
        super().__init__(message)
        self.fields = fields


def given_fields(request: Request) -> set[str]:
    """The fields that only some tasks take, where the request has them."""
    return {name for task in TASKS.values() for name in task.needs + task.takes} & knobs.changed(
        request
    ).keys()


def task_of(kind: str, request: Request) -> str:
    """The name of the task for a kind of model. Raises Misfit when none takes what is given."""
    given = given_fields(request)
    fitting = {name: task for name, task in TASKS.items() if kind in task.kinds}
    for name, task in fitting.items():
        if set(task.needs) <= given <= set(task.needs + task.takes):
            return name
    conditioning, _ = model_kinds.KINDS[kind]
    if not fitting:
        raise ValueError(f'No task is for this model, which is conditioned on {conditioning}.')
    foreign = given - {field for task in fitting.values() for field in task.needs + task.takes}
    if foreign:
        others = sorted(name for name, task in TASKS.items() if foreign & set(task.needs + task.takes))
        raise Misfit(
            f'{named_fields(foreign)} {"means" if len(foreign) == 1 else "mean"} nothing to this model, which is '
            f'conditioned on {conditioning}; {"it is" if len(foreign) == 1 else "they are"} for {", ".join(others)}.',
            foreign,
        )
    near = {name: task for name, task in fitting.items() if given <= set(task.needs + task.takes)}
    if not near:
        message = f'{named_fields(given)} do not go together: no task of this model takes them all.'
        raise Misfit(message, given)
    ways = '; '.join(f'{name} needs {named_fields(task.needs)}' for name, task in near.items())
    are = 'are' if len(given) > 1 else 'is'
    raise Misfit(f'{named_fields(given) or "What is given"} {are} not enough for this model: {ways}.', given)


def completed(request: Request, task: str) -> Request:
    """The request with the task's own defaults where it leaves them open, so that its images name them."""
    open_fields = {name for name, value in knobs.flat(request).items() if value is None}
    defaults = TASKS[task].defaults
    return dataclasses.replace(request, **{name: defaults[name] for name in defaults if name in open_fields})


def run(plan: Plan, pipeline: Pipeline, refiner: Pipeline | None = None) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], num_images of each of the request's rows. Raises what the task raises."""
    common: dict[str, Any] = dict(seed=plan.seeds, sampling=plan.sampling)
    if refiner is not None:
        common['refiner'] = refiner
    return TASKS[plan.task].run(plan, pipeline, **common)


def named_fields(names) -> str:
    """Fields of a request as flags, in order."""
    return ', '.join(f'--{name}' for name in sorted(names, key=list(knobs.settings(Request)).index))


def _options(plan: Plan, **fields: str) -> dict[str, Any]:
    """Arguments of a task from fields of a request, where it has them."""
    found = {argument: getattr(plan.request, field) for argument, field in fields.items()}
    return {argument: value for argument, value in found.items() if value is not None}


def _texts(plan: Plan) -> tuple[list[str], str]:
    return plan.prompts, plan.request.negative_prompt


def _sizes(plan: Plan) -> dict[str, Any]:
    return dict(zip(('sizes', 'negative_sizes'), plan.sizes, strict=True))


def _text_to_image(plan, pipeline, **common):
    return text_to_image(pipeline, *_texts(plan), size=plan.size, **_sizes(plan), **common)


def _hires(plan, pipeline, **common):
    options = _options(plan, scale='hires_scale', upscaler='hires_upscaler', strength='strength')
    if plan.request.hires_size is not None:
        options['final_size'] = plan.request.hires_size[::-1]
    if plan.request.hires_steps is not None:  # of which the pass would leave some out
        steps = math.ceil(plan.request.hires_steps / plan.request.strength)
        options['second'] = dataclasses.replace(plan.sampling, num_steps=steps)
    return hires(pipeline, *_texts(plan), size=plan.size, **options, **_sizes(plan), **common)


def _interpolate(plan, pipeline, seed, **common):
    request = plan.request
    options = dict(shares=request.shares, size=plan.size, **_sizes(plan), **common)
    ways = [
        interpolate(pipeline, prompts, request.negative_prompt, seed=seeds, **options)
        for prompts, seeds in request.ways
    ]
    return np.concatenate(ways)


def _refine(plan, pipeline, refiner, **common):
    options = _options(plan, share='refiner_start') | _sizes(plan)
    return refine(pipeline, refiner, *_texts(plan), size=plan.size, **options, **common)


def _image_to_image(plan, pipeline, **common):
    prompts, negative = _texts(plan)
    options = _options(plan, strength='strength') | _sizes(plan)
    return image_to_image(pipeline, prompts, plan.inputs.fitted(plan.size), negative, **options, **common)


def _inpaint(plan, pipeline, **common):
    prompts, negative = _texts(plan)
    options = _options(
        plan, strength='strength', blur='mask_blur', content='mask_content', padding='mask_padding'
    )
    size = plan.size
    if plan.request.mask_padding is not None:
        options['size'], size = size, None
    image, mask = plan.inputs.fitted(size), plan.inputs.fitted_mask(size)
    return inpaint(pipeline, prompts, image, mask, negative, **options, **common)


def _outpaint(plan, pipeline, **common):
    prompts, negative = _texts(plan)
    sides = dict(zip(('left', 'top', 'right', 'bottom'), plan.request.outpaint, strict=True))
    options = _options(plan, strength='strength', blur='mask_blur', content='mask_content')
    image = plan.inputs.fitted(plan.size)
    return outpaint(pipeline, prompts, image, negative, **sides, **options, **common)


def _depth_to_image(plan, pipeline, **common):
    prompts, negative = _texts(plan)
    options = _options(plan, strength='strength')
    image = plan.inputs.fitted(plan.size)
    return depth_to_image(pipeline, prompts, image, plan.inputs.depth, negative, **options, **common)


def _edit(plan, pipeline, **common):
    prompts, negative = _texts(plan)
    return edit(pipeline, prompts, plan.inputs.fitted(plan.size), negative, **common)


def _upscale(plan, pipeline, **common):
    prompts, negative = _texts(plan)
    options = _options(plan, noise_level='noise_level')
    return upscale(pipeline, prompts, plan.inputs.fitted(plan.size), negative, **options, **common)


def _variations(plan, pipeline, **common):
    prompts, negative = _texts(plan)
    seen = [plan.inputs.image, *plan.inputs.mix]
    options = _options(plan, noise_level='noise_level')
    if plan.request.mix is not None:
        options['weights'] = plan.request.mix_weights or [1.0] * len(seen)
    return variations(pipeline, prompts, seen, negative, size=plan.size, **options, **common)


def _class_to_image(plan, pipeline, **common):
    return class_to_image(pipeline, plan.prompts, size=plan.size, **common)


def _unconditional(plan, pipeline, **common):
    return unconditional(pipeline, len(plan.seeds), size=plan.size, **common)


def _super_resolution(plan, pipeline, **common):
    return super_resolution(pipeline, _each(plan, plan.inputs.fitted(plan.size)), **common)


def _inpaint_without_text(plan, pipeline, **common):
    image, mask = plan.inputs.fitted(plan.size), plan.inputs.fitted_mask(plan.size)
    return inpaint_without_text(pipeline, _each(plan, image), mask, **common)


def _semantic_to_image(plan, pipeline, **common):
    return semantic_to_image(pipeline, _each(plan, plan.inputs.labels), **common)


def _layout_to_image(plan, pipeline, **common):
    return layout_to_image(pipeline, [plan.inputs.layout] * len(plan.seeds), **common)


def _each(plan: Plan, array: np.ndarray) -> np.ndarray:
    """An array once for each image."""
    return np.stack([array] * len(plan.seeds))


def _defaults(function: Callable, **fields: str) -> dict[str, Any]:
    """Field of a request -> the default of that argument of a pipeline's function."""
    parameters = inspect.signature(function).parameters
    return {field: parameters[argument].default for field, argument in fields.items()}


HIRES = ('hires_upscaler', 'hires_steps', 'strength', *SIZES)
HIRES_DEFAULTS = _defaults(hires, hires_upscaler='upscaler', strength='strength')
MASK = ('strength', 'mask_blur', 'mask_content', 'mask_padding', 'invert_mask')

TASKS = {
    'text_to_image': Task(_text_to_image, ('text',), (), SIZES),
    'hires': Task(_hires, ('text',), ('hires_scale',), HIRES, HIRES_DEFAULTS),
    'hires_to_size': Task(_hires, ('text',), ('hires_size',), HIRES, HIRES_DEFAULTS),
    'interpolate': Task(_interpolate, ('text',), ('interpolate',), ('share', *SIZES)),
    'refine': Task(
        _refine, ('text',), ('refiner',), ('refiner_start', *SIZES), _defaults(refine, refiner_start='share')
    ),
    'image_to_image': Task(
        _image_to_image,
        ('text',),
        ('init_image',),
        ('strength', *SIZES),
        _defaults(image_to_image, strength='strength'),
    ),
    'inpaint': Task(
        _inpaint,
        ('text', 'inpaint'),
        ('init_image', 'mask'),
        MASK,
        _defaults(inpaint, strength='strength', mask_blur='blur', mask_content='content'),
    ),
    'outpaint': Task(
        _outpaint,
        ('text', 'inpaint'),
        ('init_image', 'outpaint'),
        ('strength', 'mask_blur', 'mask_content'),
        _defaults(inpaint, strength='strength')
        | _defaults(outpaint, mask_blur='blur', mask_content='content'),
    ),
    'depth_to_image': Task(
        _depth_to_image,
        ('depth',),
        ('init_image', 'depth'),
        ('strength',),
        _defaults(depth_to_image, strength='strength'),
    ),
    'edit': Task(_edit, ('edit',), ('init_image',), ('image_guidance_scale',)),
    'upscale': Task(
        _upscale,
        ('upscale',),
        ('init_image',),
        ('noise_level',),
        _defaults(upscale, noise_level='noise_level'),
    ),
    'variations': Task(
        _variations,
        ('variation',),
        ('init_image',),
        ('noise_level', 'mix', 'mix_weights'),
        _defaults(variations, noise_level='noise_level'),
    ),
    'class_to_image': Task(_class_to_image, ('class',), ('labels',)),
    'unconditional': Task(_unconditional, ('unconditional',)),
    'super_resolution': Task(_super_resolution, ('super_resolution',), ('init_image',)),
    'inpaint_without_text': Task(_inpaint_without_text, ('hole',), ('init_image', 'mask'), ('invert_mask',)),
    'semantic_to_image': Task(_semantic_to_image, ('semantic',), ('label_map',)),
    'layout_to_image': Task(_layout_to_image, ('layout',), ('layout',)),
}
