"""Settings of A1111's web UI and of Forge that have another form here, brought into ours.

Names and values of ours pass through. Settings without a meaning here stay as they are, for `png_settings` to warn of
them; values that change nothing, and settings that say nothing about pixels, are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

Settings = dict[str, str]

# Settings that say with what or by whom an image was made, and nothing of its pixels that others do not say.
HARMLESS = {
    'Version', 'User', 'Model', 'Model hash', 'VAE hash', 'Hashes', 'Init image hash',
    'Template', 'Negative Template', 'Civitai metadata', 'Created Date', 'Batch size',
    'Batch pos', 'Parser', 'Backend', 'App', 'Operations',
}  # fmt: skip
# Settings -> values with which they change nothing; numbers are compared as numbers.
NEUTRAL: dict[str, tuple[str | float, ...]] = {
    'CFG rescale': (0,),
    'Conditional mask weight': (1,),
    'Downcast alphas_cumprod': ('False',),
    'Emphasis': ('Original',),
    'ENSD': (0,),
    'Extra noise': (0,),
    'Face restoration': ('None', 'False'),
    'Hires Module 1': ('Use same choices',),
    'Hires checkpoint': ('Use same checkpoint',),
    'Hires negative prompt': ('',),
    'Hires prompt': ('',),
    'Hires resize': ('0x0',),
    'Hires sampler': ('Use same sampler',),
    'Hires schedule type': ('Use same scheduler',),
    'Inpaint area': ('Whole picture',),
    'Mask mode': ('Inpaint masked',),
    'NGMS': (0,),
    'Noise Schedule': ('Default',),
    'Noise multiplier': (1,),
    'Old prompt editing timelines': ('False',),
    'Pad conds': ('False',),
    'Pad conds v0': ('False',),
    'Refiner switch by sampling steps': ('False',),
    'SGM noise multiplier': ('False',),
    'Schedule max sigma': (0,),
    'Schedule min sigma': (0,),
    'Schedule rho': (0,),
    'Seed resize from': ('0x0', '-1x-1'),
    'Sigma tmax': (0, math.inf),
    'Skip Early CFG': (0,),
    'Tiling': ('False',),
    'Token merging ratio': (0,),
    'Token merging ratio hr': (0,),
    'UniPC skip type': ('time_uniform',),
    'VAE': ('None', 'Automatic'),
    'VAE Decoder': ('Full',),
    'VAE Encoder': ('Full',),
    'Variation seed strength': (0,),
}
VERSION = re.compile(r'v?(\d+)\.(\d+)')
SAME = {'Hires CFG Scale': 'CFG scale', 'Hires sampler': 'Sampler', 'Hires schedule type': 'Schedule type'}
MASKED = ('Inpaint area', 'Mask mode', 'Masked content')


def translated(settings: Mapping[str, str], ours: bool) -> Settings:
    """Settings in our names and values, without those that change nothing here.

    Args:
        ours: the image is one of ours; else what the web UI leaves out is its default.

    Raises ValueError for a size that is none.
    """
    version = settings.get('Version', '')
    found = {
        name: value
        for name, value in settings.items()
        if name not in HARMLESS and not _is_neutral(name, value)
    }
    _set_first_pass(found)
    _set_second_pass(found)
    if not ours:
        _set_versions(found, version)
        found.setdefault('RNG', 'GPU')
        if 'Hires upscale' in found or 'Hires resize' in found:
            found.setdefault('Hires steps', found.get('Steps', ''))
        if any(name in found for name in MASKED):
            found.setdefault('Mask blur', '0')
    if found.get('RNG') == 'GPU':  # whose numbers are Philox's too
        found['RNG'] = 'NV'
    if 'Eta DDIM' in found:  # of its DDIM and PLMS; 'Eta' is of k-diffusion's samplers
        found['Eta'] = found.pop('Eta DDIM')
    if found.get('SGM noise multiplier') == 'True':
        found['Start'] = 'total'
        del found['SGM noise multiplier']
    if found.get('Inpaint area') == 'Only masked':
        del found['Inpaint area']
        found.setdefault('Masked area padding', '32')
    if 'Variation seed strength' not in found:
        found.pop('Variation seed', None)
    for name, first in SAME.items():
        if name in found and _same(found[name], found.get(first, '')):
            del found[name]
    return found


def size(name: str, text: str) -> tuple[int, int]:
    """(width, height) of 'WIDTHxHEIGHT'. Raises ValueError for another text."""
    width, mark, height = text.partition('x')
    if not (mark and width.strip().isdecimal() and height.strip().isdecimal()):
        raise ValueError(f'{name} of an image is {text!r}, which is no WIDTHxHEIGHT.')
    return int(width), int(height)


def _set_versions(found: Settings, version: str) -> None:
    """What versions before 1.6 did, which later ones do for their images, and how prompts are padded."""
    numbers = VERSION.match(version)
    if numbers and (int(numbers[1]), int(numbers[2])) < (1, 6):
        if '[' in found.get('Prompt', ''):
            found.setdefault('Old prompt editing timelines', 'True')
        if found.get('Sampler') in ('DDIM', 'PLMS'):
            found.setdefault('Pad conds v0', 'True')
    if found.pop('Pad conds v0', None) == 'True':
        found['Pad conds'] = 'v0'


def _set_first_pass(found: Settings) -> None:
    """'First pass size', of versions before 1.0, beside which 'Size' is the second pass's."""
    if 'First pass size' not in found or 'Size' not in found:
        return
    first, last = size('First pass size', found.pop('First pass size')), size('Size', found['Size'])
    if 0 in first:  # as many pixels as 512 x 512, in whole 64s
        scale = 512 / math.sqrt(last[0] * last[1])
        first = tuple(math.ceil(scale * side / 64) * 64 for side in last)
    found |= {'Size': f'{first[0]}x{first[1]}', 'Hires resize': f'{last[0]}x{last[1]}'}


def _set_second_pass(found: Settings) -> None:
    """'Hires resize' with one side, to which the other is in proportion."""
    if 'Hires resize' not in found or 'Size' not in found:
        return
    (width, height), first = size('Hires resize', found['Hires resize']), size('Size', found['Size'])
    if width and not height:
        found['Hires resize'] = f'{width}x{width * first[1] // first[0]}'
    elif height and not width:
        found['Hires resize'] = f'{height * first[0] // first[1]}x{height}'


def _is_neutral(name: str, value: str) -> bool:
    return any(_same(value, str(neutral)) for neutral in NEUTRAL.get(name, ()))


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other
