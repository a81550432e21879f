"""A request and the name of a model to a plan: all is checked, and of the model only its settings are read."""

from __future__ import annotations

import dataclasses
import secrets
import warnings

from ldm_jax import knobs
from ldm_jax.inference.opening import Described, describe
from ldm_jax.inference.settings import OWN
from ldm_jax.pipelines.edit import check as check_edit
from ldm_jax.requests import adapters, check, inputs, learned_words, silent_prompts, tasks
from ldm_jax.requests.inputs import Inputs
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.plan import Plan
from ldm_jax.requests.request import Request
from ldm_jax.text.prompts import styles

PROMPTED = ('text', 'inpaint', 'edit', 'depth')  # kinds of models that make little without a prompt
STARTING = ('image_to_image', 'inpaint', 'depth_to_image', 'edit', 'inpaint_without_text')
OWN_OPTIONS = (
    'model',
    'batch_size',
    'lora',
    'adapters',
    'lora_hashes',
)  # which describing a model does not take
FAR = 2.0  # times the side of the images that the model was trained on


def resolve(request: Request, options: ModelOptions = ModelOptions()) -> Plan:  # noqa: B008 (frozen)
    """The plan of a request. Prompts of which a part has no effect are warned of.

    Raises FileNotFoundError for a file or a model that does not exist, and ValueError for mistakes in the request,
    in an image that it names, or between it and the model; the message says what to do.
    """
    request = styled(request)
    check.check(request)
    given = inputs.read(request)
    request = dataclasses.replace(request, seed=secrets.randbelow(2**32)) if request.seed == -1 else request
    request, tagged = adapters.split(request)
    wanted = adapters.find([*adapters.named(options.lora or ()), *tagged], options)
    request = adapters.suited(request, [each for _, each in wanted])
    run = {name: value for name, value in knobs.flat(options).items() if name not in OWN_OPTIONS}
    model = describe(
        options.model,
        **run,
        weak_model=request.weak_model,
        clip_skip=request.clip_skip,
        adapters=[(path, each.strength, each.lora.rank) for path, each in wanted],
    )
    task = tasks.task_of(model.kind, request)
    request = tasks.completed(request, task)
    refiner = None if request.refiner is None else describe(request.refiner, **run)
    request = dataclasses.replace(
        request, sampling=request.sampling.completed(model.settings.get('sampling'))
    )
    sampling = _sampling(request, model)
    _check_model(request, model, task, sampling)
    if model.kind in PROMPTED:
        silent_prompts.warn_of_marks(request)
        learned_words.warn_of_missing(request.word_hashes, model.words)
    size = _size(request, model, given, task, roomy=bool(options.window or options.tile))
    named = [each for _, each in wanted]
    return Plan(request, given, task, model, refiner, sampling, size, check.sizes(request), named)


def styled(request: Request) -> Request:
    """A request with its styles in its prompts. Raises FileNotFoundError, or ValueError for an unknown style."""
    if not request.styles:
        return request
    chosen = styles.chosen(check.read_styles(request.styles_file), request.styles)
    prompts = tuple(
        styles.applied(text, [style.prompt for style in chosen]) for text in request.prompts or ('',)
    )
    negative = styles.applied(request.negative_prompt, [style.negative for style in chosen])
    return dataclasses.replace(request, prompts=prompts, negative_prompt=negative, styles=None)


def _sampling(request, model: Described):
    """The settings of the run, with the guidance scale that suits the model where the request leaves it open."""
    sampling, guidance = request.sampling, request.sampling.guidance
    if request.variation_seeds is not None:
        sampling = knobs.replace(sampling, variation_seed=request.variation_seeds)
    if guidance.scale != OWN:
        return sampling
    scale = model.own_scale if guidance.autoguidance_scale is None else None
    return knobs.replace(sampling, guidance_scale=scale)


def _check_model(request: Request, model: Described, task: str, sampling) -> None:
    if request.prompts is None and model.kind in PROMPTED:
        raise ValueError(f'{task} needs a prompt: give --prompt, --prompts_file or --from_png.')
    if request.negative_prompt and model.parts.embeds_guidance:
        raise ValueError(
            'A negative_prompt means nothing to this model, whose network has learned what guidance does: leave it out.'
        )
    if task == 'edit':
        check_edit(request.rows, sampling)
    sizes = [field for field in tasks.SIZES if getattr(request, field) is not None]
    if sizes and not model.parts.num_sizes:
        raise ValueError(f'{sizes}: this model is not conditioned on sizes. SDXL and its refiner are.')


def _size(
    request: Request, model: Described, given: Inputs, task: str, roomy: bool
) -> tuple[int, int] | None:
    """(H, W) that is asked for; else of the image to begin with, as the model can take it."""
    if request.size is not None or given.image is None or task not in STARTING:
        return request.size
    if request.mask_padding is not None:  # the model works on a part of the image, at its own size
        return None
    height, width = given.image.shape[:2]
    own, multiple = model.parts.latent_size * model.parts.downscale, model.parts.multiple
    factor = own / (height * width) ** 0.5
    far = not 1 / FAR <= factor <= FAR and not (roomy and factor < 1)
    scale = factor if far else 1
    size = tuple(max(int(side * scale) // multiple, 1) * multiple for side in (height, width))
    if far:
        warnings.warn(
            f'The image is {width} x {height}, far from the {own} x {own} that the model makes: it is fitted to '
            f'{size[1]} x {size[0]}. --width and --height choose another size.',
            stacklevel=2,
        )
    return size
