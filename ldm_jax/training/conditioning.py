"""What a diffusion model is told, from a batch: one function a kind, each with classifier-free dropout of its own.

A kind is `(networks, batch, drop [B], keys [B], *, knobs) -> Cond` with the parts that it fills; where `drop` is true
an example is told nothing: the empty caption, the class that is none, zeros. Parts of several kinds are put side by
side, along their last axis, in the order of the config.

An image-to-image kind makes its channels from the batch's images, in the step; what it cannot make (depth maps, a
degradation of one's own) the data bring as 'concat'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.build import unknown
from ldm_jax.diffusion import noise
from ldm_jax.diffusion.process import add_noise, per_example
from ldm_jax.models import layers
from ldm_jax.schedules import linear
from ldm_jax.types import Array, Cond, PyTree, Tokenizer

TEXT_ENCODERS = {'text_encoder': 'tokens', 'text_encoder_2': 'tokens_2'}  # -> the batch's key of their tokens
SIZE_WIDTH = 256  # of a number of `size`
NOISE = linear.Schedule()  # of the low-resolution image: that of the x4 upscaler
PATCHES = 4  # rectangles of a mask at most


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of a stage with parameters bound."""

    modules: Mapping[str, nn.Module]
    params: Mapping[str, PyTree]
    tokenizers: Mapping[str, Tokenizer]  # by the batch's key of their tokens
    scaling_factor: float
    # The empty text's 'context' and 'pooled'.
    null: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def apply(self, part: str, *args: Any, **kwargs: Any) -> Any:
        return self.modules[part].apply({'params': self.params[part]}, *args, **kwargs)

    def latents(self, image: Array, eps: Array | None = None) -> Array:
        """Images [B, H, W, C] in [-1, 1], or uint8, to scaled latents [B, h, w, Z]; in pixels without a first stage.

        eps: of the posterior's sample; its mean by default.
        """
        image = to_float(image)
        if 'first_stage' not in self.modules:
            return image
        return self.scaling_factor * self.apply('first_stage', image, eps, method='latents')


def to_float(image: Array) -> Array:
    """Images in [-1, 1] of uint8 ones; others as they are."""
    return image.astype(jnp.float32) / 127.5 - 1 if image.dtype == jnp.uint8 else image


def encode_text(networks: Networks, tokens: Mapping[str, Array]) -> tuple[Array, Array | None]:
    """(context [B, L, D], pooled [B, P] or None) of all text encoders: contexts side by side, the last one's vector."""
    contexts, pooled = [], None
    for part, key in TEXT_ENCODERS.items():
        if part in networks.modules:
            out = networks.apply(part, tokens[key])
            contexts.append(getattr(out, 'context', out))  # BERT's is the context itself
            pooled = getattr(out, 'projected', None)
    return jnp.concatenate(contexts, axis=-1), pooled


def text(
    networks: Networks, batch: PyTree, drop: Array, keys: Array, *, null: str = 'empty', pooled: bool = False
) -> Cond:
    """The caption as context. Batch: 'tokens' (and 'tokens_2'), or 'context' and with pooled 'pooled'.

    null: what is said instead: the 'empty' caption, or 'zeros' as in SDXL. pooled: the last encoder's projected text
    is (the first part of) the vector.

    Raises ValueError where pooled is wanted of an encoder without a projection.
    """
    if 'context' in batch:
        context, vector = batch['context'], batch.get('pooled')
    else:
        context, vector = encode_text(networks, batch)
    if pooled and vector is None:
        raise ValueError(
            "conditioning.text.pooled needs an encoder with a projection, or 'pooled' in the data."
        )
    if null == 'empty' and 'context' in batch and 'context' in networks.null:
        no_context = jnp.asarray(networks.null['context'])[None]
        no_vector = jnp.asarray(networks.null['pooled'])[None] if pooled else None
    elif null == 'empty' and networks.tokenizers:
        empty = {key: jnp.asarray(tokenizer('')) for key, tokenizer in networks.tokenizers.items()}
        no_context, no_vector = encode_text(networks, empty)
    else:  # or nothing is dropped: latent_examples.check sees to that
        no_context = jnp.zeros_like(context[:1])
        no_vector = None if vector is None else jnp.zeros_like(vector[:1])
    context = jnp.where(per_example(drop, context), no_context, context)
    return Cond(context=context, vector=jnp.where(drop[:, None], no_vector, vector) if pooled else None)


