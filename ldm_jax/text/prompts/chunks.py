"""Weighted fragments as chunks of ids, each as long as a text encoder reads at once.

The web UI fills chunks of 75 tokens, moves what follows a comma near a full chunk's end into the next one, and knows
learned words by their names' tokens, wherever they stand. ComfyUI keeps short fragments whole, and has learned words
as 'embedding:name'.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/sd_hijack_clip.py, tokenize_line; Comfy-Org/ComfyUI,
comfy/sd1_clip.py, tokenize_with_weights.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from ldm_jax.text.prompts.attention import BREAK, Fragment

Encode = Callable[[str], list[int]]

BACKTRACK = 20  # tokens from a full chunk's end in which a comma is looked for
LARGE = 8  # tokens of a fragment from which on ComfyUI divides it


@dataclasses.dataclass
class Chunk:
    """Ids and their weights, without those that start, end and fill a row.

    words: (place, name) of learned words; each takes as many ids, 0, as it has vectors.
    """

    ids: list[int] = dataclasses.field(default_factory=list)
    weights: list[float] = dataclasses.field(default_factory=list)
    words: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def add(self, ids: Iterable[int], weight: float) -> None:
        """Puts ids of one weight at the end."""
        before = len(self.ids)
        self.ids += ids
        self.weights += [weight] * (len(self.ids) - before)


class Names:
    """Learned words by the tokens of their names, longer names first."""

    def __init__(self, counts: Mapping[str, int], encode: Encode):
        """counts: name -> how many vectors the word has."""
        self.counts = counts
        self.by_first: dict[int, list[tuple[list[int], str]]] = {}
        for name in counts:
            if ids := encode(name):
                self.by_first.setdefault(ids[0], []).append((ids, name))
        for found in self.by_first.values():
            found.sort(key=lambda pair: -len(pair[0]))

    def at(self, ids: Sequence[int], place: int) -> tuple[str, int] | None:
        """The word whose name's tokens stand at a place, and how many these are."""
        for name_ids, name in self.by_first.get(ids[place], ()):
            if ids[place : place + len(name_ids)] == name_ids:
                return name, len(name_ids)
        return None


def web_ui(
    fragments: Sequence[Fragment], encode: Encode, room: int, names: Names, backtrack: int = BACKTRACK
) -> list[Chunk]:
    """The chunks of fragments, as A1111's web UI makes them; at least one.

    Args:
        room: ids in a chunk.
        backtrack: 0 is no rule of commas.

    Raises ValueError for a learned word with more vectors than a chunk has room for.
    """
    comma = _only(encode(','))
    done: list[Chunk] = []
    here, last_comma = Chunk(), -1

    def begin(chunk: Chunk) -> None:
        nonlocal here, last_comma
        done.append(here)
        here, last_comma = chunk, -1

    for text, weight in fragments:
        if (text, weight) == BREAK:
            begin(Chunk())
            continue
        ids = encode(text)
        place = 0
        while place < len(ids):
            full = len(here.ids) == room
            if ids[place] == comma:
                last_comma = len(here.ids)
            elif full and last_comma != -1 and room - last_comma <= backtrack:
                moved = last_comma + 1
                rest = Chunk(here.ids[moved:], here.weights[moved:])
                # Learned words stay listed where they were, as there: behind the comma they are cut, not moved.
                del here.ids[moved:], here.weights[moved:]
                begin(rest)
            if len(here.ids) == room:
                begin(Chunk())
            word = names.at(ids, place)
            if word is None:
                here.add([ids[place]], weight)
                place += 1
                continue
            name, length = word
            count = _vectors(name, names.counts[name], room)
            if len(here.ids) + count > room:
                begin(Chunk())
            here.words.append((len(here.ids), name))
            here.add([0] * count, weight)
            place += length
    if here.ids or not done:
        done.append(here)
    return done


def comfyui(
    fragments: Sequence[Fragment],
    encode: Encode,
    room: int,
    counts: Mapping[str, int],
) -> tuple[list[Chunk], list[str]]:
    """The chunks of fragments, as ComfyUI makes them, and the names of 'embedding:name' that are unknown.

    counts: name -> how many vectors a learned word has.

    Raises ValueError for a learned word with more vectors than a chunk has room for.
    """
    done, unknown = [Chunk()], []
    for text, weight in fragments:
        first, *named = re.split(r'[ \n]embedding:', ' ' + text)
        groups = [(first[1:], None)] if first[1:] else []
        for each in named:
            name, _, rest = each.partition(' ')
            word = next((found for found in (name, name.strip(',\n')) if found in counts), None)
            if word is None:
                unknown.append(name)
            else:
                groups.append(('', word))
                rest = f'{name[len(word) :]} {rest}'
            groups.append((rest, None))
        for rest, word in groups:
            ids = [0] * _vectors(word, counts[word], room) if word else encode(rest)
            _put(done, ids, weight, word, room)
    return done, unknown


def _put(done: list[Chunk], ids: list[int], weight: float, word: str | None, room: int) -> None:
    """Adds a group of ids: whole if it is short or a learned word, else divided where a chunk is full."""
    large = len(ids) >= LARGE and word is None
    while ids:
        left = room - len(done[-1].ids)
        if len(ids) > left and not large:
            left = 0
        if len(ids) <= left or large:
            if word is not None:
                done[-1].words.append((len(done[-1].ids), word))
            done[-1].add(ids[:left], weight)
            ids = ids[left:]
        if ids:
            done.append(Chunk())


def _vectors(name: str, count: int, room: int) -> int:
    if count > room:
        raise ValueError(
            f'The learned word {name!r} has {count} vectors, and a text encoder reads {room} tokens at a time: '
            'leave it out.'
        )
    return count


def _only(ids: list[int]) -> int | None:
    return ids[0] if len(ids) == 1 else None
