"""Prompts that change while sampling, as A1111's web UI writes them: '[from:to:when]' and '[cat|dog]'.

`when` is a step, or with a point in it a share of the steps: '[a:b:3]', '[a:b:0.25]', '[b:3]' (from nothing) and
'[a::3]' (to nothing). '[cat|dog]' takes turns at each step. Both nest. A bracket or a colon that belongs to no such
structure is a letter; '|' outside of one, or a backslash at the end, makes the whole text letters, as there.

The original is an Earley parser, cubic in stray brackets, and where those are stray its answer differs from run to
run; here a structure is read wherever there can be one. A bracket is tried once and remembered, so that the time is
linear, and nothing recurses, so that any depth will do.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/prompt_parser.py, get_learned_conditioning_prompt_schedules.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import NamedTuple

_PLAIN = re.compile(r'(?:[^\\\[\]():|]|\\.)+')
_WHEN = re.compile(r'\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*\]')

Span = tuple[int, int]


class Entry(NamedTuple):
    """A text that holds up to a step, which is counted from 1."""

    last: int
    text: str


class _Node(NamedTuple):
    """A structure that changes: where it ends, what it chooses from, and the step of editing (None: turns)."""

    end: int
    choices: tuple[Span, ...]
    when: str | None


Found = dict[int, tuple[int, _Node | None]]


def schedule(text: str, steps: int, hires_steps: int | None = None, *, old: bool = False) -> list[Entry]:
    """The texts that hold one after the other, in order, the last one up to the last step.

    Args:
        steps: of the run; of its first pass, where this is the second one.
        hires_steps: of the second pass. Steps are then counted through both passes, shares above 1 are of it.
        old: the rule of versions before 1.6: any number below 1 is a share, and the passes are alike.
    """
    nodes = _parse(text)
    if nodes is None:
        return [Entry(steps if hires_steps is None or old else hires_steps, text)]
    offset, share_offset, count = (0, 0.0, steps)
    if hires_steps is not None and not old:
        offset, share_offset, count = steps, 1.0, hires_steps
    elif hires_steps is not None:
        count = steps
    whens: dict[int, int] = {}
    ends = {count}
    for at, node in nodes.items():
        if node.when is None:
            ends |= set(range(1, count + 1))
            continue
        value = float(node.when)
        if old:
            value = value * count if value < 1 else value
        else:
            value = (value - share_offset) * count if '.' in node.when else value - offset
        whens[at] = int(min(max(value, -1), count))
        if whens[at] >= 1:
            ends.add(whens[at])
    return [Entry(end, ''.join(_at(text, nodes, whens, end))) for end in sorted(ends)]


def _at(text: str, nodes: dict[int, _Node], whens: dict[int, int], step: int) -> Iterator[str]:
    """The pieces of a text at a step."""
    starts = sorted(nodes)
    spans = [(0, len(text))]
    while spans:
        at, end = spans.pop()
        i = bisect.bisect_left(starts, at)
        if i == len(starts) or starts[i] >= end:
            yield text[at:end]
            continue
        first = starts[i]
        node = nodes[first]
        yield text[at:first]
        spans.append((node.end, end))
        if node.when is None:
            spans.append(node.choices[(step - 1) % len(node.choices)])
        else:
            spans.append(node.choices[step > whens[first]])


def _parse(text: str) -> dict[int, _Node] | None:
    """The structures of a text that change, by their start; None where all of it is letters."""
    found = _structures(text)
    at = 0
    while at < len(text):
        if text[at] in '[(':
            at = found.get(at, (at + 1, None))[0]
        elif match := _PLAIN.match(text, at):
            at = match.end()
        elif text[at] in '|\\':
            return None
        else:
            at += 1
    return {start: node for start, (_, node) in found.items() if node is not None}


def _structures(text: str) -> Found:
    """Start of each bracket that begins a structure -> (its end, what changes there; None in plain brackets)."""
    found: Found = {}
    tried: set[int] = set()
    for start in range(len(text)):
        if text[start] not in '[(' or start in tried:
            continue
        stack = [_Open(start)]
        while stack:
            here = stack[-1]
            at = here.at
            mark = text[at : at + 1]
            if at in found:
                here.at = found[at][0]
            elif at in tried:
                _close(stack, tried, found, None)
            elif mark in ('[', '('):
                stack.append(_Open(at))
            elif match := _PLAIN.match(text, at):
                here.at = match.end()
            else:
                here.spans.append((here.begins, at))
                _end_prompt(text, mark, stack, tried, found)
    return found


class _Open:
    """A bracket that is being read: where, how far, and the prompts in it that are done."""

    def __init__(self, start: int):
        self.start, self.at, self.begins = start, start + 1, start + 1
        self.spans: list[Span] = []
        self.turns = False


def _end_prompt(text: str, mark: str, stack: list[_Open], tried: set[int], found: Found) -> None:
    """Goes on behind a mark that ends a prompt inside the innermost bracket, or closes that bracket."""
    here = stack[-1]
    square, count = text[here.start] == '[', len(here.spans)
    end = here.at + 1
    if mark == '|' and square and (here.turns or count == 1):
        here.turns, here.at, here.begins = True, end, end
    elif mark == ':' and not here.turns and square and (when := _WHEN.match(text, end)):
        before, after = ((end, end), here.spans[0]) if count == 1 else here.spans[:2]
        _close(stack, tried, found, (when.end(), _Node(when.end(), (before, after), when[1])))
    elif mark == ':' and not here.turns and count == 1:
        here.at = here.begins = end
    elif mark == ']' and square and here.turns:
        _close(stack, tried, found, (end, _Node(end, tuple(here.spans), None)))
    elif (mark == ']' and square and count == 1) or (mark == ')' and not square and count <= 2):
        _close(stack, tried, found, (end, None))
    else:
        _close(stack, tried, found, None)


def _close(
    stack: list[_Open], tried: set[int], found: Found, result: tuple[int, _Node | None] | None
) -> None:
    """Takes the innermost bracket off the stack, as a structure or as a letter.

    A letter is none of a prompt in brackets, so that the brackets around it are letters too.
    """
    here = stack.pop()
    tried.add(here.start)
    if result is not None:
        found[here.start] = result
        return
    while stack:
        tried.add(stack.pop().start)
