"""The U-Net's layouts: every key and shape of every published model at full size, without its weights.

How the listings of the original code were made is said in tests/models/fixtures/README_unet.md.
"""

from pathlib import Path

import numpy as np
import pytest

import configs
from ldm_jax import build, trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import compvis_unet, diffusers_unet, rules
from ldm_jax.models import unet

LISTINGS = np.load(Path(__file__).parents[1] / 'models' / 'fixtures' / 'unet_keys.npz')

# Tracing a network for its shapes takes seconds; the keys alone are compared for all.
FAST = ('sd15', 'ldm_lsun_churches256')

# Settings of the layout in diffusers' naming, and of diffusers' own converter of single files.
CONVERTIBLE = {
    'sd15': (dict(), dict()),
    'sd2_base': (dict(linear_projection=True), dict()),
    'sd2_depth': (dict(linear_projection=True), dict()),
    'sd21_unclip_h': (
        dict(linear_projection=True, vector_key='class_embedding'),
        dict(class_embed_type='projection'),
    ),
    'x4_upscaler': (dict(linear_projection=True), dict(num_class_embeds=1000)),
    'sdxl': (dict(linear_projection=True), dict(addition_embed_type='text_time')),
    'sdxl_refiner': (dict(linear_projection=True), dict(addition_embed_type='text_time')),
}


def original(name):
    """Key -> shape in the original code's state dict."""
    rows = (line.split() for line in bytes(LISTINGS[name]).decode().splitlines())
    return {key: tuple(map(int, shape)) for key, *shape in rows}


def published(name):
    """The U-Net of a config."""
    return build.build('models', configs.load(name).models.unet)


def is_linear(listing):
    """Whether transformers project by matrices rather than by convolutions."""
    return any(key.endswith('proj_in.weight') and len(shape) == 2 for key, shape in listing.items())


def torch_shapes(layout, shapes):
    """Key -> shape that an export would have; arrays of stride 0 stand in for the parameters."""
    leaves = trees.named(shapes)
    assert {path for rule in layout.rules for path in rule.flax} == leaves.keys()
    found = {}
    for rule in layout.rules:
        blanks = tuple(np.broadcast_to(np.int8(0), leaves[path].shape) for path in rule.flax)
        arrays = rule.to_torch(blanks)
        found |= {key: array.shape for key, array in zip(rule.torch, arrays, strict=True)}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in LISTINGS.files]
)
def test_compvis_layout_has_the_original_keys_and_shapes(name):
    model, listing = published(name), original(name)
    layout = compvis_unet.layout(model, is_linear(listing))
    assert torch_shapes(layout, trees.shapes(model, size=model.downscale)) == listing


@pytest.mark.parametrize('name', LISTINGS.files)
def test_compvis_layout_has_the_original_keys(name):
    layout = compvis_unet.layout(published(name))
    assert {key for rule in layout.rules for key in rule.torch} == original(name).keys()


@pytest.mark.parametrize('name', CONVERTIBLE)
def test_both_layouts_agree_with_the_conversion_of_diffusers(name):
    single_file = pytest.importorskip('diffusers.loaders.single_file_utils')
    settings, config = CONVERTIBLE[name]
    model, listing = published(name), original(name)
    # Every tensor holds one number of its own: the rules look at axes, not at how long they are.
    tensors = {key: np.full((1,) * len(shape), i) for i, (key, shape) in enumerate(listing.items())}
    leaves = {}
    for rule in compvis_unet.layout(model, is_linear(listing)).rules:
        outputs = rule.to_flax(tuple(tensors[key] for key in rule.torch))
        leaves |= dict(zip(rule.flax, outputs, strict=True))
    ours = apply_layout.export_params(diffusers_unet.layout(model, **settings), rules.unflatten(leaves))

    prefixed = {f'model.diffusion_model.{key}': array for key, array in tensors.items()}
    theirs = single_file.convert_ldm_unet_checkpoint(prefixed, dict(config, layers_per_block=2))
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        assert array.shape == theirs[key].shape, key
        assert array.item() == theirs[key].item(), key


def test_old_names_of_plain_self_attention_are_those_that_diffusers_renames():
    diffusers = pytest.importorskip('diffusers')
    model = unet.Model(
        channels=16, channel_mult=(1, 2), num_res_blocks=1, depth=(0, 1), num_groups=4, head_width=8
    )
    net = diffusers.UNet2DModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=('DownBlock2D', 'AttnDownBlock2D'),
        up_block_types=('AttnUpBlock2D', 'UpBlock2D'),
    )
    old, new = (
        {
            key: rule.flax
            for rule in diffusers_unet.layout(model, old_attention=flag).rules
            for key in rule.torch
        }
        for flag in (True, False)
    )
    assert old.keys() != new.keys() == net.state_dict().keys()
    assert net._fix_state_dict_keys_on_load(dict(old)) == new
