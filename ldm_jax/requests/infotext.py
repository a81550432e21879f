"""Settings of an image, as the text that A1111's web UI keeps in its PNG files under 'parameters'.

    a red apple, (sharp:1.2)
    on a table
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.10.1

The prompt comes first and may have several lines; the negative prompt starts with its name and may be missing; the
last line holds the settings. A setting's name has 2 to 100 characters: letters, digits, '_', ' ', '-' and '/'.
A value that would be misread (with a comma, a colon or a line break in it) is a JSON string. Lines that start with
'Template:' or 'Negative Template:' may follow; the dynamic-prompts extension puts them there.

Where a prompt would not be read back as it was, for a line of it that looks like one of settings or like a negative
prompt, or for spaces, the settings hold it too, as a JSON string that only we read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

PROMPT, NEGATIVE = 'Prompt', 'Negative prompt'
EXACT = {
    PROMPT: 'Prompt text',
    NEGATIVE: 'Negative prompt text',
}  # settings, of prompts that the lines do not keep
TEMPLATES = ('Template:', 'Negative Template:')
OURS = 'ldm_jax'  # before the version of images that are our own
MADE = 'Image size'  # of an image whose 'Size' is that of a first pass, or of the part that was worked on
SHEET = 'Sheet'  # rows x columns, of a file that shows several images
FEWEST = 3  # settings that make a last line one of settings rather than of the prompt, there as here

# Names are bounded, and the pattern starts at them: a hostile file cannot make searching quadratic.
NAME = re.compile(r'\w[\w \-/]{1,99}')
FIELD = re.compile(rf'({NAME.pattern}):\s*')
LONGEST = 2**16  # characters of a JSON value; a failed attempt at one costs as much as it is allowed to see
ENDS = re.compile(r'\s*(,|$)')


def write(settings: Mapping[str, Any]) -> str:
    """The text for settings: 'Prompt', 'Negative prompt' and, in their order, the rest; None is left out.

    `read` gives the same, as text.

    Raises ValueError for a setting whose name readers would not find, or for fewer than three settings, which they
    would take for the prompt's last line.
    """
    rest = {
        key: value for key, value in settings.items() if value is not None and key not in (PROMPT, NEGATIVE)
    }
    for name in rest:
        if not NAME.fullmatch(name) or name != name.strip() or name in EXACT.values():
            raise ValueError(
                f"Setting {name!r} cannot be written: a name has 2 to 100 of letters, digits, '_', ' ', '-', '/', and "
                f'{list(EXACT.values())} are taken.'
            )
    if len(rest) < FEWEST:
        raise ValueError(
            f'{len(rest)} settings, {list(rest)}, would be read as a prompt; write at least {FEWEST}: Steps, '
            'Sampler and Seed, say.'
        )
    prompts = {name: str(settings.get(name) or '') for name in EXACT}
    text = _text(prompts, rest)
    found = read(text)
    if any(found[name] != prompt for name, prompt in prompts.items()):
        text = _text(prompts, rest | {EXACT[name]: prompt for name, prompt in prompts.items()})
    return text


def _text(prompts: Mapping[str, str], rest: Mapping[str, Any]) -> str:
    lines = [prompts[PROMPT]]
    if prompts[NEGATIVE]:
        lines.append(f'{NEGATIVE}: {prompts[NEGATIVE]}')
    lines.append(', '.join(f'{name}: {_quote(str(value))}' for name, value in rest.items()))
    return '\n'.join(lines).strip()


def read(text: str) -> dict[str, str]:
    """The settings that a text holds, as they are written: {'Prompt': ..., 'Negative prompt': ..., 'Steps': '20', ...}.

    Both prompts are always there, '' where the text has none; unknown settings are kept. Lines that extensions put
    after the settings, 'Template: ...', are settings of their own, each to the end of its line.
    """
    lines = [line.strip() for line in text.strip().split('\n')]
    end = _settings_line(lines)
    prompts: dict[str, list[str]] = {PROMPT: [], NEGATIVE: []}
    current = PROMPT
    for line in lines[:end]:
        if line.startswith(f'{NEGATIVE}:'):
            current, line = NEGATIVE, line.removeprefix(f'{NEGATIVE}:').strip()
        if line or prompts[current]:  # a prompt does not begin with empty lines
            prompts[current].append(line)
    found: dict[str, str] = {}
    for line in lines[end : end + 1]:
        found |= _fields(line)
    found |= {name: found.pop(EXACT[name], '\n'.join(part)) for name, part in prompts.items()}
    name = None
    for line in lines[end + 1 :]:
        if match := FIELD.match(line):
            name = match[1]
            found[name] = line[match.end() :]
        elif name:
            found[name] += f'\n{line}'
    return found


def _settings_line(lines: list[str]) -> int:
    """The index of the line of settings; len(lines) when there is none."""
    fit = [i for i, line in enumerate(lines) if line.startswith('Steps:') and len(_fields(line)) >= FEWEST]
    last = len(lines) - 1
    if last in fit:
        return last
    followed = [i for i in fit if lines[i + 1].startswith(TEMPLATES)]
    if followed:
        return followed[-1]
    if not lines[-1].startswith(TEMPLATES) and len(_fields(lines[-1])) >= FEWEST:
        return last
    # With lines behind it, only the web UI's own first word tells it from a prompt's.
    return fit[-1] if fit else len(lines)


def _fields(line: str) -> dict[str, str]:
    found, at = {}, 0
    while match := FIELD.search(line, at):
        value, at = _value(line, match.end())
        found[match[1]] = value
    return found


def _value(line: str, at: int) -> tuple[str, int]:
    """The value that starts at an index, and the index behind its comma."""
    if line.startswith(('"', '{', '['), at):  # JSON: a quoted text, or what other programs put there unquoted
        try:
            parsed, length = json.JSONDecoder().raw_decode(line[at : at + LONGEST])
        except (json.JSONDecodeError, RecursionError):
            length = 0
        if length and (comma := ENDS.match(line, at + length)):
            return parsed if isinstance(parsed, str) else line[at : at + length], comma.end()
    comma = line.find(',', at)
    end = len(line) if comma < 0 else comma
    return line[at:end].rstrip(), end + 1


def _quote(value: str) -> str:
    plain = value and value == value.strip() and not value.startswith(('"', '{', '['))
    return value if plain and not set(value) & set(',:\n') else json.dumps(value, ensure_ascii=False)
