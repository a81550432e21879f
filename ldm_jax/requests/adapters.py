"""Adapters that a request names, by --lora or by tags in its prompts, and how an image's text names them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from ldm_jax import knobs
from ldm_jax.adapters import few_steps, files, folder
from ldm_jax.adapters.blocks import Strength, block_weights
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.request import Request
from ldm_jax.text.prompts import tags

Use = tuple[files.Adapter, Strength]
BLOCKS = 'lbw='  # block weights in a tag, as A1111's extension for them writes them


@dataclasses.dataclass(frozen=True)
class Named:
    """An adapter by its name, as a tag writes it: '<lora:name:te:unet:dyn>'."""

    lora: tags.Lora
    blocks: tuple[float, ...] | None = None

    @property
    def strength(self) -> Strength:
        """The strengths. Raises ValueError for another number of block weights than there are of blocks."""
        weights = {} if self.blocks is None else block_weights(self.blocks)
        return Strength(self.lora.unet_strength, self.lora.text_strength, weights)

    @property
    def tag(self) -> str:
        """The tag, in the web UI's form."""
        lora = self.lora
        words = [lora.name, f'{lora.text_strength:g}']
        if lora.rank is not None or lora.unet_strength != lora.text_strength:
            words.append(f'{lora.unet_strength:g}')
        if lora.rank is not None:
            words.append(str(lora.rank))
        if self.blocks is not None:
            words.append(BLOCKS + ','.join(f'{weight:g}' for weight in self.blocks))
        return f'<lora:{":".join(words)}>'


def named(words: Sequence[str]) -> list[Named]:
    """Adapters from words 'name:te:unet:dyn', as in a tag. Raises ValueError for a value that is no number."""
    return [_named(tags.Tag('lora', tuple(word.split(':')))) for word in words]


def split(request: Request) -> tuple[Request, list[Named]]:
    """A request without the tags of adapters in its prompts, and these; other tags stay.

    Raises ValueError for prompts with different tags, and for values that are none.
    """
    if request.prompts is None:
        return request, []
    cut = [_cut(prompt) for prompt in request.prompts]
    first = cut[0][1]
    for prompt, (_, found) in zip(request.prompts, cut, strict=True):
        if found != first:
            raise ValueError(
                f'All prompts of a call share its adapters, and {prompt!r:.80} names others than the first prompt: ask '
                'for it in a call of its own, or give --lora.'
            )
    prompts = tuple(prompt for prompt, _ in cut) if first else request.prompts
    return dataclasses.replace(request, prompts=prompts), [_named(tag) for tag in first]


def find(wanted: Sequence[Named], options: ModelOptions) -> list[tuple[str, Named]]:
    """(path, adapter) of each. Raises FileNotFoundError or ValueError as `adapters.folder.find`."""
    hashes = dict(pair.split(': ', 1) for pair in (options.lora_hashes or '').split(', ') if ': ' in pair)
    return [(str(folder.find(each.lora.name, options.adapters, hashes)), each) for each in wanted]


def suited(request: Request, wanted: Sequence[Named]) -> Request:
    """The request with the settings that adapters of few steps need, where it leaves them open; warns of it."""
    given = knobs.changed(request)
    for each in wanted:
        needs = few_steps.settings(each.lora.name)
        added = {name: value for name, value in (needs or {}).items() if name not in given}
        if added:
            shown = ', '.join(f'--{name} {value}' for name, value in added.items())
            warnings.warn(
                f'{each.lora.name} is made for few steps, and so is this run: {shown}.', stacklevel=2
            )
            request = knobs.replace(request, **added)
    return request


def settings(used: Sequence[tuple[Named, files.Adapter]]) -> dict[str, str]:
    """What an image's text says of adapters beside the prompt's tags: their hashes, as the web UI writes them."""
    if not used:
        return {}
    pairs = [f'{each.lora.name}: {folder.short_hash(adapter)}' for each, adapter in used]
    return {'Lora hashes': ', '.join(pairs)}


def _cut(prompt: str) -> tuple[str, list[tags.Tag]]:
    """A prompt without its tags of adapters, and these."""
    text, found = tags.cut(prompt)
    if all(tag.kind == 'lora' for tag in found):
        return (text.strip() if found else prompt), found
    loras = [tag for tag in found if tag.kind == 'lora']
    for tag in loras:
        prompt = prompt.replace(f'<{":".join((tag.kind, *tag.items))}>', '')
    return prompt, loras


def _named(tag: tags.Tag) -> Named:
    blocks = [item for item in tag.items if item.startswith(BLOCKS)]
    rest = tags.Tag(tag.kind, tuple(item for item in tag.items if item not in blocks))
    ((lora,), _, _) = tags.networks([rest])
    try:
        weights = tuple(float(word) for word in blocks[0].removeprefix(BLOCKS).split(',')) if blocks else None
    except ValueError:
        raise ValueError(
            f'{blocks[0]!r} of the adapter {lora.name!r} are no numbers: write lbw=1,0.5,...'
        ) from None
    found = Named(lora, weights)
    _ = found.strength
    return found
