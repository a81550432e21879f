"""LoRAs by singular values: what is extracted, resized and merged is what it should be."""

import numpy as np
import pytest
import safetensors.numpy

from ldm_jax import trees
from ldm_jax.adapters import apply, blocks, commands, files, kinds, low_rank
from ldm_jax.checkpoints import loading, store
from ldm_jax.checkpoints.layouts import adapter_names

NORMAL = np.random.default_rng(0).standard_normal


def product(tensors, shape):
    return np.asarray(kinds.change('lora', tensors, np.zeros(shape, np.float32)))


@pytest.mark.parametrize('shape', [(12, 8), (6, 5, 3, 3)])
def test_factors_are_the_nearest_of_their_rank(shape):
    rows, columns = shape[0], int(np.prod(shape[1:]))
    difference = (NORMAL((rows, 3)) @ NORMAL((3, columns))).reshape(shape).astype(np.float32)
    np.testing.assert_allclose(product(low_rank.factors(difference, 3), shape), difference, atol=1e-4)
    values = np.linalg.svd(difference.reshape(rows, -1), compute_uv=False)
    lost = product(low_rank.factors(difference, 2), shape) - difference
    np.testing.assert_allclose(np.sum(lost**2), np.sum(values[2:] ** 2), rtol=1e-3)
    share = values[0] ** 2 / np.sum(values**2)
    assert low_rank.factors(difference, energy=share * 0.99)['alpha'] == 1
    assert low_rank.factors(difference, energy=share * 1.01)['alpha'] == 2


def test_a_clamp_is_that_of_kohyas_script():
    difference, rank = NORMAL((16, 12)).astype(np.float32), 5
    left, values, right = np.linalg.svd(difference, full_matrices=False)
    up, down = left[:, :rank] @ np.diag(values[:rank]), right[:rank]
    most = np.quantile(np.concatenate([up.flatten(), down.flatten()]), 0.99)
    found = low_rank.factors(difference, rank, clamp=0.99)
    np.testing.assert_allclose(found['lora_up'], np.clip(up, -most, most), atol=1e-5)
    np.testing.assert_allclose(found['lora_down'], np.clip(down, -most, most), atol=1e-5)


@pytest.fixture(scope='module')
def model():
    return loading.load('emoji32', ['unet', 'text_encoder'])


@pytest.fixture(scope='module')
def paths(model, tmp_path_factory):
    """Two LoRAs of rank 2 for emoji32, one with convolutions."""
    root, found = tmp_path_factory.mktemp('low_rank'), []
    for i, words in enumerate((('attn1.to_q', 'self_attn.v'), ('attn1.to_q', 'resnets.0.conv1'))):
        tensors = {}
        for (part, name), layer in adapter_names.layers(model.parts).items():
            if any(word in name for word in words):
                o, j, *window = apply.torch_shape(
                    trees.named(model.params[part])[f'{layer.path}/kernel'].shape
                )
                stem = ('lora_unet_' if part == 'unet' else 'lora_te_') + name.replace('.', '_')
                tensors |= {
                    f'{stem}.lora_up.weight': 0.1 * NORMAL((o, 2, *(1,) * len(window))),
                    f'{stem}.lora_down.weight': NORMAL((2, j, *window)) / 3,
                    f'{stem}.alpha': np.ones(()),
                }
        path = root / f'{i}.safetensors'
        safetensors.numpy.save_file({key: np.asarray(a, np.float32) for key, a in tensors.items()}, path)
        found.append(str(path))
    return found


def alike(ours, theirs, most=2e-5):
    for part, tree in ours.items():
        other = trees.named(theirs[part])
        for path, leaf in trees.named(tree).items():
            np.testing.assert_allclose(np.asarray(leaf), np.asarray(other[path]), atol=most, err_msg=path)


@pytest.mark.slow
def test_several_merged_into_one_are_what_they_are_together(model, paths):
    used = [
        (files.read(path, model.parts), blocks.strength(s))
        for path, s in zip(paths, (0.5, -0.8), strict=True)
    ]
    one = low_rank.merged('both', used)
    assert {len(change.tensors['lora_down']) for change in one.changes.values()} == {2, 4}
    together = apply.merged(model.params, used)
    alike(apply.merged(model.params, [(one, blocks.strength(1.0))]), together)
    short = low_rank.merged('both', used, rank=4)
    alike(apply.merged(model.params, [(short, blocks.strength(1.0))]), together)
    again = low_rank.resized(one, rank=4)
    alike(apply.merged(model.params, [(again, blocks.strength(1.0))]), together)
    with pytest.raises(ValueError, match='All strengths are 0'):
        low_rank.merged('none', [(used[0][0], blocks.strength(0.0))])


def options(**given):
    return (
        dict(model='emoji32', to='kohya', rank=None, conv_rank=None, energy=None, dtype=None, clamp=None)
        | given
    )


@pytest.mark.slow
def test_the_tool_goes_from_files_to_files_and_back(model, paths, tmp_path):
    def run(command, *words, **given):
        return list(commands.run(command, [str(word) for word in words], options(**given)))

    both, baked, back = tmp_path / 'both.safetensors', tmp_path / 'baked', tmp_path / 'back.safetensors'
    run('merge', f'{paths[0]}:0.5', f'{paths[1]}:0.8', both)
    lines = run('bake', both, baked)
    assert lines == [f'model written to {baked}']
    used = [
        (files.read(path, model.parts), blocks.strength(s)) for path, s in zip(paths, (0.5, 0.8), strict=True)
    ]
    expected = apply.merged(model.params, used)
    alike(loading.load(str(baked), ['unet', 'text_encoder']).params, expected)
    assert store.open_model(str(baked)).settings == store.open_model(loading.resolve('emoji32')).settings
    share, _ = run('extract', baked, back, rank=4, conv_rank=4)
    assert float(share.partition('%')[0]) > 99
    run('convert', both, tmp_path / 'folder', to='diffusers')
    again = files.read(files.locate(str(tmp_path / 'folder')), model.parts)
    alike(apply.merged(model.params, [(again, blocks.strength(1.0))]), expected)
    run('resize', both, tmp_path / 'small.safetensors', rank=1, dtype='float16')
    rows = run('list', tmp_path)
    assert rows[0].startswith('name')
    assert any(row.startswith('small  ') and '  1  ' in row for row in rows)
    with pytest.raises(ValueError, match='The two models have the same weights'):
        run('extract', 'emoji32', back, rank=4)
