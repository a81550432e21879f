"""The prompt languages by name: how each reads a prompt's parts, its changes, its weights and its chunks.

a1111     A1111's web UI: all that stands in this folder
comfyui   ComfyUI's weights, and 'embedding:name'
plain     every letter as it is
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ldm_jax.build import unknown
from ldm_jax.text.prompts import attention, chunks, comfyui, composition, schedule, styles, tags
from ldm_jax.text.prompts.attention import Fragment
from ldm_jax.text.prompts.chunks import Chunk, Encode
from ldm_jax.text.prompts.composition import Part
from ldm_jax.text.prompts.schedule import Entry

EMPHASES = ('original', 'no_norm', 'ignore', 'none')


@dataclasses.dataclass(frozen=True)
class Steps:
    """The evaluations of a run by which changes are timed.

    Attributes:
        count: of the run; of its first pass, where this is the second one.
        second: of the second pass.
        old: the rule of the web UI before 1.6.
    """

    count: int
    second: int | None = None
    old: bool = False


@dataclasses.dataclass(frozen=True)
class Dialect:
    """A prompt language.

    Attributes:
        parts: a prompt to the parts that are guided towards at once, with their weights.
        negative: what of a negative prompt is read as text.
        fragments: a text to words with their weights.
        entries: a part's text to the texts that hold one after the other.
        chunks: (text, emphasis, encode, room, counts of learned words) to chunks, and the words that it asks for in
            vain. None leaves the text to the tokenizer.
        from_empty: weights count from the vectors of the empty text, not from 0.
        zeros: an empty negative prompt is zeros, for models that know them.
    """

    parts: Callable[[str], list[Part]]
    negative: Callable[[str], str]
    entries: Callable[[str, Steps], list[Entry]]
    fragments: Callable[[str], list[Fragment]]
    chunks: Callable[[str, str, Encode, int, Mapping[str, int]], tuple[list[Chunk], list[str]]] | None = None
    from_empty: bool = False
    zeros: bool = True


def named(name: str) -> Dialect:
    """A prompt language by its name. Raises ValueError for an unknown one."""
    if name not in DIALECTS:
        raise unknown('prompt syntax', name, list(DIALECTS))
    return DIALECTS[name]


def _web_ui_parts(prompt: str) -> list[Part]:
    return composition.parts(tags.cut(styles.without_comments(prompt))[0])


def _web_ui_entries(text: str, steps: Steps) -> list[Entry]:
    return schedule.schedule(text, steps.count, steps.second, old=steps.old)


def _web_ui_chunks(
    text: str, emphasis: str, encode: Encode, room: int, counts: Mapping[str, int]
) -> tuple[list[Chunk], list[str]]:
    found = [Fragment(text, 1.0)] if emphasis == 'none' else attention.fragments(text)
    made = chunks.web_ui(found, encode, room, chunks.Names(counts, encode))
    if emphasis == 'ignore':
        for chunk in made:
            chunk.weights = [1.0] * len(chunk.weights)
    return made, []


def _comfyui_chunks(
    text: str, emphasis: str, encode: Encode, room: int, counts: Mapping[str, int]
) -> tuple[list[Chunk], list[str]]:
    return chunks.comfyui(comfyui.fragments(text), encode, room, counts)


def _whole(prompt: str) -> list[Part]:
    return [Part(prompt, 1.0)]


def _one(text: str) -> list[Fragment]:
    return [Fragment(text, 1.0)]


def _same(prompt: str) -> str:
    return prompt


def _once(text: str, steps: Steps) -> list[Entry]:
    return [Entry(steps.count, text)]


DIALECTS = {
    'a1111': Dialect(
        _web_ui_parts, styles.without_comments, _web_ui_entries, attention.fragments, _web_ui_chunks
    ),
    'comfyui': Dialect(
        _whole, _same, _once, comfyui.fragments, _comfyui_chunks, from_empty=True, zeros=False
    ),
    'plain': Dialect(_whole, _same, _once, _one),
}
