"""LoRAs in every grammar that diffusers reads: what it fuses is what is merged here."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from ldm_jax import trees
from ldm_jax.adapters import apply, blocks, files
from ldm_jax.checkpoints.layouts import adapter_names
from tests.adapters import tiny
from tests.tiers import fast

SGM = {'sdxl': ['conv_in', 'mid_block.resnets.0.conv1', 'up_blocks.0.attentions.0.proj_in']}


def attention(name):
    return ('attentions' in name and '.to_' in name) or 'self_attn' in name


def chosen(family, which=attention, rank=2):
    """(part, layer's name) -> (up, down)."""
    return {
        (part, name): tiny.lora(shape, rank, seed=i)
        for part in tiny.MODELS[family]
        for i, (name, shape) in enumerate(tiny.named_layers(family, part).items())
        if which(name)
    }


def now(family, factors, alpha):
    """As diffusers writes it today, by the names of the installed transformers; alpha stands in the header alone."""
    found, config = {}, {}
    towers = tiny.torch_models(family)['text_encoder'].named_modules()
    whole = any(name == 'text_model' for name, _ in towers)
    for (part, name), (up, down) in factors.items():
        name = name if part != 'text_encoder' or whole else name.removeprefix('text_model.')
        found |= {f'{part}.{name}.lora_A.weight': down, f'{part}.{name}.lora_B.weight': up}
        config |= {f'{part}.r': 2, f'{part}.lora_alpha': alpha}
        config |= {f'{part}.rank_pattern': {}, f'{part}.alpha_pattern': {}}
        config.setdefault(f'{part}.target_modules', []).append(name)
    return found, {'lora_adapter_metadata': json.dumps(config)}


def second(family, factors, alpha):
    found = {}
    for (part, name), (up, down) in factors.items():
        middle = 'lora' if part == 'unet' else 'lora_linear_layer'
        found |= {f'{part}.{name}.{middle}.down.weight': down, f'{part}.{name}.{middle}.up.weight': up}
    return found, {}


def first(family, factors, alpha):
    found = {}
    for (part, name), (up, down) in factors.items():
        if part == 'unet':
            head, _, last = name.removesuffix('.0').rpartition('.')
            stem = f'{part}.{head}.processor.{last}_lora'
        else:
            head, _, last = name.rpartition('.')
            stem = f'{part}.{head}.to_{last.removesuffix("_proj")}_lora'
        found |= {f'{stem}.down.weight': down, f'{stem}.up.weight': up}
    return found, {}


def kohya(family, factors, alpha, rename=lambda name: name):
    prefixes = dict(unet='lora_unet_', text_encoder='lora_te1_' if family == 'sdxl' else 'lora_te_',
                    text_encoder_2='lora_te2_')  # fmt: skip
    found = {}
    for (part, name), (up, down) in factors.items():
        stem = prefixes[part] + (rename(name) if part == 'unet' else name).replace('.', '_')
        found |= {f'{stem}.lora_down.weight': down, f'{stem}.lora_up.weight': up,
                  f'{stem}.alpha': np.float32(alpha)}  # fmt: skip
    return found, {'ss_base_model_version': 'x'}


GRAMMARS = dict(now=now, second=second, first=first, kohya=kohya)


def write(path, tensors, metadata):
    safetensors.numpy.save_file(
        {key: np.ascontiguousarray(array) for key, array in tensors.items()}, path, metadata
    )


def assert_alike(ours, theirs, base, most=1e-6):
    """Parameters are alike; those that changed do so by more than their distance."""
    ours, theirs, base = (trees.named(tree) for tree in (ours, theirs, base))
    assert ours.keys() == theirs.keys()
    moved = 0
    for path, leaf in ours.items():
        scale = np.abs(theirs[path]).max()
        assert np.abs(leaf - theirs[path]).max() <= most * scale, path
        moved += not np.array_equal(theirs[path], base[path])
    return moved


def check(family, path, factors, strength):
    """What diffusers fuses is what is merged here, and as many layers change as there are factors."""
    pipe = tiny.pipeline(family)
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    parts = [part for part in tiny.MODELS[family]]
    pipe.fuse_lora(components=parts, lora_scale=strength)
    pipe.unload_lora_weights()
    theirs = tiny.params_of(family, {part: getattr(pipe, part) for part in parts})
    base = tiny.params_of(family, tiny.torch_models(family))
    adapter = files.read(path, tiny.models(family))
    ours = apply.merged(base, [(adapter, blocks.strength(strength))])
    moved = assert_alike(ours, theirs, base)
    assert moved == len(adapter.changes) == len(factors)
    assert not adapter.ignored


@pytest.mark.parametrize('grammar', fast(1, GRAMMARS))
def test_every_grammar_that_diffusers_reads_gives_its_weights(grammar, tmp_path):
    for family in ('sd1', 'sdxl') if grammar in ('now', 'kohya') else ('sd1',):
        factors = chosen(family)
        alpha = 1.0 if grammar in ('now', 'kohya') else 2.0
        write(tmp_path / f'{family}.safetensors', *GRAMMARS[grammar](family, factors, alpha))
        check(family, tmp_path / f'{family}.safetensors', factors, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize('family', tiny.MODELS)
def test_convolutions_and_strengths_are_those_of_diffusers(family, tmp_path):
    path = tmp_path / 'all.safetensors'
    factors = chosen(family, lambda name: name.startswith(('down', 'mid', 'up', 'text')))
    write(path, *now(family, factors, 1.0))
    for strength in (0.5, -1.0, 2.0):
        check(family, path, factors, strength)


def test_a_strength_of_zero_is_the_model_itself_and_a_merge_leaves_it_as_it_was(tmp_path):
    base = tiny.params_of('sd1', tiny.torch_models('sd1'))
    kept = jax.tree.map(np.copy, base)
    write(tmp_path / 'a.safetensors', *kohya('sd1', chosen('sd1'), 1.0))
    adapter = files.read(tmp_path / 'a.safetensors', tiny.models('sd1'))
    apply.merged(base, [(adapter, blocks.strength(0.7))])
    same = apply.merged(base, [(adapter, blocks.strength(0.0))])
    for tree in (base, same):
        assert all(
            np.array_equal(a, b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(kept), strict=True)
        )


def test_sgm_names_are_the_same_layers_as_those_of_diffusers(tmp_path):
    layers = adapter_names.layers(tiny.models('sdxl'))
    originals = {layer.name: layer.original for layer in layers.values() if layer.part == 'unet'}
    assert originals['down_blocks.0.resnets.0.conv1'] == 'input_blocks.1.0.in_layers.2'
    assert originals['up_blocks.0.upsamplers.0.conv'] == 'output_blocks.1.2.conv'
    assert originals['mid_block.attentions.0.transformer_blocks.1.ff.net.0.proj'] == (
        'middle_block.1.transformer_blocks.1.ff.net.0.proj'
    )
    factors = chosen('sdxl', lambda name: not name.startswith('add_embedding'))
    write(tmp_path / 'diffusers.safetensors', *kohya('sdxl', factors, 1.0))
    write(tmp_path / 'sgm.safetensors', *kohya('sdxl', factors, 1.0, originals.get))
    one, other = (
        files.read(tmp_path / f'{n}.safetensors', tiny.models('sdxl')) for n in ('diffusers', 'sgm')
    )
    assert one.changes.keys() == other.changes.keys()
    assert len(one.changes) == len(factors)
    for layer, change in one.changes.items():
        assert all(np.array_equal(a, other.changes[layer].tensors[n]) for n, a in change.tensors.items())
