"""Adapters' files: which layers they change, what is refused, and real ones."""

import io
import json
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import configs
from ldm_jax import build, trees
from ldm_jax.adapters import apply, blocks, files, folder
from ldm_jax.checkpoints.layouts import adapter_names
from tests.adapters import tiny
from tests.adapters.test_diffusers import chosen, kohya, write
from tests.shared_data import shared
from tests.tiers import fast


def published(name):
    return build.parts(configs.load(name))


def names(layers, part, *, convolutions):
    """The layers that kohya's trainer takes: linear ones of transformers, or those of residual blocks too."""
    kept = 'down_blocks', 'up_blocks', 'mid_block'
    found = []
    for (where, name), layer in layers.items():
        linear = '.attentions.' in name and layer.leaf == 'kernel'
        other = where == 'unet' and name.startswith(kept) and layer.leaf == 'kernel'
        text = '.layers.' in name and layer.leaf == 'kernel'
        if where == part and (text if part != 'unet' else other if convolutions else linear):
            found.append(name)
    return found


@pytest.mark.parametrize(
    ('name', 'linear', 'all_layers', 'text'),
    [('sd15', 192, 278, (72,)), ('sd2_base', 192, 278, (138,)), ('sdxl', 722, 788, (72, 192))],
)
def test_layers_are_as_many_as_kohya_has_of_them(name, linear, all_layers, text):
    layers = adapter_names.layers(published(name))
    assert len(names(layers, 'unet', convolutions=False)) == linear
    assert len(names(layers, 'unet', convolutions=True)) == all_layers
    parts = ('text_encoder', 'text_encoder_2')
    assert (
        tuple(len(names(layers, part, convolutions=False)) for part in parts if part in published(name))
        == text
    )
    table = adapter_names.spellings(layers.values())
    kohya_names = [key for key in table if key.startswith('lora_')]
    spelled = {(layer, name) for name, layer in table.items() if name.startswith('lora_')}
    assert len(spelled) == len(kohya_names)  # no spelling stands for two layers
    assert len({name.replace('.', '_') for part, name in layers if part == 'unet'}) == sum(
        part == 'unet' for part, _ in layers
    )


def test_every_spelling_of_comfyui_peft_and_lycoris_is_the_same_adapter(tmp_path):
    factors = chosen('sd1')
    layers = adapter_names.layers(tiny.models('sd1'))
    rows = {
        'comfyui': lambda part, name: (
            f'diffusion_model.{layers[part, name].original}'
            if part == 'unet'
            else f'text_encoders.clip_l.transformer.{name}'
        ),
        'peft': lambda part, name: f'base_model.model.{name}',
        'bare': lambda part, name: name,
        'lycoris': lambda part, name: (f'lycoris_{name}' if part == 'unet' else f'lora_te1_{name}').replace(
            '.', '_'
        ),
    }
    for row, stem in rows.items():
        tensors = {}
        for (part, name), (up, down) in factors.items():
            a, b = ('lora_A', 'lora_B') if row != 'lycoris' else ('lora_down', 'lora_up')
            tensors |= {f'{stem(part, name)}.{a}.weight': down, f'{stem(part, name)}.{b}.weight': up}
        write(tmp_path / 'a.safetensors', tensors, {})
        adapter = files.read(tmp_path / 'a.safetensors', tiny.models('sd1'))
        assert {(layer.part, layer.name) for layer in adapter.changes} == factors.keys(), row
        for layer, change in adapter.changes.items():
            up, down = factors[layer.part, layer.name]
            assert np.array_equal(change.tensors['lora_up'], up)
            assert np.array_equal(change.tensors['lora_down'], down)


def edited(change):
    """A kohya file of sd1 whose tensors a function changes in place, and its model."""

    def make(path):
        tensors, metadata = kohya('sd1', chosen('sd1'), 1.0)
        tensors = {key: np.array(array) for key, array in tensors.items()}
        change(tensors)
        write(path, tensors, metadata)
        return 'sd1'

    return make


def other_family(path):
    write(path, *kohya('sdxl', chosen('sdxl'), 1.0))
    return 'sd1'


def narrower(path):
    tensors, metadata = kohya('sd1', chosen('sd1'), 1.0)
    key = next(key for key in tensors if 'attn2_to_k.lora_down' in key)
    tensors[key] = tensors[key][:, :-1]
    write(path, tensors, metadata)
    return 'sd1'


def renamed(tensors):
    key = next(iter(tensors))
    tensors[f'{key}_old'] = tensors.pop(key)


def not_a_number(tensors):
    next(iter(tensors.values())).flat[0] = np.nan


def integers(tensors):
    key = next(iter(tensors))
    tensors[key] = tensors[key].astype(np.int32)


def twice(tensors):
    key = next(key for key in tensors if key.endswith('lora_up.weight'))
    tensors[key.replace('lora_up', 'lora_B')] = tensors[key]


def half(tensors):
    del tensors[next(key for key in tensors if key.endswith('lora_up.weight'))]


def garbage(path):
    path.write_bytes(b'\x00' * 64)
    return 'sd1'


def billion(path):
    header = json.dumps(
        {'lora_unet_x.lora_up.weight': dict(dtype='F32', shape=[10**9, 10**9], data_offsets=[0, 4])}
    )
    path.write_bytes(len(header).to_bytes(8, 'little') + header.encode() + bytes(4))
    return 'sd1'


