"""A LoRA or DoRA trained beside frozen networks: which layers have one, and its first factors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.build import unknown
from ldm_jax.checkpoints.layouts import adapter_names
from ldm_jax.checkpoints.layouts.adapter_names import Layer
from ldm_jax.checkpoints.layouts.rules import unflatten
from ldm_jax.types import Array, PyTree

KINDS = ('lora', 'dora')
INITS = ('kaiming', 'gaussian')
# Layers by the words that trainers use for them: patterns of diffusers' names.
TARGETS = {
    'attention': r'.*attn[12]\.to_(q|k|v|out\.0)|.*self_attn\.(q|k|v|out)_proj',
    'transformers': r'.*attentions\.\d+\.(proj_in|proj_out|transformer_blocks\..*)|.*(self_attn|mlp)\..*',
    'all': r'(down_blocks|mid_block|up_blocks)\..*|.*(self_attn|mlp)\..*',
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained: `stage.adapter` of a config.

    Attributes:
        kind: 'lora', or 'dora' with a magnitude of each output.
        rank, alpha: the product's scale is alpha / rank; alpha is the rank by default, as diffusers has it.
        targets: layers, as patterns of diffusers' names or words of TARGETS: attention (diffusers), transformers
            (kohya), all, convolutions included (LoCon).
        ranks, alphas: pattern -> rank or alpha of the layers that fit it, the first one that does.
        parts: networks that have one: 'unet', 'text_encoder', 'text_encoder_2'.
        init: of `down`: 'kaiming' (kohya, uniform within 1 / sqrt(inputs)) or 'gaussian' (diffusers, deviation
            1 / rank); `up` begins at 0.

    Raises ValueError for values out of range and unknown names.
    """

    kind: str = 'lora'
    rank: int = 4
    alpha: float | None = None
    targets: Sequence[str] = ('attention',)
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    alphas: Mapping[str, float] = dataclasses.field(default_factory=dict)
    parts: Sequence[str] = ('unet',)
    init: str = 'gaussian'

    def __post_init__(self):
        for what, value, have in (('adapter', self.kind, KINDS), ('init of an adapter', self.init, INITS)):
            if value not in have:
                raise unknown(what, value, list(have))
        for rank in (self.rank, *self.ranks.values()):
            if not isinstance(rank, int) or rank < 1:
                raise ValueError(f'The rank of an adapter is a whole number from 1 on; got {rank!r}.')
        for part in self.parts:
            if part not in adapter_names.PREFIXES:
                raise unknown('part for an adapter', part, list(adapter_names.PREFIXES))
        for pattern in (*self.patterns, *self.ranks, *self.alphas):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f'{pattern!r} of an adapter is no regular expression: {error}.') from None

    @property
    def patterns(self) -> list[str]:
        """The patterns of the layers."""
        return [TARGETS.get(target, target) for target in self.targets]

    def rank_of(self, layer: Layer) -> int:
        """The rank of a layer's factors."""
        return _first(self.ranks, layer, self.rank)

    def scale_of(self, layer: Layer) -> float:
        """alpha / rank of a layer."""
        rank = self.rank_of(layer)
        alpha = _first(self.alphas, layer, rank if self.alpha is None else self.alpha)
        return alpha / rank


def named(fields: Mapping[str, Any]) -> Settings:
    """The settings of a config's fields. Raises ValueError for an unknown one."""
    have = [field.name for field in dataclasses.fields(Settings)]
    for name in fields:
        if name not in have:
            raise unknown('field of adapter', name, have)
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    alone = {key: (v,) for key, v in fields.items() if key in ('targets', 'parts') and isinstance(v, str)}
    return Settings(**fields | alone)


def layers(settings: Settings, models: Mapping[str, nn.Module]) -> list[Layer]:
    """The layers that have an adapter. Raises ValueError where there are none, or a pattern fits none."""
    known = [layer for layer in adapter_names.layers(models).values() if layer.leaf == 'kernel']
    known = [layer for layer in known if layer.part in settings.parts]
    for part in settings.parts:
        if all(layer.part != part for layer in known):
            raise ValueError(
                f'stage.adapter.parts names {part!r}, which has no layers with names in this model.'
            )
    for pattern in (*settings.patterns, *settings.ranks, *settings.alphas):
        if not any(re.fullmatch(pattern, layer.name) for layer in known):
            names = [layer.name for layer in known]
            raise ValueError(
                f'stage.adapter: no layer fits {pattern!r}; words are {list(TARGETS)}, '
                f'a name is {names[len(names) // 2]!r}.'
            )
    return [layer for layer in known if any(re.fullmatch(p, layer.name) for p in settings.patterns)]


def initial(
    settings: Settings, models: Mapping[str, nn.Module], params: Mapping[str, PyTree], key: Array
) -> dict[str, PyTree]:
    """part -> fresh factors (adapted.py), with which the networks are what they were."""
    found: dict[str, dict[str, Array]] = {}
    for i, layer in enumerate(layers(settings, models)):
        kernel = trees.named(params[layer.part])[f'{layer.path}/kernel']
        rank, own = settings.rank_of(layer), jax.random.fold_in(key, i)
        shape = (*kernel.shape[:-1], rank)
        if settings.init == 'gaussian':
            down = jax.random.normal(own, shape) / rank
        else:
            bound = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
            down = jax.random.uniform(own, shape, minval=-bound, maxval=bound)
        leaves = {'down': down, 'up': jnp.zeros((rank, kernel.shape[-1]))}
        if settings.kind == 'dora':
            axes = tuple(range(kernel.ndim - 1))
            leaves['magnitude'] = jnp.sqrt(jnp.sum(jnp.square(jnp.asarray(kernel, jnp.float32)), axis=axes))
        for name, leaf in leaves.items():
            found.setdefault(layer.part, {})[f'{layer.path}/0/{name}'] = leaf
    return {part: unflatten(own) for part, own in found.items()}


def scaled(
    settings: Settings, models: Mapping[str, nn.Module], factors: Mapping[str, PyTree]
) -> dict[str, PyTree]:
    """The factors that act in the networks: `up` times alpha / rank."""
    scales = {
        f'{layer.part}/{layer.path}/0/up': settings.scale_of(layer) for layer in layers(settings, models)
    }

    def one(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        return leaf * scales[name] if name in scales else leaf

    return jax.tree_util.tree_map_with_path(one, dict(factors))


def _first(patterns: Mapping[str, Any], layer: Layer, default: Any) -> Any:
    return next((value for pattern, value in patterns.items() if re.fullmatch(pattern, layer.name)), default)
