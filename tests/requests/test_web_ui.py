"""Every setting that A1111's web UI and Forge write: honoured, without effect, or named in a warning."""

import warnings

import pytest

from ldm_jax import knobs
from ldm_jax.requests import infotext, png_settings, web_ui
from ldm_jax.requests.request import Request

BASE = (
    'a red apple, noto style\nSteps: 2, Sampler: Euler a, Schedule type: Automatic, CFG scale: 2, Seed: 5, '
    'Size: 32x32, Model: emoji32'
)

# As the web UI's and Forge's sources write them, with those of the extensions that come with them.
HONOURED = {
    'Clip skip': '2', 'Denoising strength': '0.75', 'Eta': '0.5', 'Eta DDIM': '1.0', 'Hires resize': '64x64',
    'Hires steps': '3', 'Hires upscale': '2', 'Hires upscaler': 'Latent', 'Image CFG scale': '1.5',
    'Inpaint area': 'Only masked', 'Mask blur': '4', 'Mask mode': 'Inpaint not masked',
    'Masked area padding': '16', 'Masked content': 'latent noise', 'RNG': 'CPU', 'Refiner': 'sdxl_refiner',
    'Refiner switch at': '0.7', 'SGM noise multiplier': 'True', 'Emphasis': 'No norm', 'Pad conds': 'True',
    'Pad conds v0': 'True', 'Old prompt editing timelines': 'True', 'TI hashes': '"a: b"',
}  # fmt: skip
KNOBS = {  # setting -> the sampler and grid that it is for, its value, where it lies in the request, and as what
    'Beta schedule alpha': ('Euler', 'Beta', '0.5', 'grid', dict(alpha=0.5)),
    'Beta schedule beta': ('Euler', 'Beta', '0.5', 'grid', dict(beta=0.5)),
    'Discard penultimate sigma': ('Euler', 'Karras', 'True', 'grid', dict(discard_next_to_last=1)),
    'Schedule max sigma': ('Euler', 'Karras', '10', 'grid', dict(sigma_max=10)),
    'Schedule min sigma': ('Euler', 'Exponential', '0.1', 'grid', dict(sigma_min=0.1)),
    'Schedule rho': ('Euler', 'Karras', '5', 'grid', dict(rho=5)),
    'Sigma churn': ('Euler', 'Automatic', '0.5', 'sampler', dict(s_churn=0.5)),
    'Sigma noise': ('Euler a', 'Automatic', '1.01', 'sampler', dict(s_noise=1.01)),
    'Sigma tmax': ('Heun', 'Automatic', '10', 'sampler', dict(s_tmax=10)),
    'Sigma tmin': ('DPM2', 'Automatic', '0.1', 'sampler', dict(s_tmin=0.1)),
    'UniPC lower order final': ('UniPC', 'Automatic', 'False', 'sampler', dict(lower_order_final=False)),
    'UniPC order': ('UniPC', 'Automatic', '2', 'sampler', dict(max_order=2)),
    'UniPC variant': ('UniPC', 'Automatic', 'bh2', 'sampler', dict(variant='bh2')),
}
WARNED = {
'Civitai resources': '[{"type": "lora"}]', 'Cache FP16 weight for LoRA': 'True',
    'Conditional mask weight': '0.5', 'ControlNet 0': '"Module: canny, Model: x"', 'Decode CFG scale': '1',
    'Decode negative prompt': 'x', 'Decode prompt': 'x', 'Decode steps': '50', 'Diffusion in Low Bits': 'fp8',
    'Distilled CFG Scale': '3.5', 'Downcast alphas_cumprod': 'True',
    'ENSD': '31337', 'Extra noise': '0.1', 'FP8 weight': 'Enable',
    'Face restoration': 'CodeFormer', 'Hires CFG Scale': '9', 'Hires checkpoint': 'x', 'Hires module 1': 'x',
    'Hires negative prompt': 'x', 'Hires prompt': 'x', 'Hires refiner': 'x', 'Hires sampler': 'DDIM',
    'Hires schedule type': 'Karras', 'Hypernet': 'x', 'Hypernet strength': '0.5', 'Mask rounding': 'False',
    'Module 1': 'ae', 'NGMS': '1.5', 'NGMS all steps': 'True', 'Noise Schedule': 'Zero Terminal SNR',
    'Noise multiplier': '0.9', 'Original Size': '64x64', 'Randomness': '0.5',
    'Refiner switch by sampling steps': 'True', 'SD upscale overlap': '64', 'SD upscale upscaler': 'Lanczos',
    'Script': 'X/Y/Z plot',
    'Seed resize from': '64x64', 'Sigma Adjustment': 'True', 'Skip Early CFG': '0.2', 'Soft inpainting enabled': 'True',
    'Styles': 'x', 'TI': 'easynegative', 'Token merging ratio': '0.5',
    'Token merging ratio hr': '0.5',
    'UniPC skip type': 'logSNR',
    'VAE': 'vae-ft-mse.safetensors', 'VAE Decoder': 'TAESD', 'VAE Encoder': 'TAESD', 'X Type': 'Steps',
    'X Values': '1-3',
}  # fmt: skip
WITHOUT_EFFECT = {
    'Conditional mask weight': '1.0', 'ENSD': '0', 'Emphasis': 'Original', 'Hires CFG Scale': '2.0',
    'Hires resize': '0x0', 'Hires sampler': 'Use same sampler', 'Init image hash': 'abc',
    'Inpaint area': 'Whole picture',
    'Mask mode': 'Inpaint masked', 'Model hash': 'abc', 'Noise multiplier': '1',
    'Pad conds': 'False', 'RNG': 'GPU', 'Tiling': 'False', 'User': 'x', 'VAE': 'Automatic',
    'VAE hash': 'abc', 'Variation seed': '9', 'Variation seed strength': '0', 'Version': 'v1.10.1',
}  # fmt: skip


