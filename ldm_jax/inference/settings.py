"""How to sample: names and numbers of a run, checked when they are given. Importing this imports nothing heavy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ldm_jax import build, knobs
from ldm_jax.knobs import group, knob

if TYPE_CHECKING:
    from ldm_jax.types import NoiseLevel, Sampler, Schedule, Solver

TABLE = 1024  # steps that a compiled program has space for
OWN = 'own'  # the guidance scale that suits the model
SAMPLER, STEPS = 'dpmpp_2m', 20  # where neither the run nor the model says
STARTS = ('noise', 'total')
RNG = {'jax': 'JAX', 'torch_cpu': 'CPU', 'torch_cuda': 'NV'}  # the web UI's names; the first one is ours
LARGEST_SEED = 2**64 - 1

Number = float | Sequence[float]  # one for all images, or one for each


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How much images follow what they are conditioned on. None leaves a kind of guidance out.

    scale: of classifier-free guidance. None evaluates the network once instead of twice, without a negative prompt.
        OWN is the scale that suits the model, or none beside autoguidance.
    rescale: share of the answer that gets the standard deviation of the conditional one.
    image_scale: of the image, where image and text are guided apart (InstructPix2Pix).
    autoguidance_scale: weak + scale (model - weak) where there is no other scale; beside one, scale - 1 is added.
    interval: lowest and highest sigma / alpha with guidance; one evaluation less outside.

    The rules and their papers are in diffusion.guidance.
    """

    scale: Number | str | None = knob(
        OWN,
        float,
        "1 is no guidance; the model's own by default, or 7.5",
        name='guidance_scale',
        png='CFG scale',
    )
    rule: str = knob(
        'linear', str, 'linear, projected (APG) or zero_star (CFG-Zero*)',
        name='guidance_rule', png='Guidance rule',
    )  # fmt: skip
    rescale: Number | None = knob(
        None, float, 'against overexposure, 0 to 1; 0.7 where noise ends at no signal',
        name='guidance_rescale', png='Guidance rescale',
    )  # fmt: skip
    interval: tuple[float, float] | None = knob(
        None, float, 'lowest and highest sigma / alpha with guidance: 0.3 5',
        name='guidance_interval', png='Guidance interval', many=2, mark=' to ', within='[0, inf]', shared=True,
    )  # fmt: skip
    image_scale: Number | None = knob(
        None, float, 'how much of the image an edit keeps; 1.5 by default',
        name='image_guidance_scale', png='Image CFG scale',
    )  # fmt: skip
    apg_eta: Number | None = knob(
        None, float, "rule 'projected': share of the part that saturates, 0 by default", png='APG eta'
    )
    apg_threshold: Number | None = knob(
        None, float, "rule 'projected': upper bound of the norm of cond - uncond",
        png='APG threshold', within='(0, inf)',
    )  # fmt: skip
    perturbed_scale: Number | None = knob(
        None, float, 'perturbed-attention guidance, 3 for example', png='Perturbed attention scale'
    )
    autoguidance_scale: Number | None = knob(
        None, float, 'away from --weak_model, 2 for example; alone, or beside --guidance_scale',
        png='Guide scale',
    )  # fmt: skip
    cfg_zero_share: float | None = knob(
        None, float, 'CFG-Zero*: share of the time, from the start, that images stand still; 0.04 for flow models',
        png='Zero init', within='(0, 1)', shared=True,
    )  # fmt: skip
    percentile: float | None = knob(
        None, float, 'dynamic thresholding, 0.995 for example, where latents are in [-1, 1] as images are',
        png='Threshold percentile', within='(0, 1]', shared=True,
    )  # fmt: skip
    weights: tuple[Number, ...] | None = (
        None  # of several prompts at once (AND); the prompts say them, no setting
    )
    learned: Number | None = None  # scale, where the network takes it; the model says that, no setting


