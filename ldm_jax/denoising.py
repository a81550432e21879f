"""What the library reads off a denoising network, with a default for whatever a new one leaves unsaid.

types.DenoisingNetwork describes the interface. Only `out_channels` has no default, so that a new architecture is a
flax.linen.Module with one field and `__call__(x, t, cond)`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax import adapted
from ldm_jax.types import Array, Cond, CondWidths, PyTree

CONTEXT_LENGTH = 77  # tokens of an example context
SIZE = 64  # side of example latents


def conditioned_on(network: nn.Module) -> CondWidths:
    """The parts of Cond that a network takes and their widths; none by default."""
    return getattr(network, 'conditioned_on', CondWidths())


def downscale(network: nn.Module) -> int:
    """What the sides of latents must be multiples of for a network; 1 by default."""
    return getattr(network, 'downscale', 1)


def masks_context(network: nn.Module) -> bool:
    """Whether a network leaves out the context's tokens that Cond.context_mask leaves out; not by default."""
    return getattr(network, 'masks_context', False)


def bound(
    network: nn.Module, params: PyTree, adapters: PyTree | None = None
) -> Callable[[Array, Array, Cond], Array]:
    """(x [B, h, w, C], t [] or [B], cond) -> like x, by a network that takes t [B].

    adapters: the network's collection of factors (adapted.py), with the strengths of cond.
    """

    def call(x: Array, t: Array, cond: Cond) -> Array:
        strengths, cond = cond.strengths, dataclasses.replace(cond, strengths=None)
        t = jnp.broadcast_to(t, x.shape[:1])
        return adapted.apply(network, params, x, t, cond, adapters=adapters, strengths=strengths)

    return call


def inputs(network: nn.Module, batch: int = 1, size: int | None = None) -> tuple:
    """Shapes (x, t, cond) of a denoising network's arguments; size: of the latents' side."""
    size = SIZE if size is None else size
    widths = conditioned_on(network)

    def real(*shape):
        return jax.ShapeDtypeStruct((batch, *shape), jnp.float32)

    cond = Cond(
        context=None if widths.context is None else real(CONTEXT_LENGTH, widths.context),
        concat=None if widths.concat is None else real(size, size, widths.concat),
        vector=None if widths.vector is None else real(widths.vector),
        label=None if widths.label is None else jax.ShapeDtypeStruct((batch,), jnp.int32),
        guidance=None if widths.guidance is None else real(),
    )
    return real(size, size, network.out_channels), real(), cond


def inputs_of(module: nn.Module, batch: int = 1, size: int | None = None) -> tuple:
    """Shapes of any network's arguments: its own `inputs`, or those of a denoising network."""
    return (module.inputs if hasattr(module, 'inputs') else functools.partial(inputs, module))(batch, size)


@functools.lru_cache
def check(network: nn.Module, size: int | None = None) -> None:
    """Raises ValueError, in one line, where a module is no DenoisingNetwork; it is traced and nothing is run.

    size: of the latents' side.
    """
    check_fields(network)
    name = _name(network)
    batch = 2
    x, t, cond = inputs_of(network, batch, size)
    try:
        out, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x, t, cond)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f'{name} fails on what a denoising network is called with, x {list(x.shape)}, t {list(t.shape)} and '
            f'{_described(cond)}: {reason}'
        ) from error
    shape = getattr(out, 'shape', None)
    if shape != x.shape:
        raise ValueError(
            f'{name} must return the shape of x, {list(x.shape)}; got '
            f'{type(out).__name__ if shape is None else list(shape)}.'
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f'{name} must return floating-point numbers; got {out.dtype}.')


def check_fields(network: nn.Module) -> None:
    """Raises ValueError where what a module says of itself is not what a DenoisingNetwork says."""
    name = _name(network)
    channels = getattr(network, 'out_channels', None)
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(
            f'{name} needs a field out_channels, the channels of x and of what it returns; got {channels!r}.'
        )
    if not isinstance(conditioned_on(network), CondWidths):
        raise ValueError(
            f'{name}.conditioned_on must be a types.CondWidths, such as CondWidths(context=768); got '
            f'{conditioned_on(network)!r}.'
        )
    if not isinstance(downscale(network), int) or downscale(network) < 1:
        raise ValueError(f'{name}.downscale must be a whole number from 1 on; got {downscale(network)!r}.')


def _name(network: nn.Module) -> str:
    return f'{type(network).__module__}.{type(network).__qualname__}'


def _described(cond: Cond) -> str:
    parts = {name: getattr(cond, name) for name in ('context', 'concat', 'vector', 'label')}
    given = ', '.join(f'{name} {list(leaf.shape)}' for name, leaf in parts.items() if leaf is not None)
    return f'Cond({given})'
