"""Styles, which are texts around a prompt, and comments in prompts, as A1111's web UI has them.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/styles.py and modules/processing_scripts/comments.py.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ldm_jax.build import unknown

PLACE = '{prompt}'

_LINES = re.compile(r'(^|\n)#[^\n]*(\n|$)')
_ENDS = re.compile(r'#[^\n]*(\n|$)')


class Style(NamedTuple):
    """Texts for the prompt and for the negative one, each with '{prompt}' for it or put behind it."""

    prompt: str = ''
    negative: str = ''


def applied(prompt: str, styles: Iterable[str]) -> str:
    """A prompt in styles: put where one says '{prompt}', else before it and a comma."""
    for style in styles:
        if PLACE in style:
            prompt = style.replace(PLACE, prompt)
        else:
            prompt = ', '.join(filter(None, (prompt.strip(), style.strip())))
    return prompt


def without_comments(prompt: str) -> str:
    """A prompt without what stands behind '#' on a line."""
    return _ENDS.sub('\n', _LINES.sub('\n', prompt))


def parse(text: str) -> dict[str, Style]:
    """The styles of a file styles.csv: rows name, prompt, negative_prompt under a line with these names.

    Raises ValueError for a text without such a line.
    """
    rows = csv.DictReader(io.StringIO(text.lstrip('\ufeff')))
    columns = rows.fieldnames or []
    prompt = 'prompt' if 'prompt' in columns else 'text'  # of versions before 1.0
    if 'name' not in columns or prompt not in columns:
        raise ValueError(
            f'Styles begin with a line name,prompt,negative_prompt; got {",".join(columns)!r:.80}.'
        )
    return {
        row['name'].strip(): Style(row[prompt] or '', row.get('negative_prompt') or '')
        for row in rows
        if row['name'] and row['name'].strip()
    }


def chosen(known: Mapping[str, Style], names: Iterable[str]) -> list[Style]:
    """Styles by their names. Raises ValueError for an unknown one."""
    for name in names:
        if name not in known:
            raise unknown('style', name, sorted(known))
    return [known[name] for name in names]