def read(text):
    """Fields of a request, and the messages of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        return png_settings.read(infotext.read(text)), [str(each.message) for each in caught]


def test_the_base_text_has_nothing_to_warn_of():
    fields, messages = read(BASE)
    assert not messages
    assert (fields['num_steps'], fields['sampler'], fields['seed']) == (2, 'Euler a', 5)


@pytest.mark.parametrize('name', HONOURED)
def test_a_setting_that_is_honoured_changes_the_request(name):
    fields, messages = read(f'{BASE}, {name}: {HONOURED[name]}')
    assert not messages
    assert fields != read(BASE)[0]


@pytest.mark.parametrize('name', WARNED)
def test_a_setting_without_a_meaning_here_is_named(name):
    fields, (message,) = read(f'{BASE}, {name}: {WARNED[name]}')
    assert f'{name}: ' in message
    assert fields == read(BASE)[0]


@pytest.mark.parametrize('name', WITHOUT_EFFECT)
def test_a_value_without_effect_is_left_out(name):
    assert read(f'{BASE}, {name}: {WITHOUT_EFFECT[name]}') == read(BASE)


@pytest.mark.parametrize('name', KNOBS)
def test_knobs_of_samplers_and_grids_are_honoured_where_they_have_them(name):
    sampler, grid, value, field, knob = KNOBS[name]
    base = BASE.replace('Euler a', sampler).replace('Automatic', grid)
    fields, messages = read(f'{base}, {name}: {value}')
    assert not messages
    plain, changed = (knobs.make(Request, each).sampling.specs() for each in (read(base)[0], fields))
    at = ('sampler', 'grid').index(field)
    assert changed[at] == plain[at] | knob
    assert changed[1 - at] == plain[1 - at]
    if name == 'Discard penultimate sigma':  # which any grid takes
        return
    fields, (message,) = read(
        f'{BASE.replace("Euler a", "PLMS").replace("Automatic", "Simple")}, {name}: {value}'
    )
    assert f'{name}: {value}' in message
    assert (fields['sampler'], fields['grid']) == ('PLMS', 'Simple')


def test_variation_seeds_are_read_together():
    fields, messages = read(f'{BASE}, Variation seed: 9, Variation seed strength: 0.6')
    assert not messages
    assert (fields['variation_seed'], fields['variation_strength']) == (9, 0.6)


def test_one_warning_names_each():
    _, (message,) = read(f'{BASE}, ENSD: 31337, NGMS: 2, ADetailer model: face')
    assert message == (
        'Settings of the image without a meaning here are left out: ENSD: 31337, NGMS: 2, ADetailer model: face.'
    )


def test_long_values_are_cut_in_the_warning():
    _, (message,) = read(f'{BASE}, Hires prompt: {"x" * 500}')
    assert f'Hires prompt: {"x" * 77}....' in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ('Hires resize: 64x96', (64, 96)),
        ('Hires resize: 64x0', (64, 96)),  # in proportion to 32 x 48
        ('Hires resize: 0x96', (64, 96)),
        ('First pass size: 16x24', (32, 48)),  # versions before 1.0, where Size is that of the second pass
    ],
)
def test_sizes_of_the_second_pass(settings, expected):
    text = BASE.replace('32x32', '32x48')
    fields, messages = read(f'{text}, Denoising strength: 0.5, Hires upscaler: Latent, {settings}')
    assert not messages
    assert fields['hires_size'] == expected
    assert (fields['width'], fields['height']) == ((16, 24) if 'First' in settings else (32, 48))
    assert (fields['strength'], fields['hires_steps']) == (0.5, 2)


def test_a_first_pass_without_a_size_has_as_many_pixels_as_512_by_512():
    assert web_ui.translated({'First pass size': '0x0', 'Size': '1024x768'}, ours=False)['Size'] == '640x448'


def test_hires_steps_are_those_of_the_first_pass_where_the_web_ui_leaves_them_out():
    assert read(f'{BASE}, Hires upscale: 2')[0]['hires_steps'] == 2
    assert 'hires_steps' not in read(f'{BASE}, Hires upscale: 2, Version: ldm_jax 0.1')[0]


def test_a_mask_without_blur_is_sharp_where_the_web_ui_leaves_it_out():
    assert read(f'{BASE}, Denoising strength: 0.5, Masked content: fill')[0]['mask_blur'] == 0
    assert 'mask_blur' not in read(f'{BASE}, Denoising strength: 0.5')[0]


def test_only_masked_has_a_padding_of_32_by_default():
    assert read(f'{BASE}, Inpaint area: Only masked')[0]['mask_padding'] == 32


@pytest.mark.parametrize('text', ['64', 'x', '64x', 'x64', '-1x64', '64x64x64', '6.5x8'])
@pytest.mark.parametrize('name', ['Size', 'Hires resize'])
def test_sizes_that_are_none_are_named(name, text):
    with pytest.raises(ValueError, match=f'{name} of an image is .* which is no WIDTHxHEIGHT'):
        read(
            BASE.replace('Size: 32x32', 'Clip skip: 1') + f', Size: {text}'
            if name == 'Size'
            else f'{BASE}, {name}: {text}'
        )


def test_images_of_old_versions_have_their_rules():
    base = BASE.replace('Euler a', 'DDIM')
    fields, messages = read(f'a [b:c:1.0] {base}, Version: v1.5.2')
    assert not messages
    assert fields['old_prompt_editing']
    assert fields['prompt_padding'] == 'last'
    fields, _ = read(f'a [b:c:1.0] {base}, Version: v1.6.0')
    assert not {'old_prompt_editing', 'prompt_padding'} & fields.keys()
    fields, _ = read(f'{BASE}, Version: v1.5.2')
    assert not {'old_prompt_editing', 'prompt_padding'} & fields.keys()
