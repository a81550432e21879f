"""Layouts of single files: every key of every public one is used once, or left out with a reason."""

import functools
import gc
import types

import numpy as np
import pytest

from ldm_jax import build, trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.detection.identify import identify
from ldm_jax.checkpoints.layouts import autoencoder, diffusers_unet, rules, single_file, transformers_clip
from tests.checkpoints import single_files
from tests.checkpoints.single_files import blank, listings

NAMES = sorted(listings())
# Tracing a network for its shapes takes seconds; the keys alone are compared for all.
FAST = ('kl_f16', 'vq_f8')
FAST_NARROW = ('sd15', 'sd2_base', 'sdxl', 'kl_f4', 'vq_f4_noattn')
# What the listings hold besides parameters, and the first key is there whatever the model.
BESIDE = {
    'sd15': {'betas', 'model_ema.decay', 'cond_stage_model.transformer.text_model.embeddings.position_ids'},
    'sd2_depth': {'depth_model.model.scratch.0.weight', 'cond_stage_model.model.text_projection'},
    'sd2_base': {'cond_stage_model.model.transformer.resblocks.23.ln_1.weight'},
    'sd2_sgm': {'conditioner.embedders.0.model.transformer.resblocks.23.ln_1.weight', 'denoiser.sigmas'},
    'sd21_unclip_l': {'embedder.model.transformer.resblocks.0.ln_1.weight', 'noise_augmentor.betas'},
    'sdxl': {'denoiser.sigmas', 'conditioner.embedders.1.model.logit_scale'},
    'x4_upscaler': {'low_scale_model.alphas_cumprod'},
    'ldm_lsun_churches256': {'scale_factor', 'model_ema.num_updates'},
    'ldm_inpainting_big': {'cond_stage_model.quantize.embedding.weight'},
    'ldm_layout2img': {'cond_stage_model.transformer.to_logits.weight'},
    'kl_f8': {'loss.logvar'},
    'vq_f8': {'loss.discriminator.main.0.weight'},
}


@pytest.fixture(autouse=True, scope='module')
def no_collection():
    """Tracing makes millions of small objects that live on; looking through them is a third of the time."""
    gc.disable()
    yield
    gc.enable()


@functools.cache  # many models share a part
def leaves(model):
    return trees.named(trees.shapes(model))


@functools.cache
def narrow(name):
    """Settings with few narrow blocks, and random parameters of them."""
    settings, generator, params = single_files.narrow(name), np.random.default_rng(0), {}
    for part, model in build.parts(settings).items():
        shapes = trees.named(trees.shapes(model, size=getattr(model, 'downscale', None)))
        params |= {
            f'{part}/{path}': generator.standard_normal(leaf.shape, np.float32)
            for path, leaf in shapes.items()
        }
    return settings, rules.unflatten(params)


def slow_but(fast, names):
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


def used(layout):
    return {key for rule in layout.rules for key in rule.torch}


@pytest.mark.parametrize('name', NAMES)
def test_every_key_is_used_or_has_a_reason(name):
    keys, settings = listings()[name].keys(), single_files.config(name)
    layout = single_file.layout(settings, keys)
    assert used(layout) <= keys
    beside = keys - used(layout)
    assert [key for key in beside if not layout.ignored(key)] == []
    assert BESIDE.get(name, set()) <= beside
    # The exported keys are those that are used, but for those of the other home of SD 2.
    if name != 'sd2_sgm':
        assert used(single_file.layout(settings)) == used(layout)


@pytest.mark.parametrize('name', slow_but(FAST, NAMES))
def test_every_shape_is_the_model_s(name):
    listing, settings = listings()[name], single_files.config(name)
    shapes = {
        f'{part}/{path}': leaf.shape
        for part, model in build.parts(settings).items()
        for path, leaf in leaves(model).items()
    }
    for keys in (listing, None):  # for reading, and for the export
        layout = single_file.layout(settings, keys)
        assert {path for rule in layout.rules for path in rule.flax} == shapes.keys()
        for rule in layout.rules:
            arrays = rule.to_torch(tuple(blank(shapes[path]) for path in rule.flax))
            for key, array in zip(rule.torch, arrays, strict=True):
                assert key not in listing or array.shape == listing[key].shape, key


