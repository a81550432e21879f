"""Which task a request is, of those that fit a model, and the call of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference.model import Parts
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.pipelines.class_to_image import class_to_image, has_null
from ldm_jax.pipelines.depth_to_image import depth_to_image
from ldm_jax.pipelines.edit import check as check_edit
from ldm_jax.pipelines.edit import edit
from ldm_jax.pipelines.hires import STRENGTH as HIRES_STRENGTH
from ldm_jax.pipelines.hires import hires
from ldm_jax.pipelines.image_to_image import image_to_image
from ldm_jax.pipelines.inpaint import inpaint
from ldm_jax.pipelines.inpaint_without_text import inpaint_without_text
from ldm_jax.pipelines.layout_to_image import layout_to_image
from ldm_jax.pipelines.outpaint import outpaint
from ldm_jax.pipelines.refine import refine
from ldm_jax.pipelines.semantic_to_image import semantic_to_image
from ldm_jax.pipelines.super_resolution import super_resolution
from ldm_jax.pipelines.text_to_image import text_to_image
from ldm_jax.pipelines.unconditional import unconditional
from ldm_jax.pipelines.upscale import upscale
from ldm_jax.pipelines.variations import variations
from ldm_jax.requests import files
from ldm_jax.requests.request import PAIRS, Request

GUIDANCE_SCALE = 7.5  # of texts, where neither request nor model says one
CLASS_GUIDANCE_SCALE = 3.0


@dataclasses.dataclass(frozen=True)
class Task:
    """How a request becomes a call.

    kinds: of models that it is for.
    needs: fields of a request that it cannot do without; takes: others that mean something to it, beside those that
        mean something to every task.
    """

    run: Callable[..., np.ndarray]
    kinds: tuple[str, ...]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


def given_fields(request: Request) -> set[str]:
    """The fields that only some tasks take, where the request has them."""
    some = {name for task in TASKS.values() for name in task.needs + task.takes}
    return {name for name in some if getattr(request, name) is not None}


def task_of(parts: Parts, request: Request) -> str:
    """The name of the task. Raises ValueError, with what would do, when none fits the model and what is given."""
    kind, given = model_kinds.kind(parts), given_fields(request)
    fitting = {name: task for name, task in TASKS.items() if kind in task.kinds}
    for name, task in fitting.items():
        if set(task.needs) <= given <= set(task.needs + task.takes):
            _check(parts, request, name)
            return name
    ways = '; '.join(
        f'{name} needs {list(task.needs) or "nothing more"} and takes {list(task.takes)}'
        for name, task in fitting.items()
    )
    raise ValueError(
        f'This model is told {model_kinds.KINDS[kind][0]}, and the request has {sorted(given) or "nothing more"}, '
        f'which is none of its tasks: {ways or "there are none"}.'
    )


def _check(parts: Parts, request: Request, name: str) -> None:
    if name == 'edit':
        check_edit(request.rows, request.sampling(None))
    told = [field for field in PAIRS if getattr(request, field) is not None]
    if told and not parts.num_sizes:
        raise ValueError(f'{told}: this model is told no sizes. SDXL and its refiner are.')


def guidance_scale(parts: Parts, request: Request, default: float | None = None) -> float | None:
    """A request's scale, or else the model's own default, or its kind's; None without guidance.

    Autoguidance is alone unless the request says otherwise.
    """
    if request.guidance_scale is not None or request.weak_model is not None:
        return request.guidance_scale
    kind = model_kinds.kind(parts)
    if kind == 'class':
        return (default or CLASS_GUIDANCE_SCALE) if has_null(parts) else None
    return (default or GUIDANCE_SCALE) if parts.has_tokenizer else None


def run(pipeline: Pipeline, request: Request, refiner: Pipeline | None = None) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], num_images of each of the request's rows.

    Raises ValueError where no task fits, and what the task raises.
    """
    name = task_of(pipeline.parts, request)
    sampling = request.sampling(guidance_scale(pipeline.parts, request, pipeline.guidance_scale))
    common: dict[str, Any] = dict(seed=request.seeds, sampling=sampling)
    if refiner is not None:
        common['refiner'] = refiner
    return TASKS[name].run(pipeline, request, common)


def _options(request: Request, **fields: str) -> dict[str, Any]:
    """Arguments of a task from fields of a request, where it has them."""
    found = {argument: getattr(request, field) for argument, field in fields.items()}
    return {argument: value for argument, value in found.items() if value is not None}


def _sizes(request: Request) -> dict[str, Any]:
    return dict(zip(('sizes', 'negative_sizes'), request.sizes(), strict=True))


def _prompts(request: Request) -> list[str]:
    return request.repeated(request.rows)


def _text_to_image(pipeline, request, common):
    common |= _sizes(request)
    return text_to_image(pipeline, _prompts(request), request.negative_prompt, size=request.size, **common)


def _hires(pipeline, request, common):
    options = _options(request, scale='hires_scale', upscaler='hires_upscaler', strength='strength')
    if request.hires_steps is not None:  # of which the pass would leave some out
        steps = math.ceil(request.hires_steps / (request.strength or HIRES_STRENGTH))
        options['second'] = dataclasses.replace(common['sampling'], num_steps=steps)
    options |= _sizes(request)
    return hires(pipeline, _prompts(request), request.negative_prompt, size=request.size, **options, **common)


def _refine(pipeline, request, common):
    options = _options(request, share='refiner_start') | _sizes(request)
    refiner = common.pop('refiner')
    return refine(
        pipeline, refiner, _prompts(request), request.negative_prompt, size=request.size, **options, **common
    )