def label(networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
    """The class, by a class_embedder as context or by the U-Net's own table. Batch: 'label' [B] integers.

    The last class of the table means none: with a drop rate it must be one that no example has.
    """
    embedded = 'class_embedder' in networks.modules
    table = networks.modules['class_embedder' if embedded else 'unet']
    labels = jnp.where(drop, table.num_classes - 1, batch['label'])
    return Cond(context=networks.apply('class_embedder', labels)) if embedded else Cond(label=labels)


def sizes(networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
    """Sinusoids of each number of 'size' [B, 6] as (the last part of) the vector [B, 6 x 256].

    In SDXL they are the original height and width, the crop's top and left, and the height and width now.
    Ref: Podell et al. 2023, arXiv:2307.01952, section 2.2.
    """
    size = batch['size']
    vector = layers.timestep_embedding(size.reshape(-1), SIZE_WIDTH).reshape(len(size), -1)
    return Cond(vector=jnp.where(drop[:, None], 0.0, vector))


def vector(networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
    """'vector' [B, D] of the batch, as it is."""
    return Cond(vector=jnp.where(drop[:, None], 0.0, batch['vector']))


def concat(networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
    """'concat' [B, h, w, C] of the batch, channels beside the latents, as they are."""
    return Cond(concat=_or_zeros(drop, batch['concat']))


def source(networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
    """Latents of the image that is to be edited, not scaled by scaling_factor. Batch: 'source' [B, H, W, 3].

    Ref: Brooks et al. 2023, arXiv:2211.09800, section 3.2.
    """
    return Cond(concat=_or_zeros(drop, networks.latents(batch['source']) / networks.scaling_factor))


def inpainting(
    networks: Networks, batch: PyTree, drop: Array, keys: Array, *, full_rate: float = 0.25
) -> Cond:
    """A mask (1 is painted) and the latents of the image without it, grey there, as Stable Diffusion has them.

    Batch: 'image', and 'mask' [B, H, W, 1] of zeros and ones, or one to four rectangles are drawn for each image, and
    for a share full_rate of them all of it. Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.5.
    """
    image = to_float(batch['image'])
    mask = batch['mask'] if 'mask' in batch else _masks(keys, image.shape[1:3], full_rate)
    mask = mask.astype(image.dtype)
    latents = networks.latents(image * (1 - mask))
    small = jax.image.resize(mask, (*latents.shape[:3], 1), 'nearest')
    return Cond(concat=_or_zeros(drop, jnp.concatenate([small, latents], axis=-1)))


def low_resolution(
    networks: Networks, batch: PyTree, drop: Array, keys: Array, *, factor: int = 4, max_noise_level: int = 0
) -> Cond:
    """The image made smaller by a factor, as channels; pixels of it must be as many as latents. Batch: 'image'.

    max_noise_level: noise of a level up to this one is added, and the level is the label (350 in the x4 upscaler).
    Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.4; noise: Ho et al. 2021, arXiv:2106.15282.
    """
    image = to_float(batch['image'])
    b, h, w, channels = image.shape
    small = jax.image.resize(image, (b, h // factor, w // factor, channels), 'bicubic')
    if not max_noise_level:
        return Cond(concat=_or_zeros(drop, small))
    level_keys, noise_keys = noise.split(keys, 2)
    level = jax.vmap(lambda key: jax.random.randint(key, (), 0, max_noise_level + 1))(level_keys)
    noisy = add_noise(small, noise.normal(noise_keys, small), NOISE.level(level))
    return Cond(concat=_or_zeros(drop, noisy), label=level)


def semantic_map(networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
    """A map of classes through the rescaler, as channels. Batch: 'map' [B, H, W] integers."""
    module = networks.modules['rescaler']
    maps = jax.nn.one_hot(batch['map'], module.in_channels)
    return Cond(concat=_or_zeros(drop, networks.apply('rescaler', maps)))


KINDS: dict[str, Callable[..., Cond]] = {
    'text': text,
    'class': label,
    'size': sizes,
    'vector': vector,
    'concat': concat,
    'source': source,
    'inpainting': inpainting,
    'low_resolution': low_resolution,
    'semantic_map': semantic_map,
}
# What a batch must have for a kind: all keys of one of these.
NEEDS: dict[str, Sequence[tuple[str, ...]]] = {
    'text': (('context',), ('tokens',)),
    'class': (('label',),),
    'size': (('size',),),
    'vector': (('vector',),),
    'concat': (('concat',),),
    'source': (('source',),),
    'inpainting': (('image',),),
    'low_resolution': (('image',),),
    'semantic_map': (('map',),),
}
OPTIONAL = {'text': ('pooled', 'tokens_2'), 'inpainting': ('mask',)}  # what a kind takes beside


def merge(conds: Sequence[Cond]) -> Cond:
    """One Cond of several: each part side by side along the last axis.

    Raises ValueError for two labels.
    """
    if sum(cond.label is not None for cond in conds) > 1:
        raise ValueError('Two kinds of conditioning want to be the label; a U-Net has one.')

    def beside(part):
        given = [getattr(cond, part) for cond in conds if getattr(cond, part) is not None]
        return jnp.concatenate(given, axis=-1) if len(given) > 1 else given[0] if given else None

    return Cond(**{part: beside(part) for part in ('context', 'concat', 'vector', 'label')})


def check(kinds: Sequence[str]) -> None:
    """Raises ValueError for a kind that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise unknown('conditioning', kind, sorted(KINDS))


def _or_zeros(drop: Array, channels: Array) -> Array:
    return jnp.where(per_example(drop, channels), 0.0, channels)


def _masks(keys: Array, size: tuple[int, int], full_rate: float) -> Array:
    """[B, H, W, 1] of zeros and ones: the union of 1 to PATCHES rectangles with sides up to half the image's."""
    h, w = size

    def one(key):
        corner, extent, count, full = jax.random.split(key, 4)
        count = jax.random.randint(count, (), 1, PATCHES + 1)
        extent = jax.random.uniform(extent, (PATCHES, 2), minval=0.1, maxval=0.5)
        corner = jax.random.uniform(corner, (PATCHES, 2)) * (1 - extent)
        y, x = (jnp.arange(h) + 0.5) / h, (jnp.arange(w) + 0.5) / w
        rows = (y >= corner[:, :1]) & (y < corner[:, :1] + extent[:, :1])  # [PATCHES, H]
        columns = (x >= corner[:, 1:]) & (x < corner[:, 1:] + extent[:, 1:])
        used = (jnp.arange(PATCHES) < count)[:, None, None]
        hole = jnp.any(rows[:, :, None] & columns[:, None, :] & used, axis=0)
        return (hole | jax.random.bernoulli(full, full_rate))[..., None].astype(jnp.float32)

    return jax.vmap(one)(keys)