@dataclasses.dataclass(frozen=True)
class Prompting:
    """How prompts are read; see text.prompts.

    emphasis: what weights do in the web UI's syntax: 'original' restores the mean, 'no_norm' does not, 'ignore' reads
        them and leaves them out, 'none' takes brackets for letters.
    padding: of the shorter one of a prompt and its negative prompt, where one has more chunks: 'masked' leaves it as it
        is, 'empty' adds the empty prompt, 'last' repeats the negative prompt's last token, or cuts it.
    """

    syntax: str = knob(
        'a1111', str, 'how prompts are written: a1111, comfyui or plain', name='prompt_syntax', png='Prompt syntax',
        among='ldm_jax.text.prompts.dialects.DIALECTS',
    )  # fmt: skip
    emphasis: str = knob(
        'original', str, "weights of a1111: original, no_norm, ignore or none", png='Emphasis',
        png_words={'original': 'Original', 'no_norm': 'No norm', 'ignore': 'Ignore', 'none': 'None'},
        among=('original', 'no_norm', 'ignore', 'none'),
    )  # fmt: skip
    padding: str = knob(
        'masked', str, 'of the shorter of prompt and negative prompt: masked, empty or last',
        name='prompt_padding', png='Pad conds',
        png_words={'masked': 'False', 'empty': 'True', 'last': 'v0'}, among=('masked', 'empty', 'last'),
    )  # fmt: skip
    old_editing: bool = knob(
        False, bool, "[a:b:when] as before the web UI's 1.6", name='old_prompt_editing',
        png='Old prompt editing timelines', png_words={True: 'True', False: 'False'},
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The settings of a run.

    Attributes:
        sampler: a name, ours or another tool's ('DPM++ 2M Karras'), a spec dict(name='ddim', eta=1.0), or what is in
            a scheduler_config.json of diffusers. A knob may be a list with a value for each image.
        grid: the levels, likewise; the sampler's own, or 'trailing', by default.
        num_steps: that the grid is made for. Where sampler or number is None, it is the model's own, or else SAMPLER
            and STEPS.
        variation_seed, variation_strength: starting noise is turned so far towards this seed's, on the web UI's arc.
        start: what starting noise is scaled by: the first level's 'noise', sigma, as k-diffusion and the web UI do
            for its samplers, or its 'total', hypot(alpha, sigma), as diffusers and the original DDIM do.

    Raises ValueError for unknown names, numbers out of range, and settings that exclude each other.
    """

    sampler: str | Mapping[str, Any] | None = knob(
        None, str, "ours, or a name of A1111, ComfyUI or diffusers: 'DPM++ 2M Karras'; the model's own, or dpmpp_2m",
        png='Sampler',
    )  # fmt: skip
    grid: str | Mapping[str, Any] | None = knob(
        None, str, "the levels: 'trailing', 'karras', ..., or such a name", png='Schedule type'
    )
    num_steps: int | None = knob(
        None, int, "the model's own, or 20, by default", png='Steps', within=f'[1, {TABLE}]'
    )
    eta: Number | None = knob(None, float, 'of samplers that have it: 0 is deterministic for most', png='Eta')
    guidance: Guidance = group(Guidance)
    noise_source: str = knob(
        'jax', str, "of the starting noise: 'jax', 'torch_cpu' (the web UI's CPU), 'torch_cuda' (its GPU and NV)",
        png='RNG', png_words=RNG,
    )  # fmt: skip
    variation_seed: int | Sequence[int] | None = knob(
        None, int, 'of variations: the next images have the next numbers of this one, and all have --seed',
        png='Variation seed', within=f'[0, {LARGEST_SEED}]',
    )  # fmt: skip
    variation_strength: float | None = knob(
        None, float, 'how far noise is turned from --seed to --variation_seed, 0 to 1',
        png='Variation seed strength', within='[0, 1]', shared=True,
    )  # fmt: skip
    start: str = knob(
        'noise', str, "starting noise is scaled to the first level's 'noise' (A1111), or its 'total' (diffusers)",
        png='Start', among=STARTS,
    )  # fmt: skip
    prompting: Prompting = group(Prompting)

    def __post_init__(self):
        knobs.check(self)
        guidance = self.guidance
        if guidance.interval is not None and not guidance.interval[0] < guidance.interval[1]:
            raise ValueError(f'guidance_interval must be 0 <= low < high; got {guidance.interval}.')
        if guidance.rule != 'projected' and (guidance.apg_eta, guidance.apg_threshold) != (None, None):
            raise ValueError("apg_eta and apg_threshold are of the guidance_rule 'projected': give that too.")
        if guidance.autoguidance_scale is not None and guidance.perturbed_scale is not None:
            raise ValueError(
                'autoguidance_scale and perturbed_scale each push away from a worse prediction: give one of them.'
            )
        if (self.variation_seed is None) != (self.variation_strength is None):
            raise ValueError('A variation is towards a variation_seed by a variation_strength: give both.')
        self._check_names()

    def _check_names(self):
        """Raises ValueError for unknown names. The defaults need no check, and import nothing."""
        changed = knobs.changed(self).keys()
        if 'noise_source' in changed:
            from ldm_jax.diffusion import noise_sources

            noise_sources.named(self.noise_source)
        if 'guidance_rule' in changed:
            from ldm_jax.diffusion.guidance import RULES

            build.function('rule of guidance', RULES, self.guidance.rule)
        if {'sampler', 'grid', 'eta'} & changed:
            _built(self.specs()[0])

    def completed(self, own: Mapping[str, Any] | None = None) -> Sampling:
        """The settings with sampler and number of steps.

        own: the model's, dict(sampler=..., grid=..., num_steps=...), each of which may be missing. Its grid goes with
            its sampler.
        """
        own = own or {}
        found: dict[str, Any] = {}
        if self.sampler is None:
            found['sampler'] = own.get('sampler', SAMPLER)
            if self.grid is None:
                found['grid'] = own.get('grid')
        if self.num_steps is None:
            found['num_steps'] = own.get('num_steps', STEPS)
        return dataclasses.replace(self, **found)

    def specs(self) -> tuple[dict[str, Any], dict[str, Any] | str]:
        """The specs of sampler and grid."""
        from ldm_jax.diffusion import aliases, grids, scheduler_config

        name, grid = self.sampler or SAMPLER, self.grid
        spec, known = {}, None
        if not isinstance(name, str) and '_class_name' in name:
            spec, known = scheduler_config.read(name)
            name = spec.pop('name')
        elif not isinstance(name, str):
            spec = dict(name)
            name = spec.pop('name')
        sampler, own = aliases.resolve(name, grid if isinstance(grid, str) else None)
        known = own if known is None or isinstance(grid, str) else known
        if self.eta is not None:
            if 'eta' not in _fields(sampler['name']):
                having = [each for each in aliases.names() if 'eta' in _fields(each)]
                raise ValueError(f'The sampler {name!r} has no eta. These have one: {", ".join(having)}.')
            spec['eta'] = self.eta
        if grid is not None and not isinstance(grid, str):
            known = dict(grid)
        grids.named(known or 'trailing')  # raises for an unknown one
        return sampler | spec, known or 'trailing'

    def plan(self, schedule: Schedule) -> tuple[Sampler | Solver, NoiseLevel]:
        """The sampler, its knobs float32 [] or [B], and its levels, numpy arrays [S + 1]."""
        from ldm_jax.diffusion import grids

        spec, grid = self.specs()
        sampler = _built(spec)
        grid = grids.named(grid)
        table = getattr(sampler, 'table', None)  # of samplers that walk more than a grid
        steps = self.num_steps or STEPS
        return sampler, table(schedule, grid, steps) if table else grid(schedule, steps)


def _fields(sampler: str) -> set[str]:
    return {field.name for field in dataclasses.fields(build.component('samplers', sampler))}


def _built(spec: Mapping[str, Any]) -> Sampler | Solver:
    """The sampler of a spec, its knobs float32 [], or [B] where they are lists."""
    import jax
    import numpy as np

    component = build.component('samplers', spec['name'])
    knobs_of = {f.name for f in dataclasses.fields(component) if f.metadata.get('pytree_node', True)}
    each = {key: value for key, value in spec.items() if isinstance(value, list | tuple) and key in knobs_of}
    sampler = build.build('samplers', spec | {key: value[0] for key, value in each.items()})
    sampler = jax.tree.map(np.float32, sampler)  # a knob of 1 and one of 1.0 are one program
    return sampler.replace(**{key: np.asarray(value, np.float32) for key, value in each.items()})


SAMPLING = Sampling()
