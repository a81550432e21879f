"""Images of programs whose PNG text is JSON: read where it is plain, else an error with the program's name."""

import json

import pytest

from ldm_jax.diffusion import aliases
from ldm_jax.requests.programs import read as programs


def comfyui(**changes):
    """The graph of ComfyUI's default workflow; changes are 'node.input' -> value, or 'node' -> a node."""
    nodes = {
        '3': dict(
            class_type='KSampler',
            inputs=dict(
                seed=0, steps=20, cfg=8.0, sampler_name='dpmpp_2m', scheduler='karras', denoise=1.0,
                model=['4', 0], positive=['6', 0], negative=['7', 0], latent_image=['5', 0],
            ),
        ),
        '4': dict(class_type='CheckpointLoaderSimple', inputs=dict(ckpt_name='v1-5.safetensors')),
        '5': dict(class_type='EmptyLatentImage', inputs=dict(width=512, height=768, batch_size=1)),
        '6': dict(class_type='CLIPTextEncode', inputs=dict(text='a red apple', clip=['4', 1])),
        '7': dict(class_type='CLIPTextEncode', inputs=dict(text='', clip=['4', 1])),
        '8': dict(class_type='VAEDecode', inputs=dict(samples=['3', 0], vae=['4', 2])),
        '9': dict(class_type='SaveImage', inputs=dict(filename_prefix='ComfyUI', images=['8', 0])),
    }  # fmt: skip
    for place, value in changes.items():
        node, _, name = place.partition('.')
        if name:
            nodes[node]['inputs'][name] = value
        else:
            nodes[node] = value
    return {'prompt': json.dumps(nodes), 'workflow': '{"nodes": [], "links": []}'}


SWARMUI = {
    'prompt': 'a red apple, noto style', 'seed': 77, 'steps': 2, 'cfgscale': 2.0, 'width': 32, 'height': 32,
    'sampler': 'euler', 'swarm_version': '0.9.6.1', 'images': 1,
}  # fmt: skip
FOOOCUS = {
    'prompt': 'a red apple', 'negative_prompt': '', 'full_prompt': ['a red apple', 'cinematic'],
    'performance': 'Speed', 'steps': 30, 'resolution': '(896, 1152)', 'guidance_scale': 4, 'seed': '77',
    'refiner_model': 'None', 'refiner_switch': 0.5, 'base_model': 'juggernautXL', 'clip_skip': 2,
    'sampler': 'dpmpp_2m_sde_gpu', 'scheduler': 'karras', 'version': 'Fooocus v2.5.5', 'metadata_scheme': 'fooocus',
}  # fmt: skip
INVOKEAI = {
    'positive_prompt': 'a red apple', 'negative_prompt': 'blurry', 'width': 512, 'height': 768, 'seed': 0,
    'rand_device': 'cpu', 'cfg_scale': 7.5, 'steps': 30, 'scheduler': 'dpmpp_2m_k', 'clip_skip': 0, 'loras': [],
    'model': {'name': 'dreamshaper', 'base': 'sd-1'}, 'app_version': '4.2.9', 'generation_mode': 'txt2img',
}  # fmt: skip
OLD_INVOKEAI = {
    'prompt': [{'prompt': 'a red apple [blurry]', 'weight': 1.0}], 'steps': 50, 'cfg_scale': 7.5, 'threshold': 0,
    'perlin': 0, 'height': 512, 'width': 512, 'seed': 77, 'type': 'txt2img', 'sampler': 'k_lms',
}  # fmt: skip
NOVELAI = {
    'prompt': 'a red apple', 'uc': 'blurry', 'steps': 28, 'height': 1216, 'width': 832, 'scale': 5.0, 'seed': 77,
    'sampler': 'k_euler_ancestral', 'noise_schedule': 'native', 'cfg_rescale': 0.0, 'n_samples': 1, 'sm': False,
}  # fmt: skip
DRAW_THINGS = {
    'c': 'a red apple & a "pear"', 'uc': '', 'seed': 77, 'steps': 20, 'scale': 7.5, 'size': '512x768',
    'sampler': 'DPM++ 2M Karras', 'strength': 1, 'model': 'sd_v1.5_f16.ckpt', 'seed_mode': 'Nvidia GPU Compatible',
}  # fmt: skip
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><exif:UserComment><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>'
)
EASY_DIFFUSION = {
    'prompt': 'a red apple', 'negative_prompt': 'blurry', 'seed': '77', 'num_inference_steps': '25',
    'guidance_scale': '7.5', 'width': '512', 'height': '768', 'sampler_name': 'euler_a', 'clip_skip': 'True',
    'use_stable_diffusion_model': 'sd-v1-5',
}  # fmt: skip

