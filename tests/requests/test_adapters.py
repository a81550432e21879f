"""Adapters that a request names: tags, flags, the text of images, and images from file to file."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from ldm_jax import trees
from ldm_jax.adapters import apply, blocks, files
from ldm_jax.checkpoints import loading
from ldm_jax.checkpoints.layouts import adapter_names
from ldm_jax.inference.opening import open_pipeline
from ldm_jax.requests import adapters, png_settings
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.request import Request


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a LoRA for emoji32 in a folder of it, and one for fewer steps."""
    root = tmp_path_factory.mktemp('adapters')
    model = loading.load('emoji32', ['unet', 'text_encoder'])
    normal, tensors = np.random.default_rng(0).standard_normal, {}
    for (part, name), layer in adapter_names.layers(model.parts).items():
        if '.to_q' in name or 'self_attn.v' in name:
            i, o = trees.named(model.params[part])[f'{layer.path}/{layer.leaf}'].shape
            stem = ('lora_unet_' if part == 'unet' else 'lora_te_') + name.replace('.', '_')
            tensors |= {f'{stem}.lora_up.weight': 0.1 * normal((o, 2)).astype('f')}
            tensors |= {
                f'{stem}.lora_down.weight': normal((2, i)).astype('f'),
                f'{stem}.alpha': np.full((), 2, 'f'),
            }
    (root / 'sub').mkdir()
    safetensors.numpy.save_file(tensors, root / 'sub' / 'style.safetensors')
    safetensors.numpy.save_file(tensors, root / 'My-LCM-6steps.safetensors')
    return root


def pixels(report, i=0):
    return np.asarray(Image.open(report['images'][i]['path']))


@pytest.mark.parametrize(
    ('word', 'unet', 'text', 'rank'),
    [
        ('style', 1.0, 1.0, None),
        ('style:0.8', 0.8, 0.8, None),
        ('style:0.5:0.9', 0.9, 0.5, None),
        ('style:te=0.5:unet=-1', -1.0, 0.5, None),
        ('style:1:1:8', 1.0, 1.0, 8),
    ],
)
def test_words_and_tags_say_the_same_both_ways(word, unet, text, rank):
    (found,) = adapters.named([word])
    assert found.strength == blocks.Strength(unet, text)
    assert found.lora.rank == rank
    request, tagged = adapters.split(Request(prompts=(f'a <lora:{word}> red apple',)))
    assert (request.prompts, tagged) == (('a  red apple',), [found])
    assert adapters.split(Request(prompts=(found.tag,)))[1] == [found]


def test_other_tags_stay_and_prompts_with_other_adapters_are_refused():
    request, found = adapters.split(Request(prompts=('a <hypernet:x:1> <lora:style:1>',)))
    assert [each.lora.name for each in found] == ['style']
    assert '<hypernet:x:1>' in request.prompts[0]
    with pytest.raises(ValueError, match='All prompts of a call share its adapters'):
        adapters.split(Request(prompts=('a <lora:style:1>', 'a <lora:style:0.5>')))
    with pytest.raises(ValueError, match="'x' in the tag <lora:style:x> is not"):
        adapters.named(['style:x'])
    with pytest.raises(ValueError, match='Block weights are'):
        adapters.named(['style:1:lbw=1,2'])
    (found,) = adapters.named(['style:1:lbw=' + ','.join(['0.5'] * 17)])
    assert adapters.split(Request(prompts=(found.tag,)))[1] == [found]


@pytest.mark.slow
def test_an_image_of_an_adapter_is_made_again_from_its_text(folder, sample, tmp_path):
    common = dict(prompt='a red apple, noto style', num_images=1, num_steps=3, adapters=folder)
    plain = sample(out=tmp_path / 'plain', **common)
    off = sample(out=tmp_path / 'off', lora='style:0', **common)
    on = sample(out=tmp_path / 'on', lora='style:0.7', **common)
    tagged = sample(out=tmp_path / 'tag', **common | dict(prompt='a red apple, noto style<lora:style:0.7>'))
    again = sample(out=tmp_path / 'again', from_png=on['images'][0]['path'], adapters=folder)
    assert np.array_equal(pixels(plain), pixels(off))
    assert not np.array_equal(pixels(plain), pixels(on))
    assert np.array_equal(pixels(on), pixels(tagged))
    assert np.array_equal(pixels(on), pixels(again))
    text = on['images'][0]['parameters']
    digest = files.file_hash(folder / 'sub' / 'style.safetensors')[:12]
    assert text.startswith('a red apple, noto style <lora:style:0.7>\n')
    assert f'Lora hashes: "style: {digest}"' in text
    assert again['images'][0]['parameters'] == text
    renamed = text.replace('<lora:style:', '<lora:old name:').replace('"style: ', '"old name: ')
    options = png_settings.read_options(png_settings.infotext.read(renamed))
    ((path, _),) = adapters.find(
        adapters.named(['old name']), ModelOptions(adapters=str(folder), lora_hashes=options['lora_hashes'])
    )
    assert path.endswith('.safetensors')


def test_an_adapter_of_few_steps_sets_what_the_request_leaves_open(folder):
    wanted = adapters.named(['My-LCM-6steps'])
    with pytest.warns(UserWarning, match='My-LCM-6steps is made for few steps'):
        request = adapters.suited(Request(prompts=('a',)), wanted)
    sampling = request.sampling
    assert (sampling.sampler, sampling.num_steps, sampling.guidance.scale) == ('lcm', 6, 1.5)
    given = Request(prompts=('a',), sampling=type(sampling)(num_steps=8))
    with pytest.warns(UserWarning, match='--sampler lcm'):
        assert adapters.suited(given, wanted).sampling.num_steps == 8


def test_a_name_that_is_not_there_is_one_line_with_the_nearest(folder, sample, tmp_path):
    error = sample(fails=True, prompt='a', lora='styl', adapters=folder, out=tmp_path)
    assert "No adapter 'styl'" in str(error)
    assert "Did you mean 'style'?" in str(error)


def test_a_merge_compiles_nothing_new_and_keeps_shards(folder):
    path = str(folder / 'sub' / 'style.safetensors')
    plain = open_pipeline('emoji32')
    adapted = open_pipeline('emoji32', adapters=[(path, 0.7)])
    assert adapted.programs is plain.programs  # the programs are the model's, whatever its parameters
    before, after = trees.named(plain.params['unet']), trees.named(adapted.params['unet'])
    assert all(after[name].sharding == leaf.sharding for name, leaf in before.items())
    mesh = jax.make_mesh((8,), ('fsdp',), axis_types=(jax.sharding.AxisType.Auto,))

    def cut(leaf):
        axes = [None] * leaf.ndim
        if leaf.ndim == 2 and leaf.shape[-1] % 8 == 0:
            axes[-1] = 'fsdp'
        return jax.device_put(
            np.asarray(leaf), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        )

    sharded = jax.tree.map(cut, dict(plain.params))
    adapter = files.read(path, {part: getattr(plain.parts, part) for part in ('unet', 'text_encoder')})
    merged = apply.merged(sharded, [(adapter, blocks.strength(0.7))])
    for name, leaf in trees.named(merged['unet']).items():
        assert leaf.sharding == trees.named(sharded['unet'])[name].sharding
        np.testing.assert_allclose(np.asarray(leaf), np.asarray(after[name]), atol=1e-6)
