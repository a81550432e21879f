"""InvokeAI: the text 'invokeai_metadata', or 'sd-metadata' of versions before 3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ldm_jax.requests.programs.program import Program, Texts, object_of, parsed

NAMES = {
    'positive_prompt': 'Prompt', 'negative_prompt': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps',
    'cfg_scale': 'CFG scale', 'width': 'Width', 'height': 'Height', 'scheduler': 'Sampler',
    'cfg_rescale_multiplier': 'Guidance rescale', 'clip_skip': 'Clip skip', 'strength': 'Denoising strength',
    'rand_device': 'RNG', 'model': 'Model', 'prompt': 'Prompt', 'sampler': 'Sampler', 'app_version': '',
    'generation_mode': '', 'type': '', '_canvas_objects': '',
}  # fmt: skip


def find(texts: Texts) -> Mapping[str, Any] | None:
    if 'invokeai_metadata' in texts:
        return object_of(texts['invokeai_metadata'])
    if 'sd-metadata' in texts:
        return object_of(texts['sd-metadata']).get('image', {})
    return {} if 'Dream' in texts or 'invokeai_graph' in texts else None


def adjusted(settings: dict[str, str]) -> dict[str, str]:
    if prompts := parsed(settings['Prompt']):  # of versions before 3: texts with weights
        if len(prompts) != 1:
            raise ValueError(f'it has {len(prompts)} prompts with weights')
        settings['Prompt'] = prompts[0]['prompt']
        settings['Negative prompt'] = ' '.join(re.findall(r'\[(.*?)\]', settings['Prompt']))
        settings['Prompt'] = re.sub(r'\s*\[.*?\]', '', settings['Prompt'])
    name = settings.get('Sampler', '')
    if name.endswith('_k'):
        settings |= {'Sampler': name.removesuffix('_k'), 'Schedule type': 'karras'}
    if 'Clip skip' in settings:  # layers that are left out
        settings['Clip skip'] = str(int(settings['Clip skip']) + 1)
    settings['RNG'] = {'cpu': 'CPU', 'cuda': 'NV'}.get(settings['RNG'], settings['RNG'])
    return settings


PROGRAM = Program('InvokeAI', find, NAMES, {'RNG': 'CPU', 'Start': 'total'}, adjust=adjusted)
