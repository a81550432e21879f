"""Settings that other programs keep in their images as JSON, in the names of A1111's web UI.

Each module here is a program, read where it wrote plain settings: one prompt, one sampler. Anything else, or JSON of an
unknown program, is an error that names the program. Settings without a name in the web UI keep their own, so that
`png_settings` can name those that it leaves out.
"""

from __future__ import annotations

from ldm_jax.requests.programs import (
    comfyui,
    draw_things,
    easy_diffusion,
    fooocus,
    invokeai,
    novelai,
    swarmui,
)
from ldm_jax.requests.programs.program import PARAMETERS, Texts, parsed

MODULES = (swarmui, fooocus, invokeai, novelai, draw_things, comfyui, easy_diffusion)
PROGRAMS = tuple(module.PROGRAM for module in MODULES)


def read(texts: Texts) -> dict[str, str] | None:
    """Settings from the texts of a file in the web UI's names, or None where none of these programs wrote them.

    Raises ValueError, with the program's name, for what cannot be read as plain settings, and for JSON of no
    program that is known.
    """
    if PARAMETERS in texts and parsed(texts[PARAMETERS]) is None:
        return None  # the web UI's own form, which some of these programs write too
    for program in PROGRAMS:
        found = program.find(texts)
        if found is not None:
            try:
                return program.read(found)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f'written by {program.name}, and not as plain settings: {error}. Give the settings as flags.'
                ) from None
    if PARAMETERS in texts:
        found = parsed(texts[PARAMETERS])
        raise ValueError(
            f"its text 'parameters' is JSON of an unknown program, with {list(found)[:8]}. "
            f'Known are {[program.name for program in PROGRAMS]}.'
        )
    return None
