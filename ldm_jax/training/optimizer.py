"""Optimizers from plain settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from optax import contrib

from ldm_jax.build import function
from ldm_jax.training import lr_schedules
from ldm_jax.types import PyTree

Mask = Callable[[PyTree], PyTree] | None  # which leaves decay


class Optimizer(NamedTuple):
    """An optax gradient transformation with its learning rate."""

    init: Callable[[PyTree], optax.OptState]
    update: Callable[..., tuple[PyTree, optax.OptState]]
    rate: optax.Schedule


def adamw(
    rate: optax.Schedule,
    mask: Mask,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    moment_dtype: str | None = None,
) -> optax.GradientTransformation:
    """AdamW; without weight_decay it is Adam. moment_dtype: of the first moment, such as 'bfloat16'.

    Ref: Loshchilov & Hutter 2019, arXiv:1711.05101.
    """
    return optax.adamw(
        rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask, mu_dtype=moment_dtype
    )


def adafactor(
    rate: optax.Schedule,
    mask: Mask,
    *,
    decay_rate: float = 0.8,
    momentum: float | None = None,
    clipping_threshold: float | None = 1.0,
    multiply_by_parameter_scale: bool = True,
    min_dim_size_to_factor: int = 128,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adafactor: second moments of rows and columns instead of each weight.

    With multiply_by_parameter_scale the rate is relative to each tensor's own size. Weights decay by rate x
    weight_decay, as with AdamW. Ref: Shazeer & Stern 2018, arXiv:1804.04235.
    """
    main = optax.adafactor(
        rate,
        decay_rate=decay_rate,
        momentum=momentum,
        clipping_threshold=clipping_threshold,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
        min_dim_size_to_factor=min_dim_size_to_factor,
    )
    if not weight_decay:
        return main
    # optax's own decay here is not multiplied by the rate.
    return optax.chain(main, optax.add_decayed_weights(lambda n: -weight_decay * rate(n), mask))


def lion(
    rate: optax.Schedule,
    mask: Mask,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 0.0,
    moment_dtype: str | None = None,
) -> optax.GradientTransformation:
    """Lion: the sign of a momentum. Its rate is a third to a tenth of AdamW's.

    Ref: Chen et al. 2023, arXiv:2302.06675.
    """
    return optax.lion(rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=mask, mu_dtype=moment_dtype)


def muon(
    rate: optax.Schedule,
    mask: Mask,
    *,
    momentum: float = 0.95,
    ns_steps: int = 5,
    rms: float | None = 0.2,
    adam_lr_ratio: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Muon for the kernels inside of the network, AdamW for the rest (embeddings, norms, biases,
    first and last layer); both with Nesterov's momentum.

    A convolution's kernel is a matrix of its window and input channels by its output channels. With
    decayed='kernels' the matrices decay, and nothing that AdamW updates.

    rms: of an update over the rate, for matrices of any shape; 0.2 is about AdamW's, so that its rate and weight decay
        serve here. None: Muon's own scale.
    adam_lr_ratio: AdamW's rate over that of the matrices.
    Ref: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982 (rms).
    """
    return contrib.muon(
        rate,
        ns_steps=ns_steps,
        beta=momentum,
        weight_decay=weight_decay,
        weight_decay_mask=mask,
        adam_b1=b1,
        adam_b2=b2,
        adam_weight_decay=weight_decay if mask is None else 0.0,  # it takes no mask
        adam_learning_rate=lambda n: adam_lr_ratio * rate(n),
        muon_weight_dimension_numbers=_matrices,
        consistent_rms=rms,
    )


def sgd(
    rate: optax.Schedule,
    mask: Mask,
    *,
    momentum: float | None = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent; weight decay is part of the gradient."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask), optax.sgd(rate, momentum=momentum, nesterov=nesterov)
    )


RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    rule.__name__: rule for rule in (adamw, adafactor, lion, muon, sgd)
}


SHARES = ('b1', 'b2', 'decay_rate', 'momentum')  # knobs that are the share of a memory that is kept


def optimizer(
    num_steps: int,
    batch_size: int,
    *,
    lr: float,
    name: str = 'adamw',
    lr_batch_size: int | None = None,
    warmup_steps: int = 0,
    curve: str | Mapping[str, Any] = 'cosine',
    clip_norm: float | None = 1.0,
    decayed: str = 'kernels',
    **knobs: Any,
) -> Optimizer:
    """An optimizer and its learning rate.

    Args:
        num_steps: updates of the run.
        batch_size: examples of an update, on all devices and in all micro-batches.
        lr: the highest learning rate.
        name: of RULES; knobs are its own.
        lr_batch_size: the batch that lr is meant for: it is multiplied by batch_size over this. With 1 it is a rate an
            example, which is what latent diffusion's `--scale_lr` takes. None: lr as it is.
        warmup_steps, curve: of lr_schedules.rate.
        clip_norm: gradients are scaled down to this norm, of all together; None leaves them.
        decayed: the parameters with weight_decay: 'kernels' (matrices and convolutions, not biases, norms and
            embeddings) or 'all'.

    Raises ValueError for a name, a knob or a value that does not exist.
    """
    if lr_batch_size is not None and lr_batch_size < 1:
        raise ValueError(f'lr_batch_size must be at least 1, or None for lr as it is; got {lr_batch_size}.')
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f'clip_norm must be above 0, or None for none; got {clip_norm}.')
    for knob in SHARES:
        if knobs.get(knob) is not None and not 0 <= knobs[knob] < 1:
            raise ValueError(f'{knob} must be at least 0 and below 1; got {knobs[knob]}.')
    for knob in ('eps', 'weight_decay'):
        if knobs.get(knob, 0) < 0:
            raise ValueError(f'{knob} must be at least 0; got {knobs[knob]}.')
    lr = lr if lr_batch_size is None else lr * batch_size / lr_batch_size
    rate = lr_schedules.rate(lr, num_steps, warmup_steps, curve)
    mask = function('decayed', {'kernels': lambda: _kernels, 'all': lambda: None}, decayed)()
    tx = function('optimizer', RULES, {'name': name} | knobs)(rate, mask)
    if clip_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    return Optimizer(tx.init, tx.update, rate)


def _kernels(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def _matrices(params: PyTree) -> PyTree:
    """How Muon is to see each leaf as a matrix; None where AdamW updates it."""

    def dimensions(path, leaf):
        names = {key.key for key in path if hasattr(key, 'key')}
        if path[-1].key != 'kernel' or names & {'conv_in', 'conv_out'}:
            return None
        return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(dimensions, params)