@pytest.mark.slow
@pytest.mark.parametrize('name', slow_but(FAST_NARROW, [name for name in NAMES if name != 'sd2_sgm']))
def test_what_is_exported_is_the_same_model(name):
    settings, params = narrow(name)
    tensors = apply_layout.export_params(single_file.layout(settings), params)
    if 'unclip' in name:  # the activation of a narrow image tower is not known
        with pytest.raises(ValueError, match='image tower 48 wide is not known'):
            identify(tensors)
        found = identify(tensors, model=settings)
    else:
        sidecar = {'model': {'params': {'scale_factor': single_files.SCALE}}} if 'churches' in name else None
        found = identify(tensors, prediction=settings.get('parameterization'), sidecar=sidecar)
    assert build.parts(found) == build.parts(settings)
    again = apply_layout.import_params(single_file.layout(found, tensors), tensors, params)
    exported = apply_layout.export_params(single_file.layout(found), again)
    assert exported.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(exported[key], tensor, err_msg=key)
        assert exported[key].shape == tensor.shape


def diffusers_names(part, model, settings):
    """The layout of a part's folder."""
    if part == 'unet':
        return diffusers_unet.layout(
            model, linear_projection=settings['models']['unet'].get('head_width') == 64
        )
    return (
        autoencoder.layout(model, 'diffusers') if part == 'first_stage' else transformers_clip.layout(model)
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['sd15', 'sd2_base', 'sdxl'])
def test_diffusers_reads_what_is_exported(name):
    torch = pytest.importorskip('torch')
    theirs = pytest.importorskip('diffusers.loaders.single_file_utils')
    settings, params = narrow(name)
    file = apply_layout.export_params(single_file.layout(settings), params)
    file = {key: torch.from_numpy(array.copy()) for key, array in file.items()}
    config = dict(layers_per_block=1, down_block_types=range(4), up_block_types=range(4))  # counts
    if name == 'sdxl':
        config['addition_embed_type'] = 'text_time'
    prefix = 'conditioner.embedders.1.model.' if name == 'sdxl' else 'cond_stage_model.model.'
    tower = types.SimpleNamespace(config=types.SimpleNamespace(hidden_size=64))
    converters = {
        'unet': lambda: theirs.convert_ldm_unet_checkpoint(dict(file), config),
        'first_stage': lambda: theirs.convert_ldm_vae_checkpoint(dict(file), config),
        'text_encoder': lambda: theirs.convert_ldm_clip_checkpoint(dict(file)),
        'text_encoder_2': lambda: theirs.convert_open_clip_checkpoint(tower, dict(file), prefix),
    }
    if name == 'sd2_base':
        converters['text_encoder'] = converters['text_encoder_2']
    for part, model in build.parts(settings).items():
        ours = apply_layout.export_params(diffusers_names(part, model, settings), params[part])
        converted = converters[part]()
        assert converted.keys() == ours.keys(), part
        for key, array in ours.items():
            np.testing.assert_array_equal(converted[key].numpy(), array, err_msg=key)


@pytest.mark.parametrize('name', [name for name in NAMES if name.startswith(('sd1', 'sdxl', 'sd2_', 'x4'))])
def test_diffusers_takes_what_is_exported_for_what_it_took_the_original(name):
    theirs = pytest.importorskip('diffusers.loaders.single_file_utils')
    listing = listings()[name]
    exported = {
        key: listing[key] for key in used(single_file.layout(single_files.config(name))) if key in listing
    }
    assert theirs.infer_diffusers_model_type(exported) == theirs.infer_diffusers_model_type(listing)


AVERAGED = [name for name in NAMES if 'model_ema.decay' in listings()[name]]


@pytest.mark.parametrize('name', AVERAGED)
def test_moving_averages_are_read_instead_of_the_u_net(name):
    keys, settings = listings()[name].keys(), single_files.config(name)
    assert single_file.ema(settings, keys) == 'complete'
    main, ema = (single_file.layout(settings, keys, weights) for weights in ('main', 'ema'))
    assert [rule.flax for rule in ema.rules] == [rule.flax for rule in main.rules]
    averages = {key for key in keys if key.startswith('model_ema.')} - {
        'model_ema.decay',
        'model_ema.num_updates',
    }
    assert {key for key in used(ema) if key.startswith('model_ema.')} == averages
    for key in averages:
        assert 'averages' in main.ignored(key)
    for key in used(main) - used(ema):
        assert 'last training step' in ema.ignored(key)
    # The same numbers, so a wrong pair of names would show.
    listing = listings()[name]
    for one, other in zip(main.rules, ema.rules, strict=True):
        assert [listing[key].shape for key in one.torch] == [listing[key].shape for key in other.torch]