def pickled(path):
    body = b'\x80\x02}X\x01\x00\x00\x00acos\nsystem\nVecho harm\n\x85Rs.'
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as file:
        file.writestr('archive/data.pkl', body)
    path.write_bytes(data.getvalue())
    return 'sd1'


def empty(path):
    safetensors.numpy.save_file({}, path)
    return 'sd1'


def whole_model(path):
    safetensors.numpy.save_file(
        {'model.diffusion_model.input_blocks.0.0.weight': np.zeros((4, 4, 3, 3), 'f')}, path
    )
    return 'sd1'


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (other_family, r'a\.safetensors is an adapter for SDXL; this model reads other texts'),
        (narrower, r'a\.safetensors reads contexts \[11, 12\] wide, and this model 12'),
        (edited(renamed), r'changes layers that this model does not have: lora_unet_\w+\.\w+\.weight_old'),
        (edited(not_a_number), 'values that are NaN or infinite'),
        (edited(integers), 'is int32; adapters are of floating-point numbers'),
        (edited(twice), 'name the same tensor'),
        (edited(half), r"no kind of adapter has the tensors \['alpha', 'lora_down'\]"),
        (garbage, 'of an unknown kind'),
        (billion, r'a\.safetensors'),
        (pickled, 'os.system'),
        (empty, 'has no layer of this model'),
        (whole_model, 'a whole model: give it as --model'),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_clear_error(make, message, tmp_path):
    family = make(tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match=message) as error:
        files.read(tmp_path / 'a.safetensors', tiny.models(family))
    assert '\n' not in str(error.value)


def test_an_adapter_of_other_widths_is_refused_before_anything_is_merged(tmp_path):
    tensors, metadata = kohya('sd1', chosen('sd1'), 1.0)
    last = [key for key in tensors if key.endswith('lora_up.weight')][-1]
    tensors[last] = tensors[last][:-1]
    write(tmp_path / 'a.safetensors', tensors, metadata)
    adapter = files.read(tmp_path / 'a.safetensors', tiny.models('sd1'))
    params = {part: trees.shapes(model) for part, model in tiny.models('sd1').items()}
    with pytest.raises(
        ValueError, match=r'a: of text_encoder .* do not fit a weight .* made for another model'
    ):
        apply.merged(params, [(adapter, blocks.strength(1.0))])


def test_a_hash_is_of_the_tensors_alone_and_finds_a_file_that_was_renamed(tmp_path):
    (tmp_path / 'sub').mkdir()
    tensors, metadata = kohya('sd1', chosen('sd1'), 1.0)
    write(tmp_path / 'a.safetensors', tensors, metadata)
    write(tmp_path / 'sub' / 'b.safetensors', tensors, {'edited': 'afterwards'})
    digest = files.file_hash(tmp_path / 'a.safetensors')
    assert digest == files.file_hash(tmp_path / 'sub' / 'b.safetensors')
    assert folder.find('b', str(tmp_path)).name == 'b.safetensors'
    (tmp_path / 'a.safetensors').unlink()
    assert folder.find('a', str(tmp_path), {'a': digest[:12]}).name == 'b.safetensors'
    with pytest.raises(FileNotFoundError, match="No adapter 'bb'; have .* Did you mean 'b'"):
        folder.find('bb', str(tmp_path))
    (tmp_path / 'b.safetensors').write_bytes(b'')
    with pytest.raises(ValueError, match="has several adapters 'b'"):
        folder.find('b', str(tmp_path))


def test_blocks_are_the_original_ones_and_lists_have_known_lengths():
    layers = adapter_names.layers(published('sd15')).values()
    have = {blocks.block_of(layer) for layer in layers}
    assert have == set(blocks.LISTS[26])
    attention = {blocks.block_of(layer) for layer in layers if '.attn2.' in layer.name} | {'BASE'}
    assert attention == set(blocks.LISTS[17])
    attention = {
        blocks.block_of(layer)
        for layer in adapter_names.layers(published('sdxl')).values()
        if '.attn2.' in layer.name
    }
    assert attention | {'BASE'} == set(blocks.LISTS[12])
    weighed = blocks.Strength(0.5, 1.0, blocks.block_weights([2.0] + [0.0] * 25))
    assert {weighed.of(layer) for layer in layers} == {0.0, 2.0}
    with pytest.raises(ValueError, match=r'Block weights are \[12, 17, 20, 26\] numbers; got 3'):
        blocks.block_weights([1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'layers', 'words'),
    fast(
        1,
        [
            ('lora_cloneofsimo_rank1_with_tokens.safetensors', 192, ['<s1>', '<s2>']),
            ('lora_cloneofsimo_analog_rank4.safetensors', 192, []),
            ('lora_diffusers_attnproc_rank4.safetensors', 128, []),
            ('lora_diffusers_attnproc_rank4.bin', 128, []),
        ],
    ),
)
def test_real_files_are_read_whole_and_refused_for_other_models(name, layers, words):
    path = shared(f'weights/{name}')
    adapter = files.read(path, published('sd15'))
    assert len(adapter.changes) == layers
    assert list(adapter.words) == words
    assert not adapter.ignored
    shapes = {part: trees.shapes(model) for part, model in published('sd15').items() if part != 'first_stage'}
    leaves = {
        f'{part}/{path}': leaf for part, tree in shapes.items() for path, leaf in trees.named(tree).items()
    }
    for layer, change in adapter.changes.items():
        apply.check(adapter, layer, change, leaves)
    for family in ('sd2_base', 'sdxl'):
        with pytest.raises(ValueError, match='is an adapter for Stable Diffusion 1; this model is of S'):
            files.read(path, published(family))
