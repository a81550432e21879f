"""Weights of words as ComfyUI writes them: '(word:1.3)', '((word))', and '\\(' for a bracket.

A number replaces the weight of the brackets around, a pair without one multiplies by 1.1; square brackets, BREAK and
changes while sampling are letters. What stands behind a stray ')' is letters until a '(' takes it back. Numbers are
Python's: 1e1, inf and 1_0 are some. The original recurses and is quadratic in nested brackets; this does neither.

Ref: Comfy-Org/ComfyUI, comfy/sd1_clip.py, token_weights.
"""

from __future__ import annotations

import collections

from ldm_jax.text.prompts.attention import ROUND, Fragment

_CLOSE, _OPEN = '\0\1', '\0\2'  # a backslash's brackets while the others are read


def fragments(text: str) -> list[Fragment]:
    """A text as fragments with their weights; neighbours of one weight stay apart. Empty ones are left out."""
    text = text.replace('\\)', _CLOSE).replace('\\(', _OPEN)
    found = [Fragment(text[a:b], weight) for a, b, weight in _Reader(text).spans() if a < b]
    return [Fragment(each.text.replace(_CLOSE, ')').replace(_OPEN, '('), each.weight) for each in found]


class _Reader:
    """Reads a text once for its pairs of brackets, and once for its spans."""

    def __init__(self, text: str):
        self.text = text
        self.close_of: dict[int, int] = {}
        self.open_of: dict[int, int] = {}
        self.colon_before: dict[
            int, int
        ] = {}  # a closing bracket -> the last colon that no bracket parts from it
        self.never_closed: list[int] = []
        below = 0  # how many ')' too many there are
        colon = -1
        for i, letter in enumerate(text):
            if letter == ':':
                colon = i
            elif letter == '(':
                colon = -1
                if below:
                    below -= 1
                else:
                    self.never_closed.append(i)
            elif letter == ')':
                self.colon_before[i], colon = colon, -1
                if self.never_closed:
                    start = self.never_closed.pop()
                    self.close_of[start], self.open_of[i] = i, start
                else:
                    below += 1

    def spans(self):
        """(start, end, weight) of the fragments, in order; some are empty."""
        start, end, weight = 0, len(self.text), 1.0
        opened, again = collections.deque(self.never_closed), collections.deque()
        while opened or again:
            # The first bracket that nothing closes and the rest are one piece, which is a pair if it ends with ')'.
            queue = opened if opened and (not again or opened[0] < again[0]) else again
            first = queue.popleft()
            if first < start:
                continue
            yield from self._closed(start, first, weight)
            last = end - 1
            if last == first or last not in self.open_of:
                yield first, end, weight
                return
            again.append(self.open_of[last])  # which has lost its ')'
            del self.close_of[self.open_of[last]]
            start, (end, weight) = first + 1, self._inside(first, last, weight)
        yield from self._closed(start, end, weight)

    def _closed(self, start: int, end: int, weight: float):
        """The spans of a text all of whose pairs are closed."""
        around: list[tuple[int, int, int, float]] = []  # behind a pair: where to go on, until where
        at = begins = start
        while True:
            if at < end and at in self.close_of:
                last = self.close_of[at]
                yield begins, at, weight
                around.append((last + 1, end, last, weight))
                end, weight = self._inside(at, last, weight)
                at = begins = at + 1
            elif at < end:
                at += 1
            else:
                yield begins, end, weight
                if not around:
                    return
                at, end, _, weight = around.pop()
                begins = at

    def _inside(self, first: int, last: int, weight: float) -> tuple[int, float]:
        """The end and the weight of what stands in a pair of brackets."""
        colon = self.colon_before[last]
        if colon > first + 1:
            try:
                return colon, float(self.text[colon + 1 : last])
            except ValueError:
                pass
        return last, weight * ROUND
