"""What files hold beside a model: known groups are left out with a reason, others on request, the rest is refused."""

import numpy as np
import pytest
import safetensors.numpy

from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.choice import Choice
from ldm_jax.checkpoints.convert import convert
from tests.checkpoints.test_convert import public_file

ONE = np.ones((2, 3), np.float32)
TEXT = 'cond_stage_model.transformer.'
GROUPS = {
    'embedding_manager.': (['string_to_param_dict.*', 'initial_embeddings.*'], 'textual inversion'),
    'safety_checker.': (
        ['vision_model.embeddings.class_embedding', 'concept_embeds'],
        'classifier of what to hide',
    ),
    f'{TEXT}': (['embeddings.token_embedding.weight', 'encoder.layers.0.mlp.fc1.bias'], 'old names'),
}


@pytest.fixture(scope='module')
def sd15(tmp_path_factory):
    return public_file('sd15', tmp_path_factory.mktemp('sd15') / 'sd15.safetensors')


def saved(sd15, path, more):
    tensors = sd15[1] | more
    safetensors.numpy.save_file({key: np.array(array, order='C') for key, array in tensors.items()}, path)
    return str(path)


@pytest.mark.parametrize(
    ('group', 'parts'),
    [
        pytest.param('embedding_manager.', None, marks=pytest.mark.slow),
        ('safety_checker.', ('unet',)),
        pytest.param(TEXT, ('vae',), marks=pytest.mark.slow),
        pytest.param('safety_checker.', None, marks=pytest.mark.slow),
        pytest.param(TEXT, None, marks=pytest.mark.slow),
    ],
)
def test_known_groups_are_left_out_with_a_reason(sd15, tmp_path, group, parts):
    keys, reason = GROUPS[group]
    more = {group + key: ONE for key in keys}
    source = saved(sd15, tmp_path / 'file.safetensors', more)
    report = convert(source, str(tmp_path / 'out'), choice=Choice(parts=parts, model=sd15[0]))
    ignored = {key: why for why, keys in report['ignored'].items() for key in keys}
    for key in more:
        assert reason in ignored[key], ignored[key]
    assert store.open_model(tmp_path / 'out').parts


@pytest.mark.slow
def test_others_are_refused_by_name_with_the_way_out_and_left_out_on_request(sd15, tmp_path):
    source = saved(sd15, tmp_path / 'file.safetensors', {'stranger.weight': ONE, 'stranger.bias': ONE})
    with pytest.raises(ValueError, match=r'stranger\.bias, stranger\.weight unknown.*--ignore'):
        convert(source, str(tmp_path / 'out'), choice=Choice(model=sd15[0]))
    assert not (tmp_path / 'out').exists()
    choice = Choice(model=sd15[0], ignore=('stranger.*',))
    report = convert(source, str(tmp_path / 'out'), choice=choice)
    assert report['ignored']["left out by --ignore 'stranger.*'"] == ['stranger.bias', 'stranger.weight']


def test_of_some_parts_only_those_beside_them_are_refused(sd15, tmp_path):
    far, near = 'stranger.weight', 'first_stage_model.stranger.weight'
    choice = Choice(parts=('vae',), model=sd15[0])
    report = convert(
        saved(sd15, tmp_path / 'far.safetensors', {far: ONE}), str(tmp_path / 'out'), choice=choice
    )
    assert report['ignored']['unknown, and of none of the parts that were asked for'] == [far]
    source = saved(sd15, tmp_path / 'near.safetensors', {near: ONE, far: ONE})
    with pytest.raises(ValueError, match=r'first_stage_model\.stranger\.weight unknown.*--ignore'):
        convert(source, str(tmp_path / 'none'), choice=choice)
    choice = Choice(parts=('vae',), model=sd15[0], ignore=('first_stage_model.stranger.*',))
    ignored = convert(source, str(tmp_path / 'some'), choice=choice)['ignored']
    assert [near] in ignored.values()


def test_ignoring_what_is_not_there_or_what_is_needed_is_an_error(sd15, tmp_path):
    source = saved(sd15, tmp_path / 'file.safetensors', {})
    for pattern, words in (
        ('nothing.*', r"no key .*'nothing\.\*'"),
        ('model.diffusion_model.out.*', r"unet.*left out by --ignore 'model\.diffusion_model\.out\.\*'"),
    ):
        with pytest.raises(ValueError, match=words):
            convert(source, str(tmp_path / 'out'), choice=Choice(model=sd15[0], ignore=(pattern,)))


@pytest.mark.parametrize('name', ['mine.pt', 'mine.bin', 'mine.safetensors'])
def test_an_embedding_given_as_model_says_how_to_use_it(tmp_path, name):
    torch = pytest.importorskip('torch')
    vector = torch.ones(2, 768)
    if name == 'mine.pt':  # as the web UI writes it
        content = dict(
            string_to_token={'*': 265}, string_to_param={'*': vector}, name='mine', step=500,
            sd_checkpoint='81761151', sd_checkpoint_name='model',
        )  # fmt: skip
        torch.save(content, tmp_path / name)
    elif name == 'mine.bin':  # as diffusers writes it
        torch.save({'<mine>': vector}, tmp_path / name)
    else:
        safetensors.numpy.save_file({'emb_params': vector.numpy()}, tmp_path / name)
    with pytest.raises(ValueError, match=rf'{name} .*embedding.*not a model.*prompt') as caught:
        convert(str(tmp_path / name), str(tmp_path / 'out'))
    assert '\n' not in str(caught.value)
