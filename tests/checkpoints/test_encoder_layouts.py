"""Layouts of the encoders: imports are exported again, bit for bit, under the same keys."""

import jax
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import bert as bert_layout
from ldm_jax.checkpoints.layouts import class_embedder as class_embedder_layout
from ldm_jax.checkpoints.layouts import open_clip, transformers_clip
from ldm_jax.checkpoints.layouts import spatial_rescaler as spatial_rescaler_layout
from ldm_jax.models import bert, class_embedder, clip, clip_text, clip_vision, spatial_rescaler
from tests.tiers import fast

TEXT = dict(vocab_size=30, context_length=7, width=24, num_layers=2, num_heads=3)
VISION = dict(image_size=12, patch_size=4, width=32, num_layers=2, num_heads=4)
PAIR = clip.Model(
    text=clip_text.Model(**TEXT, projection_width=20), vision=clip_vision.Model(**VISION, projection_width=20)
)
BERT = bert.Model(vocab_size=20, context_length=9, width=24, num_layers=2, num_heads=2, head_width=8)

LAYOUTS = {
    **{
        f'{kind}-{name}': (model, layout)
        for kind, model in {
            'text': clip_text.Model(**TEXT),
            'text_projected': PAIR.text,
            'vision': clip_vision.Model(**VISION, projection_width=None),
            'vision_projected': PAIR.vision,
            'pair': PAIR,
        }.items()
        for name, layout in {
            'transformers': transformers_clip.layout(model),
            'transformers_flat': transformers_clip.layout(model, nested=False),
            'open_clip': open_clip.layout(model),
        }.items()
        if (kind, name) != ('pair', 'transformers_flat')
    },
    'bert-compvis': (BERT, bert_layout.layout(BERT)),
    'bert-diffusers': (BERT, bert_layout.layout(BERT, 'diffusers')),
    'class_embedder': (class_embedder.Model(), class_embedder_layout.layout(class_embedder.Model())),
    'spatial_rescaler': (spatial_rescaler.Model(), spatial_rescaler_layout.layout(spatial_rescaler.Model())),
}


def random_params(model):
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda s: generator.standard_normal(s.shape).astype(np.float32), trees.shapes(model))


@pytest.mark.parametrize('name', fast(5, LAYOUTS))
def test_round_trip(name):
    model, layout = LAYOUTS[name]
    params = random_params(model)
    tensors = apply_layout.export_params(layout, params)
    assert sum(tensor.size for tensor in tensors.values()) == trees.count(params)
    again = apply_layout.import_params(layout, tensors, trees.shapes(model))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    exported = apply_layout.export_params(layout, again)
    assert exported.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(exported[key], tensor, err_msg=key)


def references():
    """Modules of transformers and diffusers, each with our model, its layout and the keys that it leaves."""
    pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    pytest.importorskip('diffusers')
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    def config(fields, **more):
        return dict(
            hidden_size=fields['width'],
            intermediate_size=4 * fields['width'],
            num_hidden_layers=fields['num_layers'],
            num_attention_heads=fields['num_heads'],
            projection_dim=20,
            **more,
        )

    text = config(TEXT, vocab_size=30, max_position_embeddings=7, bos_token_id=28, eos_token_id=29)
    vision = config(VISION, image_size=12, patch_size=4)
    text_config, vision_config = transformers.CLIPTextConfig(**text), transformers.CLIPVisionConfig(**vision)
    both = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)
    plain_text = clip_text.Model(**TEXT)
    plain_vision = clip_vision.Model(**VISION, projection_width=None)
    ldm_bert = LDMBertConfig(
        vocab_size=20,
        max_position_embeddings=9,
        encoder_layers=2,
        encoder_ffn_dim=96,
        encoder_attention_heads=2,
        head_dim=8,
        d_model=24,
    )
    nested = transformers_clip.layout
    yield transformers.CLIPTextModelWithProjection(text_config), PAIR.text, nested(PAIR.text), set()
    yield transformers.CLIPVisionModelWithProjection(vision_config), PAIR.vision, nested(PAIR.vision), set()
    yield transformers.CLIPModel(both), PAIR, nested(PAIR), set()
    for module, model in (
        (transformers.CLIPTextModel(text_config), plain_text),
        (transformers.CLIPVisionModel(vision_config), plain_vision),
    ):
        # The level came and went between versions: the layout that has it fits the ones that have it.
        level = any('_model.' in key for key in module.state_dict())
        yield module, model, transformers_clip.layout(model, nested=level), set()
    yield (
        LDMBertModel(ldm_bert),
        BERT,
        bert_layout.layout(BERT, 'diffusers'),
        {'to_logits.weight', 'to_logits.bias'},
    )


def test_key_sets_are_those_of_the_libraries():
    for module, model, layout, left in references():
        state = {key: value.detach().numpy() for key, value in module.state_dict().items()}
        exported = apply_layout.export_params(
            layout, apply_layout.import_params(layout, state, trees.shapes(model))
        )
        assert exported.keys() == state.keys() - left, type(module).__name__
        for key, tensor in exported.items():
            np.testing.assert_array_equal(tensor, state[key], err_msg=key)


def test_a_tower_reads_the_file_of_the_pair():
    tensors = apply_layout.export_params(transformers_clip.layout(PAIR), random_params(PAIR))
    tensors['text_model.embeddings.position_ids'] = np.arange(7)[None]
    tensors['vision_model.embeddings.position_ids'] = np.arange(10)[None]
    whole = apply_layout.import_params(transformers_clip.layout(PAIR), tensors, trees.shapes(PAIR))
    for model, part in ((PAIR.text, 'text'), (PAIR.vision, 'vision')):
        for projection_width in (20, None):
            tower = model.clone(projection_width=projection_width)
            params = apply_layout.import_params(transformers_clip.layout(tower), tensors, trees.shapes(tower))
            expected = dict(whole[part])
            if projection_width is None:
                del expected['projection']
            jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_layers_beyond_the_model_are_an_error_unless_expected():
    longer = clip_text.Model(**dict(TEXT, num_layers=3))
    tensors = apply_layout.export_params(open_clip.layout(longer), random_params(longer))
    tensors['attn_mask'] = np.zeros((7, 7), np.float32)
    model = clip_text.Model(**TEXT)
    with pytest.raises(ValueError, match=r'transformer\.resblocks\.2\..* unknown'):
        apply_layout.import_params(open_clip.layout(model), tensors, trees.shapes(model))
    layout = open_clip.layout(model, extra_layers=1)
    params = apply_layout.import_params(layout, tensors, trees.shapes(model))
    assert params.keys() == trees.shapes(model).keys()
    assert layout.ignored('transformer.resblocks.2.ln_1.weight') == 'a layer after the last one that is used'


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"No bert names 'original'; have \['compvis', 'diffusers'\]"):
        bert_layout.layout(BERT, 'original')
