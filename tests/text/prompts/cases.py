"""Prompts of ours, and what the original parsers make of them: fixtures/prompt_parsing.json."""

import functools
import hashlib
import json
import math
import pathlib

FILE = pathlib.Path(__file__).parent.parent / 'fixtures' / 'prompt_parsing.json'


@functools.cache
def sections():
    return json.loads(FILE.read_text())


def text_of(case):
    given = case['in']
    return given if isinstance(given, str) else ''.join(part * times for part, times in given['parts'])


def agrees(case, found):
    """Whether an answer of ours is the original's, to the bit; long ones are known by their hash."""
    found = _plain(found)
    if 'out_sha256' in case:
        text = json.dumps(found, ensure_ascii=True, separators=(',', ':'))
        same = hashlib.sha256(text.encode()).hexdigest() == case['out_sha256']
        return same and len(found) == case['out_len']
    return found == case['out']


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
