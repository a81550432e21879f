"""Diffusers folders whole: the keys of every published one, and tiny ones there and back through diffusers."""

import json

import numpy as np
import pytest

import configs
from ldm_jax import build
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
from ldm_jax.checkpoints.layouts import diffusers_folder
from tests.checkpoints import folders

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')
transformers = pytest.importorskip('transformers')
safetensors = pytest.importorskip('safetensors.numpy')

PUBLISHED = [
    'sd15',
    'sd15_inpainting',
    'instruct_pix2pix',
    'sd2_base',
    'sd2_v',
    'sd2_depth',
    'sd2_inpainting',
    'sd21_unclip_l',
    'sd21_unclip_h',
    'x4_upscaler',
    'sdxl',
    'sdxl_inpainting',
    'sdxl_refiner',
    'bk_sdm_small',
    'bk_sdm_tiny',
    'ssd_1b',
    'vega',
    'koala_700m',
    'lcm_dreamshaper_v7',
    'playground_v25',
    'ldm_txt2img_1p4b',
    'ldm_text2img256',
    'ldm_celeba256',
    'ldm_bsr_sr',
    'kl_f4',
    'kl_f16',
    'kl_f32',
    'vq_f4_noattn',
    'vq_f8',
    'taesd',
    'clip_vit_l14_text',
    'open_clip_vit_h14_vision',
]
FAST = ('sd15', 'ldm_celeba256')
UNUSED = {'bert/to_logits.weight', 'bert/to_logits.bias'}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A folder is all that there is."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)


def published(name):
    """The settings of a config."""
    settings = json.loads(configs.load(name).to_json())
    return settings


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in PUBLISHED]
)
def test_keys_and_shapes_are_those_of_the_classes_of_diffusers(name, tmp_path):
    settings = published(name)
    diffusers_settings.write_settings(settings, tmp_path)
    theirs = {}
    for folder, config in folders.configs_in(tmp_path).items():
        with torch.device('meta'):
            state = folders.module(config).state_dict()
        prefix = f'{folder}/' if folder else ''
        theirs |= {prefix + key: tuple(tensor.shape) for key, tensor in state.items()}
    ours = folders.listing(diffusers_folder.layout(settings), folders.shapes(settings))
    if name == 'clip_vit_l14_text':
        theirs = {f'text_model.{key.removeprefix("text_model.")}': shape for key, shape in theirs.items()}
    assert ours == {folders.older(key): shape for key, shape in theirs.items() if key not in UNUSED}


def write_folder(settings, folder):
    """A whole folder from our parameters: what an export is. Returns the tensors by key."""
    diffusers_settings.write_settings(settings, folder)
    tensors = apply_layout.export_params(diffusers_folder.layout(settings), folders.random_params(settings))
    by_folder = {}
    for key, tensor in tensors.items():
        name, _, rest = key.rpartition('/')
        by_folder.setdefault(name, {})[rest] = tensor
    for name, state in by_folder.items():
        config = json.loads((folder / name / 'config.json').read_text())
        file = 'diffusion_pytorch_model' if '_class_name' in config else 'model'
        safetensors.save_file(state, folder / name / f'{file}.safetensors', {'format': 'pt'})
    return tensors


def with_words(settings, folder):
    """The settings, with a small vocabulary for BERT."""
    if settings.get('tokenizer', {}).get('name') != 'bert':
        return settings
    words = folder / 'words' / 'vocab.txt'
    words.parent.mkdir()
    words.write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'red', 'cat']))
    return settings | dict(tokenizer=dict(settings['tokenizer'], vocab=str(words)))


def state_of(pipe):
    """'<component>/<key>' -> array of a pipeline's networks."""
    found = {}
    for name, component in pipe.components.items():
        if isinstance(component, torch.nn.Module):
            found |= {f'{name}/{key}': value.numpy() for key, value in component.state_dict().items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize('name', folders.TINY)
def test_a_folder_of_ours_loads_as_it_is_with_equal_weights(name, tmp_path):
    settings = with_words(folders.TINY[name], tmp_path)
    folder = tmp_path / 'model'
    folder.mkdir()
    tensors = write_folder(settings, folder)
    given = dict(depth_estimator=None, feature_extractor=None) if 'Depth' in name else {}
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, **given)

    assert type(pipe).__name__ == name.partition(' ')[0]
    theirs = {folders.older(key): value for key, value in state_of(pipe).items() if key not in UNUSED}
    # Stable Diffusion reads its text before the projection, which its class therefore leaves in the file.
    left = {'text_encoder/text_projection.weight'} if 'projected' in name else set()
    assert theirs.keys() == tensors.keys() - left
    for key, value in theirs.items():
        np.testing.assert_array_equal(value, tensors[key], err_msg=key)

    schedule = pipe.scheduler.config
    assert {'epsilon': 'eps', 'v_prediction': 'v'}[schedule.prediction_type] == settings['parameterization']
    assert (schedule.beta_schedule, schedule.beta_start, schedule.beta_end) == (
        'scaled_linear',
        0.0009,
        0.0125,
    )
    assert pipe.unet.config.sample_size == 8
    first_stage = pipe.components.get('vae') or pipe.components['vqvae']
    assert first_stage.config.scaling_factor == settings['scaling_factor']
    for ours in ('tokenizer', 'tokenizer_2'):
        theirs = 'tokenizer_2' if 'XLImg2Img' in name else ours
        if settings.get(ours, {}).get('name') == 'clip':
            assert getattr(pipe, theirs).pad_token_id == settings[ours]['pad_id']
    if name.startswith('LDMText'):
        assert pipe.tokenizer('A red cat')['input_ids'] == [2, 5, 6, 7, 3]
    again = diffusers_settings.read_settings(folder)
    assert build.parts(again) == build.parts(settings)


@pytest.mark.slow
@pytest.mark.parametrize('name', folders.TINY)
def test_a_folder_of_ours_makes_an_image(name, tmp_path):
    image_module = pytest.importorskip('PIL.Image')
    folder = tmp_path / 'model'
    folder.mkdir()
    write_folder(with_words(folders.TINY[name], tmp_path), folder)
    given = dict(depth_estimator=None, feature_extractor=None) if 'Depth' in name else {}
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, **given)
    side = 32 if 'LDMSuper' in name else 16
    image = image_module.fromarray(np.arange(3 * side**2, dtype=np.uint8).reshape(side, side, 3))
    call = dict(num_inference_steps=2, output_type='np')
    if name not in ('LDMPipeline', 'LDMSuperResolutionPipeline'):
        call['prompt'] = ['a red cat']
    if any(word in name for word in ('Inpaint', 'Pix2Pix', 'Depth', 'Upscale', 'Img2Img', 'LDMSuper')):
        call['image'] = image
    if 'Inpaint' in name:
        call |= dict(mask_image=image_module.new('L', (side, side), 255), height=side, width=side)
    if 'XLI' in name or 'Depth' in name:
        call['strength'] = 1.0
    if 'Depth' in name:
        call['depth_map'] = torch.linspace(0, 1, side**2).reshape(1, side, side)
    images = np.asarray(pipe(**call).images)
    assert images.ndim == 4
    assert np.isfinite(images).all()
    assert images.std() > 0
