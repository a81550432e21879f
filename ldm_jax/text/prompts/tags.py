"""Networks named inside a prompt, as A1111's web UI writes them: '<lora:name:0.8>', '<hypernet:name:0.5>'.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/extra_networks.py and extensions-builtin/Lora.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_TAG = re.compile(r'<(\w+):([^>]+)>')


class Tag(NamedTuple):
    """A tag as it is written: its word, and what colons divide behind it."""

    kind: str
    items: tuple[str, ...]


class Lora(NamedTuple):
    """What '<lora:name:te:unet:dyn>' asks for.

    text_strength, unet_strength: of the text encoders' and the U-Net's part; rank: how many of its rank count.
    """

    name: str
    text_strength: float = 1.0
    unet_strength: float = 1.0
    rank: int | None = None


class Hypernetwork(NamedTuple):
    """What '<hypernet:name:strength>' asks for."""

    name: str
    strength: float = 1.0


def cut(prompt: str) -> tuple[str, list[Tag]]:
    """A prompt without its tags, and these, whatever their word."""
    found = []

    def note(match):
        found.append(Tag(match[1], tuple(match[2].split(':'))))
        return ''

    end = prompt.rfind('>') + 1  # behind it nothing can match, and the search for '>' would be quadratic
    return _TAG.sub(note, prompt[:end]) + prompt[end:], found


def networks(found: Sequence[Tag]) -> tuple[list[Lora], list[Hypernetwork], list[Tag]]:
    """LoRAs and hypernetworks of tags, in order, and the tags with another word.

    A LoRA's values stand in order or by name, '<lora:name:te=0.5:unet=0.9:dyn=8>'; the U-Net's strength is that of
    the text encoders unless it is given.

    Raises ValueError for a tag without a name or with a value that is no number.
    """
    loras, hypernetworks, others = [], [], []
    for tag in found:
        if tag.kind == 'lora':
            loras.append(_lora(tag))
        elif tag.kind == 'hypernet':
            (name, *values), _ = _arguments(tag)
            hypernetworks.append(Hypernetwork(name, _value(tag, float, values[0]) if values else 1.0))
        else:
            others.append(tag)
    return loras, hypernetworks, others


def _lora(tag: Tag) -> Lora:
    (name, *values), named = _arguments(tag)
    text = _value(tag, float, values[0]) if values else 1.0
    text = _value(tag, float, named['te']) if 'te' in named else text
    unet = _value(tag, float, values[1]) if len(values) > 1 else text
    unet = _value(tag, float, named['unet']) if 'unet' in named else unet
    rank = _value(tag, int, values[2]) if len(values) > 2 else None
    rank = _value(tag, int, named['dyn']) if 'dyn' in named else rank
    return Lora(name, text, unet, rank)


def _arguments(tag: Tag) -> tuple[list[str], dict[str, str]]:
    """Values in order, the name first, and values by name, which '=' divides from their names."""
    pairs = {item: item.split('=') for item in tag.items}
    named = dict(pair for item, pair in pairs.items() if len(pair) == 2)
    positional = [item for item in tag.items if len(pairs[item]) != 2]
    if not positional:
        raise ValueError(f'The tag {_spelled(tag)} has no name: write <{tag.kind}:name:0.8>.')
    return positional, named


def _value(tag: Tag, kind: type, text: str):
    try:
        return kind(text)
    except ValueError:
        number = 'a number' if kind is float else 'a whole number'
        raise ValueError(
            f'{text!r} in the tag {_spelled(tag)} is not {number}: write <{tag.kind}:name:0.8>.'
        ) from None


def _spelled(tag: Tag) -> str:
    return f'<{":".join((tag.kind, *tag.items))}>'
