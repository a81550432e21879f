"""Settings in images: ours come back as they were, and the web UI's mean here what they mean there."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm_jax import knobs
from ldm_jax.images import save_png
from ldm_jax.requests import infotext, png_settings
from ldm_jax.requests.request import Request

WEB_UI = """a (red:1.2) cat, on a table
with two lines
Negative prompt: blurry, dog
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 123456789012, Size: 512x768, \
Model hash: abc, Model: v1-5, Clip skip: 2, Denoising strength: 0.4, RNG: CPU, Hires upscale: 1.5, \
Hires upscaler: Latent (nearest-exact), Version: v1.10.1"""


def test_the_settings_of_the_web_ui_are_read():
    found = png_settings.read(infotext.read(WEB_UI))
    assert found == dict(
        prompt=('a (red:1.2) cat, on a table\nwith two lines',),
        negative_prompt='blurry, dog',
        num_steps=30,
        sampler='DPM++ 2M',
        grid='Karras',
        guidance_scale=6.5,
        seed=123456789012,
        width=512,
        height=768,
        clip_skip=2,
        strength=0.4,
        noise_source='torch_cpu',
        hires_scale=1.5,
        hires_upscaler='Latent (nearest-exact)',
        hires_steps=30,
    )


def test_an_image_of_the_web_ui_that_names_no_generator_is_of_a_card():
    found = png_settings.read(infotext.read('a\nSteps: 2, Sampler: Euler a, Seed: 1'))
    assert found['noise_source'] == 'torch_cuda'


@pytest.mark.parametrize(
    'fields',
    [
        dict(prompt=('a red cat',)),
        dict(prompt=('a, b: c',), negative_prompt='x', sampler='Euler a', grid='Karras', eta=0.5, width=64),
        dict(prompt=('a',), strength=0.3, mask_blur=2.5, mask_content='fill', mask_padding=4, clip_skip=2),
        dict(
            prompt=('a',),
            hires_scale=2.0,
            hires_upscaler='lanczos',
            hires_steps=7,
            noise_source='torch_cuda',
        ),
        dict(prompt=('a',), guidance_rescale=0.7, guidance_rule='projected', start='total', noise_level=20),
        dict(prompt=('a',), guidance_interval=(0.28, 5.0), perturbed_scale=3.0),
        dict(prompt=('a :1.2 AND b :-1',), guidance_rule='projected', apg_eta=0.5, apg_threshold=2.5),
        dict(prompt=('a',), weak_model='x: y', autoguidance_scale=2.0, cfg_zero_share=0.04, percentile=0.995),
        dict(prompt=('a',), original_size=(64, 32), crop_top_left=(0, -3), target_size=(8, 16)),
        dict(prompt=('a',), negative_original_size=(64, 32), negative_crop_top_left=(0, 3)),
        dict(prompt=('a',), negative_target_size=(64, 32)),
        dict(prompt=('a',), refiner='x', refiner_start=0.7, image_guidance_scale=1.2),
    ],
)
def test_what_is_written_is_read_back(fields):
    asked = knobs.make(Request, dict(num_images=2, seed=5, guidance_scale=3.5, **fields))
    text = png_settings.write(asked, 1, (32, 64), 'emoji32', 3.5)
    found = knobs.make(Request, png_settings.read(infotext.read(text)))
    assert found == dataclasses.replace(asked, num_images=1, seed=6, width=64, height=32)


def test_a_class_is_written_in_place_of_a_prompt():
    asked = Request(labels=(3, 5), num_images=2)
    text = png_settings.write(asked, 3, (32, 64), 'cin', None)
    assert 'CFG scale' not in text
    assert png_settings.read(infotext.read(text))['labels'] == (5,)


def test_values_that_cannot_be_read_are_named():
    with pytest.raises(ValueError, match="Steps of an image is 'many': num_steps must be a whole number"):
        png_settings.read({'Steps': 'many'})
    with pytest.raises(ValueError, match="RNG 'TPU' of an image is none of"):
        png_settings.read({'RNG': 'TPU'})
    with pytest.raises(ValueError, match="No sampler 'Oiler'; the nearest are"):
        png_settings.read({'Sampler': 'Oiler'})


class TestFiles:
    pixels = np.zeros((4, 4, 3), np.uint8)

    def test_our_own_images(self, tmp_path):
        fields = {'Prompt': '猫, a cat', 'Negative prompt': '', 'Steps': '20', 'Sampler': 'DDIM', 'Seed': '1'}
        save_png(tmp_path / 'a.png', self.pixels, {'parameters': infotext.write(fields)})
        assert png_settings.read_file(tmp_path / 'a.png') == fields

    @pytest.mark.parametrize('chunk', [b'tEXt', b'iTXt', b'zTXt'])
    def test_every_kind_of_text_before_and_behind_the_pixels(self, tmp_path, chunk):
        info = PngInfo()
        if chunk == b'iTXt':
            info.add_itxt('parameters', WEB_UI)
        else:
            info.add_text('parameters', WEB_UI, zip=chunk == b'zTXt')
        path = tmp_path / 'a.png'
        Image.fromarray(self.pixels).save(path, pnginfo=info)
        assert png_settings.read_file(path) == infotext.read(WEB_UI)
        data = path.read_bytes()
        start = data.index(chunk) - 4
        size = int.from_bytes(data[start : start + 4], 'big') + 12
        end = data.index(b'IEND') - 4
        path.write_bytes(data[:start] + data[start + size : end] + data[start : start + size] + data[end:])
        assert png_settings.read_file(path) == infotext.read(WEB_UI)

    @pytest.mark.parametrize('order', ['utf-16-be', 'utf-16-le'])
    @pytest.mark.parametrize('name', ['a.jpg', 'a.webp'])
    def test_the_user_comment_of_files_without_texts(self, tmp_path, name, order):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b'UNICODE\0' + WEB_UI.encode(order)
        Image.fromarray(self.pixels.repeat(8, 0)).save(tmp_path / name, exif=exif)
        assert png_settings.read_file(tmp_path / name) == infotext.read(WEB_UI)
        assert png_settings.read_file((tmp_path / name).read_bytes()) == infotext.read(WEB_UI)

    def test_json_is_never_a_prompt(self, tmp_path):
        swarm = {'prompt': 'a red apple, noto style', 'seed': 77, 'steps': 2, 'cfgscale': 2.0, 'width': 32}
        swarm |= {'height': 32, 'sampler': 'euler'}
        save_png(tmp_path / 'a.png', self.pixels, {'parameters': json.dumps({'sui_image_params': swarm})})
        found = png_settings.read(png_settings.read_file(tmp_path / 'a.png'))
        assert found['prompt'] == ('a red apple, noto style',)
        assert (found['seed'], found['sampler'], found['noise_source']) == (77, 'euler', 'torch_cpu')
        assert (found['width'], found['height'], found['guidance_scale']) == (32, 32, 2)
        save_png(tmp_path / 'b.png', self.pixels, {'parameters': json.dumps(swarm)})
        with pytest.raises(ValueError, match=r'b.png: .* JSON of an unknown program'):
            png_settings.read_file(tmp_path / 'b.png')

    def test_errors(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='No image at'):
            png_settings.read_file(tmp_path / 'none.png')
        save_png(tmp_path / 'bare.png', self.pixels, {'Title': 'x'})
        with pytest.raises(ValueError, match=r"bare.png has no text 'parameters' .*; it has \['Title'\]"):
            png_settings.read_file(tmp_path / 'bare.png')
        Image.fromarray(self.pixels).save(tmp_path / 'a.jpg')
        with pytest.raises(ValueError, match=r"a.jpg has no text 'parameters'"):
            png_settings.read_file(tmp_path / 'a.jpg')

    def test_a_text_that_unpacks_to_too_much(self, tmp_path):
        info = PngInfo()
        info.add_text('parameters', 'a' * 3_000_000, zip=True)
        Image.fromarray(self.pixels).save(tmp_path / 'a.png', pnginfo=info)
        with pytest.raises(ValueError, match=r'a.png cannot be read: Decompressed data too large'):
            png_settings.read_file(tmp_path / 'a.png')
