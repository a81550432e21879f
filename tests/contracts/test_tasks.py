"""Every row of TASKS from the command line: files in, PNG files out, on a tiny model of each of its kinds."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax import knobs
from ldm_jax.requests import png_settings
from ldm_jax.requests.request import Request
from ldm_jax.requests.tasks import TASKS
from tests import tiny_models

SIDE = 16
# Row -> the value of each field that it needs, and of those that it also takes. Values in capitals are files.
FIELDS = {
    'text_to_image': ({}, {}),
    'hires': (
        dict(hires_scale='2'), dict(hires_upscaler='lanczos', hires_steps='3', strength='0.6'),
    ),
    'hires_to_size': (
        dict(hires_size='32x16'), dict(hires_upscaler='latent_bilinear', hires_steps='3', strength='0.6'),
    ),
    'interpolate': (dict(interpolate=3), dict(share=0.4)),
    'refine': (dict(refiner='REFINER'), dict(refiner_start='0.5')),
    'image_to_image': (dict(init_image='IMAGE'), dict(strength='0.5')),
    'inpaint': (
        dict(init_image='IMAGE', mask='MASK'),
        dict(strength='0.5', mask_blur='1', mask_content='fill', mask_padding='2', invert_mask=()),
    ),
    'outpaint': (
        dict(init_image='IMAGE', outpaint=(8, 0, 0, 8)), dict(strength='0.5', mask_blur='1', mask_content='original'),
    ),
    'depth_to_image': (dict(init_image='IMAGE', depth='DEPTH'), dict(strength='0.5')),
    'edit': (dict(init_image='IMAGE'), dict(image_guidance_scale='3')),
    'upscale': (dict(init_image='IMAGE'), dict(noise_level='5')),
    'variations': (dict(init_image='IMAGE'), dict(noise_level='300', mix='OTHER', mix_weights=(1, 2))),
    'class_to_image': (dict(labels=(3, 7)), {}),
    'unconditional': ({}, {}),
    'super_resolution': (dict(init_image='IMAGE'), {}),
    'inpaint_without_text': (dict(init_image='IMAGE', mask='MASK'), dict(invert_mask=())),
    'semantic_to_image': (dict(label_map='LABELS'), {}),
    'layout_to_image': (dict(layout='LAYOUT'), {}),
}  # fmt: skip
SIZES = dict(  # of models that are conditioned on sizes, beside a row's own
    original_size='64x32', crop_top_left='1,2', target_size='16x16',
    negative_original_size='8x8', negative_crop_top_left='0,1', negative_target_size='32x16',
)  # fmt: skip
FAST = ('image_to_image', 'semantic_to_image')  # texts and files; test_command.py has text alone
ROWS = [
    pytest.param(name, kind, marks=() if name in FAST else pytest.mark.slow)
    for name, task in TASKS.items()
    for kind in task.kinds
]
ROWS += [
    pytest.param(name, 'sizes', marks=pytest.mark.slow)
    for name, task in TASKS.items()
    if set(SIZES) <= set(task.takes)
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with each kind of input file; models are made there when they are wanted."""
    path = tmp_path_factory.mktemp('requests')
    random = np.random.default_rng(0)
    for name in ('image', 'other'):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path / f'{name}.png')
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 6:] = 255
    Image.fromarray(mask).save(path / 'mask.png')
    Image.fromarray(random.integers(0, 2**16, (SIDE, SIDE), np.uint16)).save(path / 'depth.png')
    Image.fromarray(random.integers(0, 5, (SIDE, SIDE), np.uint8)).save(path / 'labels.png')
    (path / 'layout.json').write_text('[[1, 0, 0, 0.5, 0.5], [3, 0.2, 0.1, 1, 0.9]]')
    return path


def test_every_row_has_its_fields_here():
    assert FIELDS.keys() == TASKS.keys()
    for name, task in TASKS.items():
        needs, takes = FIELDS[name]
        assert needs.keys() == set(task.needs)
        assert takes.keys() == set(task.takes) - SIZES.keys()


@pytest.mark.parametrize(('name', 'kind'), ROWS)
def test_files_in_and_png_out(name, kind, folder, tmp_path, sample):
    files = {path.stem.upper(): str(path) for path in folder.glob('*.*')}
    model = tiny_models.save(folder, kind)
    if 'refiner' in TASKS[name].needs:
        files['REFINER'] = tiny_models.save(folder, kind, seed=1)
    needs, takes = (
        {field: files.get(str(value), value) for field, value in fields.items()} for fields in FIELDS[name]
    )
    takes |= SIZES if kind == 'sizes' else {}
    common = dict(model=model, num_steps=6, sampler='ddim', num_images=1, seed=3, scale=1, out=tmp_path)
    if 'tokenizer' in tiny_models.SETTINGS[kind]:
        common['prompt'] = ('apple', 'pear') if name == 'interpolate' else 'apple'
    made = []
    for fields in (needs, needs | takes) if takes else (needs,):
        report = sample(**common, **fields)
        assert report['task'] == name
        assert (
            len(report['images']) == {'class_to_image': 2, 'interpolate': 3}.get(name, 1) or 'share' in fields
        )
        settings = png_settings.read_file(report['images'][0]['path'])
        assert (settings['Steps'], settings['Seed'], settings['Model']) == ('6', '3', model)
        named = {knobs.settings(Request)[field].knob.png for field in TASKS[name].defaults}
        assert named <= settings.keys(), 'a default of the task is not in the text'
        with Image.open(report['images'][0]['path']) as image:
            made.append(np.asarray(image))
        assert settings.get('Image size', settings['Size']) == f'{made[-1].shape[1]}x{made[-1].shape[0]}'
        assert made[-1].std() > 1
    assert len(made) == 1 or not np.array_equal(*made), 'what the row also takes has no effect'
