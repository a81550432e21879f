"""The whitening of unCLIP's image embeddings: below 'noise_augmentor.', and in diffusers' image_normalizer/.

Both store a row [1, D] where the model has a vector [D].
"""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import Layout, Rule
from ldm_jax.models import image_normalizer

NAMES = {'compvis': ('data_mean', 'data_std'), 'diffusers': ('mean', 'std')}


def layout(model: image_normalizer.Model, names: str = 'compvis') -> Layout:
    """The layout of its two tensors; names: 'compvis' or 'diffusers'.

    Raises ValueError for other names.
    """
    if names not in NAMES:
        raise ValueError(f'No image normalizer names {names!r}; have {sorted(NAMES)}.')
    rules = (
        Rule((torch,), (flax,), lambda a: (a[0].reshape(a[0].shape[-1:]),), lambda a: (a[0][None],))
        for torch, flax in zip(NAMES[names], ('mean', 'std'), strict=True)
    )
    return Layout(tuple(rules))
