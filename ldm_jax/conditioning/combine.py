"""Several kinds of conditioning as one: built from a config's spec, written back to it, their parts put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp

from ldm_jax import denoising
from ldm_jax.build import build, unknown
from ldm_jax.conditioning.networks import Networks
from ldm_jax.types import Array, Cond, PyTree

PARTS = ('context', 'concat', 'vector', 'label')
Conditions = Mapping[str, tuple[Cond | None, Cond]]  # name of a kind -> (unconditional, conditional)


class Kind(Protocol):
    """A kind of conditioning: class Conditioning of a module of this folder, or of a dotted path. Frozen, hashable.

    Attributes:
        drop_rate: share of the training examples for which it is left out, so that guidance can lead away from that
            (Ho & Salimans 2022, arXiv:2207.12598); with 0 the network never sees its absence.
        batch: what it needs of a training example: all the keys of one of these.
        optional: keys that it takes beside.
        given: as `batch`, of what is given for sampling; more is described by `sample`.
        requires: parts of the model without which it cannot be.
    """

    drop_rate: float
    batch: ClassVar[tuple[tuple[str, ...], ...]]
    optional: ClassVar[tuple[str, ...]]
    given: ClassVar[tuple[tuple[str, ...], ...]]
    requires: ClassVar[tuple[str, ...]]

    def parts(self, networks: Networks) -> tuple[str, ...]:
        """The parts of Cond that it fills."""
        ...

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """The conditioning of a batch, left out where drop [B] is true; keys [B] are for its own draws."""
        ...

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """(unconditional, conditional) of B images; one and the same where it is never left out."""
        ...


def kinds(spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Kind]:
    """The kinds of conditioning of a spec: name -> dict(drop_rate=0.1, **fields), built.

    A name is that of a module of this folder, or one of your own with a dotted path in the fields: dict(pose=dict(
    name='experiments.pose.conditioning')). Texts come first, the others by name, whatever the order of the spec: in
    SDXL's vector the text is before the sizes.

    Raises ValueError for an unknown kind or field, a kind under another name, and a drop rate outside [0, 1).
    """
    found = {
        name: build('conditioning', {'name': name, **dict(spec[name].items())}) for name in ordered(spec)
    }
    for name, kind in found.items():
        module = module_name(kind)
        if '.' not in module and module != name:
            raise ValueError(f'conditioning.{name} is the kind {module!r}: write conditioning.{module}.')
        if not 0 <= kind.drop_rate < 1:
            raise ValueError(
                f'conditioning.{name}.drop_rate must be at least 0 and below 1; got {kind.drop_rate}.'
            )
    return found


def written(found: Mapping[str, Kind]) -> dict[str, dict[str, Any]]:
    """The spec of kinds of conditioning, with every field, as plain data: what a model's settings hold."""
    return {
        name: {
            'name': module_name(kind),
            **{f.name: getattr(kind, f.name) for f in dataclasses.fields(kind)},
        }
        for name, kind in found.items()
    }


def module_name(kind: Kind) -> str:
    """The module of a kind: of this folder, or its dotted path."""
    return type(kind).__module__.removeprefix('ldm_jax.conditioning.')


def ordered(names: Iterable[str]) -> list[str]:
    """Names of kinds in the order in which they are put together: text, then the others by name."""
    return sorted(names, key=lambda name: (name != 'text', name))


def joined(conditions: Conditions, without: Iterable[str] = ()) -> Cond:
    """All kinds as one Cond, unconditional in those named by `without`."""
    without = set(without)
    found: list[Any] = [conditions[name][name not in without] for name in ordered(conditions)]
    return merge(found)


def merge(conds: Iterable[Cond]) -> Cond:
    """One Cond of several: each part side by side along the last axis.

    Raises ValueError for two labels.
    """
    conds = list(conds)
    if sum(cond.label is not None for cond in conds) > 1:
        raise ValueError('Two kinds of conditioning give a label, and a network takes one.')

    def side_by_side(part):
        given = [getattr(cond, part) for cond in conds if getattr(cond, part) is not None]
        return jnp.concatenate(given, axis=-1) if len(given) > 1 else given[0] if given else None

    return Cond(**{part: side_by_side(part) for part in PARTS})


def check_network(found: Mapping[str, Kind], networks: Networks) -> None:
    """Raises ValueError unless the kinds fill the parts of Cond that the denoising network is conditioned on.

    networks: with the modules; parameters may be absent.
    """
    network = networks.module('unet')
    denoising.check_fields(network)
    for name, kind in found.items():
        if missing := [part for part in kind.requires if part not in networks.modules]:
            raise ValueError(
                f'Conditioning on {name!r} needs {missing} among the models; have {sorted(networks.modules)}.'
            )
    widths = denoising.conditioned_on(network)
    wanted = {part for part in PARTS if getattr(widths, part) is not None}
    filled = {part for kind in found.values() for part in kind.parts(networks)}
    if wanted != filled:
        raise ValueError(
            f'The network is conditioned on {sorted(wanted) or "nothing"} (parts of Cond), and conditioning '
            f'{sorted(found) or "that is empty"} fills {sorted(filled) or "nothing"}: change the fields of models.unet '
            'or stage.conditioning.'
        )


def check_given(found: Mapping[str, Kind], given: Mapping[str, Mapping[str, Array]]) -> None:
    """Raises ValueError where kinds of conditioning are given that are not found, or not all that they need."""
    for name, arrays in given.items():
        if name not in found:
            raise unknown('conditioning of this model', name, sorted(found))
        if not any(arrays.keys() >= set(keys) for keys in found[name].given):
            wanted = ' or '.join(str(list(keys)) for keys in found[name].given)
            raise ValueError(f'Conditioning on {name!r} needs {wanted}; got {sorted(arrays)}.')