def test_moving_averages_that_are_missing_are_an_error():
    settings, keys = single_files.config('sd15'), set(listings()['sd15'])
    left = keys - {'model_ema.diffusion_modelout2bias'}
    assert single_file.ema(settings, left) == 'partial'
    with pytest.raises(
        ValueError, match=r'whole unet; of \d+ tensors .* lacks 1, such as model_ema.*out2bias'
    ):
        single_file.layout(settings, left, 'ema')
    none = {key for key in keys if not key.startswith('model_ema.')}
    assert single_file.ema(settings, none) == 'none'
    with pytest.raises(ValueError, match="weights='main' reads what it has"):
        single_file.layout(settings, none, 'ema')
    with pytest.raises(ValueError, match="must be 'main' or 'ema'; got 'swa'"):
        single_file.layout(settings, keys, 'swa')


def test_a_first_stage_alone_may_have_averages_too():
    settings, keys = single_files.config('kl_f4'), set(listings()['kl_f4'])
    main = single_file.layout(settings, keys)
    averages = {f'model_ema.{key.replace(".", "")}': key for key in used(main)}
    ema = single_file.layout(settings, keys | averages.keys(), 'ema')
    assert [tuple(averages[key] for key in rule.torch) for rule in ema.rules] == [r.torch for r in main.rules]


@pytest.mark.parametrize('old', ['cond_stage_model.transformer.', 'vae.', ''])
def test_other_homes_of_the_same_parts(old):
    """Early SD 1 has no 'text_model.', some files have 'vae.', and a part alone has its keys bare."""
    listing = listings()['sd15']
    if old.startswith('cond'):
        keys = {key.replace('transformer.text_model.', 'transformer.') for key in listing}
        settings = single_files.config('sd15')
    elif old == 'vae.':
        keys = {key.replace('first_stage_model.', 'vae.') for key in listing}
        settings = single_files.config('sd15')
    else:
        keys = {key.removeprefix('model.diffusion_model.') for key in listing if key.startswith('model.diff')}
        settings = dict(models={'unet': single_files.config('sd15')['models']['unet']})
    layout = single_file.layout(settings, keys)
    assert [key for key in keys - used(layout) if not layout.ignored(key)] == []
    assert used(layout) <= keys


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('sd15', 'lvlb_weights'),
        ('sd15', 'logvar'),
        ('sd15', 'first_stage_model.loss.discriminator.main.0.weight'),
        ('sd15', 'cond_stage_model.transformer.text_projection.weight'),
        ('sd15', 'cond_stage_model.logit_scale'),
        ('sd15', 'first_stage_model.model_ema.decay'),
        ('sd2_base', 'cond_stage_model.model.attn_mask'),
        ('sd21_unclip_l', 'embedder.model.attn_mask'),
        ('sdxl', 'conditioner.embedders.0.logit_scale'),
        ('sdxl', 'v_pred'),
        ('vq_f4', 'model_ema.lossdiscriminatormain0weight'),
    ],
)
def test_keys_that_come_and_go_are_left_out(name, key):
    assert key not in listings()[name]
    keys = listings()[name].keys() | {key}
    layout = single_file.layout(single_files.config(name), keys)
    assert key not in used(layout)
    assert layout.ignored(key)


@pytest.mark.parametrize('key', ['model.diffusion_model.surprise', 'cond_stage_model.encoder.x', 'betas2'])
def test_no_pattern_takes_what_nobody_knows(key):
    assert single_file.layout(single_files.config('sd15'), listings()['sd15']).ignored(key) is None


def test_unknown_keys_and_missing_parts_are_errors():
    settings, params = narrow('kl_f4')
    tensors = apply_layout.export_params(single_file.layout(settings), params)
    strange = tensors | {'encoder.surprise': np.zeros(3)}
    with pytest.raises(ValueError, match='encoder.surprise unknown'):
        apply_layout.import_params(single_file.layout(settings, strange), strange, params)
    with pytest.raises(ValueError, match=r"holds \['first_stage'\]; it lacks \['text_encoder', 'unet'\]"):
        single_file.layout(single_files.config('sd15'), tensors)