PLAIN = {
    'swarmui': (
        {'parameters': json.dumps({'sui_image_params': SWARMUI, 'sui_extra_data': {}})},
        {
            'Prompt': 'a red apple, noto style', 'Negative prompt': '', 'Seed': '77', 'Steps': '2', 'CFG scale': '2',
            'Size': '32x32', 'Sampler': 'euler', 'Schedule type': 'normal', 'RNG': 'CPU', 'Start': 'total',
        },
    ),
    'fooocus': (
        {'parameters': json.dumps(FOOOCUS), 'fooocus_scheme': 'fooocus'},
        {
            'Prompt': 'a red apple', 'Negative prompt': '', 'Seed': '77', 'Steps': '30', 'CFG scale': '4',
            'Size': '896x1152', 'Sampler': 'dpmpp_2m_sde_gpu', 'Schedule type': 'karras', 'Clip skip': '2',
            'Model': 'juggernautXL', 'RNG': 'CPU', 'Start': 'total', 'performance': 'Speed',
            'full_prompt': '["a red apple", "cinematic"]',
        },
    ),
    'invokeai': (
        {'invokeai_metadata': json.dumps(INVOKEAI)},
        {
            'Prompt': 'a red apple', 'Negative prompt': 'blurry', 'Seed': '0', 'Steps': '30', 'CFG scale': '7.5',
            'Size': '512x768', 'Sampler': 'dpmpp_2m', 'Schedule type': 'karras', 'Clip skip': '1', 'RNG': 'CPU',
            'Start': 'total', 'Model': '{"name": "dreamshaper", "base": "sd-1"}',
        },
    ),
    'invokeai before 3': (
        {'sd-metadata': json.dumps({'image': OLD_INVOKEAI}), 'Dream': '"a red apple [blurry]" -s 50 -S 77'},
        {
            'Prompt': 'a red apple', 'Negative prompt': 'blurry', 'Seed': '77', 'Steps': '50', 'CFG scale': '7.5',
            'Size': '512x512', 'Sampler': 'k_lms', 'RNG': 'CPU', 'Start': 'total',
        },
    ),
    'novelai': (
        {'Software': 'NovelAI', 'Comment': json.dumps(NOVELAI), 'Description': 'a red apple'},
        {
            'Prompt': 'a red apple', 'Negative prompt': 'blurry', 'Seed': '77', 'Steps': '28', 'CFG scale': '5',
            'Size': '832x1216', 'Sampler': 'k_euler_ancestral', 'Schedule type': 'normal',
        },
    ),
    'draw things': (
        {'XML:com.adobe.xmp': XMP.format(json.dumps(DRAW_THINGS).replace('&', '&amp;'))},
        {
            'Prompt': 'a red apple & a "pear"', 'Negative prompt': '', 'Seed': '77', 'Steps': '20',
            'CFG scale': '7.5', 'Size': '512x768', 'Sampler': 'DPM++ 2M Karras', 'Model': 'sd_v1.5_f16.ckpt',
            'RNG': 'NV',
        },
    ),
    'comfyui': (
        comfyui(),
        {
            'Prompt': 'a red apple', 'Negative prompt': '', 'Seed': '0', 'Steps': '20', 'CFG scale': '8',
            'Size': '512x768', 'Sampler': 'dpmpp_2m', 'Schedule type': 'karras', 'Model': 'v1-5.safetensors',
            'RNG': 'CPU', 'Start': 'total', 'Prompt syntax': 'comfyui',
        },
    ),
    'easy diffusion': (
        EASY_DIFFUSION,
        {
            'Prompt': 'a red apple', 'Negative prompt': 'blurry', 'Seed': '77', 'Steps': '25', 'CFG scale': '7.5',
            'Size': '512x768', 'Sampler': 'Euler a', 'Clip skip': '2', 'Model': 'sd-v1-5',
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', PLAIN)
def test_plain_settings_are_read_in_the_web_uis_names(name):
    texts, expected = PLAIN[name]
    assert programs.read(texts) == expected
    aliases.resolve(expected['Sampler'], expected.get('Schedule type'))


@pytest.mark.parametrize('name', ['EasyDiffusion.json', 'swarm.comfyuisampler'])
def test_other_spellings_of_these_programs(name):
    if name == 'EasyDiffusion.json':
        texts = {'parameters': json.dumps(EASY_DIFFUSION | {'clip_skip': False, 'seed': 0})}
        expected = PLAIN['easy diffusion'][1] | {'Clip skip': '1', 'Seed': '0'}
    else:
        changed = {key: value for key, value in SWARMUI.items() if key != 'sampler'}
        changed |= {'comfyuisampler': 'dpmpp_2m', 'comfyuischeduler': 'karras', 'clipstopatlayer': -2}
        texts = {'parameters': json.dumps({'sui_image_params': changed})}
        expected = PLAIN['swarmui'][1] | {'Sampler': 'dpmpp_2m', 'Schedule type': 'karras', 'Clip skip': '2'}
    assert programs.read(texts) == expected


def test_a_graph_with_an_image_and_with_another_layer_of_the_text_encoder():
    texts = comfyui(
        **{
            '3.denoise': 0.5,
            '3.latent_image': ['10', 0],
            '10': dict(class_type='VAEEncode', inputs=dict(pixels=['11', 0], vae=['4', 2])),
            '11': dict(class_type='LoadImage', inputs=dict(image='a.png')),
            '12': dict(class_type='CLIPSetLastLayer', inputs=dict(stop_at_clip_layer=-2, clip=['4', 1])),
        }
    )
    found = programs.read(texts)
    assert (found['Denoising strength'], found['Clip skip']) == ('0.5', '2')


LORA = dict(class_type='LoraLoader', inputs=dict(model=['4', 0]))


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (comfyui(**{'10': LORA}), r"ComfyUI.*nodes \['LoraLoader'\]"),
        (comfyui(**{'10': json.loads(comfyui()['prompt'])['3']}), 'ComfyUI.*2 nodes that sample'),
        (comfyui(**{'3.positive': ['8', 0]}), 'ComfyUI.*its text comes from the node VAEDecode'),
        (comfyui(**{'3.seed': ['8', 0]}), r"ComfyUI.*its \['Seed'\] come from other nodes"),
        (comfyui(**{'3.positive': ['99', 0]}), 'ComfyUI.*99'),
        (comfyui(**{'6.text': ['8', 0]}), 'ComfyUI.*its text comes from'),
        ({'workflow': '{"nodes": []}'}, 'ComfyUI.*workflow alone'),
        ({'Dream': 'a red apple -s 50'}, 'InvokeAI.*no seed'),
        ({'invokeai_graph': '{}'}, 'InvokeAI.*no seed'),
        ({'invokeai_metadata': '[1]'}, 'InvokeAI'),
        ({'sd-metadata': json.dumps({'image': OLD_INVOKEAI | {'prompt': [{}, {}]}})}, 'InvokeAI.*2 prompts'),
        ({'Software': 'NovelAI', 'Comment': 'hello'}, 'NovelAI.*no seed'),
        ({'parameters': '{"sui_image_params": [1]}'}, 'SwarmUI'),
        ({'parameters': '{"sui_image_params": {"prompt": "a"}}'}, 'SwarmUI.*no seed'),
        ({'parameters': '{"prompt": "a", "steps": 2}'}, r"JSON of an unknown program, with \['prompt', 'steps'\]"),
        ({'parameters': '["a", "b"]'}, 'JSON of an unknown program'),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_an_error_that_names_the_program(texts, message):
    with pytest.raises(ValueError, match=message):
        programs.read(texts)


@pytest.mark.parametrize(
    'texts',
    [
        {},
        {'Title': 'x'},
        {'parameters': 'a\nSteps: 2, Sampler: Euler a, Seed: 1'},
        {'parameters': '{red|green} apple\nSteps: 2, Sampler: Euler a, Seed: 1'},
        {
            'parameters': 'a\nSteps: 2, Sampler: Euler, Seed: 1',
            **comfyui(),
        },  # as nodes of ComfyUI that save it
    ],
)
def test_the_web_uis_own_form_is_left_to_its_reader(texts):
    assert programs.read(texts) is None
