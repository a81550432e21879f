"""What model an adapter was made for, told by its keys and shapes, and the error for another one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import flax.linen as nn

from ldm_jax import denoising
from ldm_jax.checkpoints.files.tensor_file import TensorSpec
from ldm_jax.checkpoints.layouts.adapter_names import NUMBERED, Layer
from ldm_jax.checkpoints.layouts.rules import listed

WIDTHS = {768: 'Stable Diffusion 1', 1024: 'Stable Diffusion 2', 1280: "SDXL's refiner", 2048: 'SDXL'}
CROSS = re.compile(r'.*attn2[._](?:processor\.)?to_k.*(?:down|lora_A|w1_b|w2_b)(?:\.default)?(?:\.weight)?')
OTHERS = (
    (r'joint_blocks|joint_transformer_blocks|transformer_blocks\.\d+\.attn\.add_', 'Stable Diffusion 3'),
    (r'double_blocks|single_blocks|single_transformer_blocks', 'the Flux family'),
    (r'lora_prior_|cascade', 'Stable Cascade'),
    (r'motion_modules?', 'AnimateDiff'),
    (r'lora_te2_|text_encoder_2\.', 'SDXL'),
)
NOT_ADAPTERS = (
    (
        r'model\.diffusion_model\.input_blocks\.0\.0\.weight|conv_in\.weight',
        'a whole model: give it as --model',
    ),
    (r'(control_model|controlnet_\w+|input_hint_block)\..*', 'a ControlNet'),
    (r'string_to_param|emb_params|clip_[lg]|\*|<.*>', 'an embedding of new words (textual inversion)'),
)


def family(specs: Mapping[str, TensorSpec], found: Mapping[Layer, Mapping[str, str]]) -> str | None:
    """The name of the family of models that an adapter was made for, or None.

    found: layer -> tensor -> key, of the keys that are known.
    """
    for pattern, name in OTHERS:
        if any(re.search(pattern, key) for key in specs):
            return name
    widths = {specs[key].shape[1] for key in specs if CROSS.fullmatch(key) and len(specs[key].shape) > 1}
    widths |= _widths(specs, found)
    if not widths:  # numbered layers, of which some read texts
        numbered = {spec.shape[-1] for key, spec in specs.items() if NUMBERED.fullmatch(key)}
        widths = numbered & {768, 1024}
    return WIDTHS.get(widths.pop()) if len(widths) == 1 else None


def fits(
    found: Mapping[Layer, Mapping[str, str]],
    specs: Mapping[str, TensorSpec],
    models: Mapping[str, nn.Module],
) -> bool:
    """Whether an adapter's cross-attentions read contexts as wide as the model's."""
    return _widths(specs, found) <= {_context(models)}


def message(
    name: str,
    specs: Mapping[str, TensorSpec],
    models: Mapping[str, nn.Module],
    unknown: Sequence[str],
    found: Mapping[Layer, Mapping[str, str]],
) -> str:
    """The error for a file of which keys are unknown, that has none that are known, or that is of another family."""
    for pattern, what in NOT_ADAPTERS:
        if not found and any(re.fullmatch(pattern, key) for key in specs):
            return f'{name} is no adapter of layers but {what}.'
    ours, theirs = WIDTHS.get(_context(models) or 0), family(specs, found)
    if theirs is not None and theirs != ours:
        here = f'is of {ours}' if ours else 'reads other texts'
        return (
            f'{name} is an adapter for {theirs}; this model {here}. Take the adapter that was made for it, or give a '
            f'model of {theirs} as --model.'
        )
    if found and not unknown:
        return (
            f'{name} reads contexts {sorted(_widths(specs, found))} wide, and this model {_context(models)}.'
        )
    what = 'changes layers that this model does not have' if found else 'has no layer of this model'
    return f'{name} {what}: {listed(list(unknown))}. It was made for a model of another kind; nothing of it is used.'


def _context(models: Mapping[str, nn.Module]) -> int | None:
    return denoising.conditioned_on(models['unet']).context if 'unet' in models else None


def _widths(specs: Mapping[str, TensorSpec], found: Mapping[Layer, Mapping[str, str]]) -> set[int]:
    """The widths of the contexts that the LoRAs of cross-attentions read."""
    return {
        specs[keys['lora_down']].shape[1]
        for layer, keys in found.items()
        if layer.name.endswith(('attn2.to_k', 'attn2.to_v')) and 'lora_down' in keys
        if len(specs[keys['lora_down']].shape) > 1
    }
