"""The house's words: docstrings begin with what a thing is or does, and say it in the field's own terms."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = [ROOT / folder for folder in ('ldm_jax', 'tools', 'configs', 'experiments', 'tests')]
FILES = [
    path for folder in FOLDERS for path in sorted(folder.rglob('*.py')) if path != pathlib.Path(__file__)
]
PAGES = [ROOT / 'README.md', *(path for folder in FOLDERS for path in sorted(folder.rglob('README.md')))]
INSTEAD = {  # what is not written -> what is
    r'pictures?': "'image'",
    r'(?:is|are|was|were|be) told(?! apart)': "'conditioned on', 'given', 'knows'",
    r'that there (?:is|are) not': "'unknown X', 'a missing X'",
}
# Words of other programs and of old files, which are written as they are.
QUOTED = re.compile(r"Whole picture|'(?:run\.)?picture_every'")
SHUNNED = re.compile('|'.join(rf'(?P<w{i}>\b{words}\b)' for i, words in enumerate(INSTEAD)), re.IGNORECASE)


def found(path: pathlib.Path) -> list[str]:
    """'file:line: what stands there' for each phrase that the house does not use."""
    lines = path.read_text().splitlines()
    return [
        f'{path.relative_to(ROOT)}:{number}: {match[0]!r}; write {list(INSTEAD.values())[int(match.lastgroup[1:])]}'
        for number, line in enumerate(lines, 1)
        for match in SHUNNED.finditer(QUOTED.sub('', line).replace('_', ' '))
    ]


def openings(path: pathlib.Path) -> list[str]:
    """Docstrings that begin in the genitive."""
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented)]
    return [
        f'{path.relative_to(ROOT)}:{node.body[0].lineno}: {ast.get_docstring(node)[:60]!r}; begin with a noun or a verb'
        for node in nodes
        if (ast.get_docstring(node) or '').startswith('Of ')
    ]


def test_prose_uses_the_fields_words():
    assert not [offence for path in [*FILES, *PAGES] for offence in found(path)]
    assert not [offence for path in FILES for offence in openings(path)]