def _image_to_image(pipeline, request, common):
    image = request.image('init_image', _fitting(pipeline, request))
    options = _options(request, strength='strength') | _sizes(request)
    return image_to_image(pipeline, _prompts(request), image, request.negative_prompt, **options, **common)


def _inpaint(pipeline, request, common):
    options = _options(
        request, strength='strength', blur='mask_blur', content='mask_content', padding='mask_padding'
    )
    if request.mask_padding is None:
        image, mask = request.masked(_fitting(pipeline, request))
    else:
        image, mask = request.masked(None)
        options['size'] = request.size
    return inpaint(pipeline, _prompts(request), image, mask, request.negative_prompt, **options, **common)


def _outpaint(pipeline, request, common):
    sides = dict(zip(('left', 'top', 'right', 'bottom'), request.outpaint, strict=True))
    options = _options(request, strength='strength', blur='mask_blur', content='mask_content')
    image = request.image('init_image', request.size)
    return outpaint(pipeline, _prompts(request), image, request.negative_prompt, **sides, **options, **common)


def _depth_to_image(pipeline, request, common):
    image = request.image('init_image', _fitting(pipeline, request))
    depth = files.load_depth(request.depth)
    options = _options(request, strength='strength')
    return depth_to_image(
        pipeline, _prompts(request), image, depth, request.negative_prompt, **options, **common
    )


def _edit(pipeline, request, common):
    image = request.image('init_image', _fitting(pipeline, request))
    options = _options(request, image_guidance_scale='image_guidance_scale')
    return edit(pipeline, _prompts(request), image, request.negative_prompt, **options, **common)


def _upscale(pipeline, request, common):
    image = request.image('init_image', request.size)
    options = _options(request, noise_level='noise_level')
    return upscale(pipeline, _prompts(request), image, request.negative_prompt, **options, **common)


def _variations(pipeline, request, common):
    seen = [files.load_image(path) for path in (request.init_image, *(request.mix or ()))]
    options = _options(request, noise_level='noise_level', size='size')
    if request.mix is not None:
        options['weights'] = request.mix_weights or [1.0] * len(seen)
    return variations(pipeline, _prompts(request), seen, request.negative_prompt, **options, **common)


def _class_to_image(pipeline, request, common):
    return class_to_image(pipeline, request.repeated(request.labels), size=request.size, **common)


def _unconditional(pipeline, request, common):
    return unconditional(pipeline, len(request.seeds), size=request.size, **common)


def _super_resolution(pipeline, request, common):
    images = np.stack([request.image('init_image', request.size)] * len(request.seeds))
    return super_resolution(pipeline, images, **common)


def _inpaint_without_text(pipeline, request, common):
    image, mask = request.masked(_fitting(pipeline, request))
    return inpaint_without_text(pipeline, np.stack([image] * len(request.seeds)), mask, **common)


def _semantic_to_image(pipeline, request, common):
    labels = files.load_labels(request.label_map)
    return semantic_to_image(pipeline, np.stack([labels] * len(request.seeds)), **common)


def _layout_to_image(pipeline, request, common):
    return layout_to_image(pipeline, [request.boxes()] * len(request.seeds), **common)


def _fitting(pipeline: Pipeline, request: Request) -> tuple[int, int]:
    """The size of an image to begin with: what is asked for, or the image's own, down to what the model can make."""
    if request.size is not None:
        return request.size
    height, width = files.load_image(request.init_image).shape[:2]
    multiple = pipeline.parts.multiple
    return tuple(max(side // multiple, 1) * multiple for side in (height, width))


TASKS = {
    'text_to_image': Task(_text_to_image, ('text',), (), tuple(PAIRS)),
    'hires': Task(_hires, ('text',), ('hires_scale',), ('hires_upscaler', 'hires_steps', 'strength', *PAIRS)),
    'refine': Task(_refine, ('text',), ('refiner',), ('refiner_start', *PAIRS)),
    'image_to_image': Task(_image_to_image, ('text',), ('init_image',), ('strength', *PAIRS)),
    'inpaint': Task(
        _inpaint,
        ('text', 'inpaint'),
        ('init_image', 'mask'),
        ('strength', 'mask_blur', 'mask_content', 'mask_padding'),
    ),
    'outpaint': Task(
        _outpaint,
        ('text', 'inpaint'),
        ('init_image', 'outpaint'),
        ('strength', 'mask_blur', 'mask_content'),
    ),
    'depth_to_image': Task(_depth_to_image, ('depth',), ('init_image', 'depth'), ('strength',)),
    'edit': Task(_edit, ('edit',), ('init_image',), ('image_guidance_scale',)),
    'upscale': Task(_upscale, ('upscale',), ('init_image',), ('noise_level',)),
    'variations': Task(_variations, ('variation',), ('init_image',), ('noise_level', 'mix', 'mix_weights')),
    'class_to_image': Task(_class_to_image, ('class',), ('labels',)),
    'unconditional': Task(_unconditional, ('unconditional',)),
    'super_resolution': Task(_super_resolution, ('super_resolution',), ('init_image',)),
    'inpaint_without_text': Task(_inpaint_without_text, ('hole',), ('init_image', 'mask')),
    'semantic_to_image': Task(_semantic_to_image, ('semantic',), ('label_map',)),
    'layout_to_image': Task(_layout_to_image, ('layout',), ('layout',)),
}
