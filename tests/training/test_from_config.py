"""How a config becomes a stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs
from ldm_jax.checkpoints import loading, store
from ldm_jax.text import clip
from ldm_jax.training import from_config
from ldm_jax.training.run import Run
from ldm_jax.training.stages import contrastive
from tests.tiers import fast

SHIPPED = 'emoji32'


def config(**fields):
    base = dict(
        stage=dict(name='latent_diffusion', conditioning=dict(text=dict(drop_rate=0.1)), encode='step'),
        models=dict(unet={}),
        pretrained=dict(first_stage=SHIPPED, text_encoder=SHIPPED),
        warm_start=SHIPPED,
    )
    return base | fields


@pytest.mark.slow
def test_a_model_is_fine_tuned_with_its_own_settings():
    stage, settings = from_config.stage(config(), loading.load)
    shipped = store.open_model(store.find(SHIPPED)).settings
    assert stage.objective == {'parameterization': 'v'}
    assert (stage.scaling_factor, stage.latent_size) == (shipped['scaling_factor'], 8)
    assert settings['models'] == shipped['models']
    assert stage.frozen.keys() == {'first_stage', 'text_encoder'}
    params = stage.init(jax.random.key(0))
    assert params.keys() == {'unet'}
    for one, other in zip(*map(jax.tree.leaves, (params['unet'], stage.warm_start['unet'])), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_config_says_otherwise():
    wider = config(
        models=dict(unet=dict(in_channels=9, dtype='bfloat16')),
        pretrained=dict(
            first_stage=SHIPPED, text_encoder=dict(model=SHIPPED, output_layer=-2, final_norm=True)
        ),
        stage=dict(
            name='latent_diffusion',
            objective=dict(loss='l1'),
            conditioning=dict(text=dict(drop_rate=0.1), inpainting={}),
            encode='step',
        ),
    )
    stage, settings = from_config.stage(wider, loading.load)
    assert stage.objective == {'parameterization': 'v', 'loss': 'l1'}
    assert stage.text_encoder.output_layer == -2
    assert settings['models']['unet']['in_channels'] == 9
    params = stage.init(jax.random.key(0))
    assert params['unet']['conv_in']['kernel'].shape[2] == 9
    assert not np.asarray(params['unet']['conv_in']['kernel'][:, :, 4:]).any()
    # Compute alone is bfloat16.
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}


class Encoded:
    """Data that were encoded, as data/latents.py has them."""

    manifest = {'settings': {'scaling_factor': 0.25}}  # noqa: RUF012
    null = {'context': np.zeros((8, 4))}  # noqa: RUF012


def test_encoded_data_bring_their_scale_and_the_empty_text():
    spec = config(
        stage=dict(
            name='latent_diffusion',
            latent_size=8,
            objective=dict(parameterization='v'),
            conditioning=dict(text=dict(drop_rate=0.1)),
        ),
        models=dict(
            unet=dict(
                name='unet',
                channels=8,
                channel_mult=(1,),
                depth=(0,),
                num_groups=4,
                num_heads=2,
                context_width=4,
            )
        ),
        pretrained=dict(first_stage=SHIPPED),  # whose scale is another
        schedule=dict(name='scaled_linear'),
    )
    del spec['warm_start']
    stage, settings = from_config.stage(spec, loading.load, Encoded())
    assert stage.scaling_factor == settings['scaling_factor'] == 0.25
    assert stage.null is Encoded.null
    stage, _ = from_config.stage(spec | dict(scaling_factor=0.5), loading.load, Encoded())
    assert stage.scaling_factor == 0.5


def test_a_first_stage_trains_with_an_adversary_whose_rate_begins_with_it():
    spec = configs.load('tiny:first_stage').to_dict()
    stage, settings = from_config.stage(spec, loading.load)
    assert settings['models'].keys() == {'first_stage', 'discriminator'}
    work = from_config.work(spec, stage, Run(**spec['run']))
    state = jax.eval_shape(work.init, jax.random.key(0))
    assert state.discriminator.params.keys() >= {'conv_in', 'conv_out'}
    assert state.generator.ema.keys() == {'main'}
    assert not jax.tree.leaves(work.split(state)[1])


def test_a_text_encoder_keeps_the_words_of_every_caption():
    class Captioned(list):
        def captions(self, i):
            return 'a cat', 'a feline'

    tokenizer = clip.Tokenizer(context_length=8)
    stage = contrastive.Stage(None, None, tokenizer)
    examples = stage.prepare(Captioned([{'image': np.zeros((2, 2, 3), np.uint8), 'text': 'a cat'}]))
    params = {'text': {'token_embedding': {'embedding': np.ones((clip.VOCAB_SIZE, 2))}}, 'vision': {}}
    saved = []
    from_config.export(
        {'run': {'batch_size': 4}}, stage, {'models': {}}, params, examples, lambda *args: saved.append(args)
    )
    table = saved[0][1]['text_encoder']['token_embedding']['embedding']
    assert table[tokenizer.encode('a cat feline')].all()
    assert not table[tokenizer.encode('dog')].any()


def test_a_clip_pair_is_trained_on_from_a_model_with_one_tower_or_both():
    spec = configs.plain(configs.load('tiny:contrastive')) | {'warm_start': 'a model'}
    fresh = from_config.stage(configs.plain(configs.load('tiny:contrastive')), None)[0].init(
        jax.random.key(0)
    )
    given = {part: jax.tree.map(lambda a: a + 1, fresh[tower]) for tower, part in contrastive.TOWERS.items()}
    for parts in (['text_encoder'], ['text_encoder', 'image_encoder']):
        params = {part: given[part] for part in parts}
        loaded = loading.Loaded({'models': {}}, {}, params, '')
        stage, settings = from_config.stage(spec, lambda model, names, loaded=loaded: loaded)
        found = stage.init(jax.random.key(0))
        for tower, part in contrastive.TOWERS.items():
            jax.tree.map(np.testing.assert_array_equal, found[tower], params.get(part, fresh[tower]))
        assert settings['models'].keys() == {'text_encoder', 'image_encoder'}


@pytest.mark.parametrize('value', fast(1, [float('nan'), 0, -1.0, float('inf')]))
@pytest.mark.parametrize('name', ['scaling_factor', 'latent_size'])
def test_a_scale_or_size_out_of_range_is_refused(name, value):
    changed = {'scaling_factor': value} if name == 'scaling_factor' else {}
    spec = config(**changed)
    if name == 'latent_size':
        spec['stage'] = spec['stage'] | {'latent_size': value}
    with pytest.raises(ValueError, match=f'{name} must be above 0; got'):
        from_config.stage(spec, loading.load)
