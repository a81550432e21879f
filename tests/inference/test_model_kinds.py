"""Every kind of model has its tasks, and an error for the others."""

import copy

import pytest

from ldm_jax.conditioning import combine
from ldm_jax.inference import model as parts_of
from ldm_jax.inference import model_kinds
from tests.checkpoints import folders


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('StableDiffusionPipeline', 'text'),
        ('StableDiffusionXLPipeline', 'text'),
        ('StableDiffusionXLImg2ImgPipeline', 'text'),
        ('LDMTextToImagePipeline', 'text'),
        ('StableDiffusionInpaintPipeline', 'inpaint'),
        ('StableDiffusionXLInpaintPipeline', 'inpaint'),
        ('StableDiffusionInstructPix2PixPipeline', 'edit'),
        ('StableDiffusionDepth2ImgPipeline', 'depth'),
        ('StableDiffusionUpscalePipeline', 'upscale'),
        ('StableUnCLIPImg2ImgPipeline', 'variation'),
        ('LDMPipeline', 'unconditional'),
        ('LDMSuperResolutionPipeline', 'super_resolution'),
    ],
)
def test_every_kind_of_folder_has_its_kind(name, kind):
    assert model_kinds.kind(parts_of.from_settings(folders.TINY[name])) == kind


def test_errors_say_what_is_wanted_what_the_model_has_and_what_fits():
    found = parts_of.from_settings(folders.TINY['StableDiffusionPipeline'])
    model_kinds.check(found, 'inpaint', 'inpaint', 'text')
    with pytest.raises(
        ValueError,
        match=r'^edit is for .* conditioned on a text and an image\. This one is .* on a text: .* text_to_image',
    ):
        model_kinds.check(found, 'edit', 'edit')
    settings = copy.deepcopy(folders.TINY['StableDiffusionPipeline'])
    settings['models']['unet']['in_channels'] = 11
    strange = parts_of.from_settings(settings)
    with pytest.raises(ValueError, match='conditioned on other data: it is for from_conditioning'):
        model_kinds.check(strange, 'edit', 'edit')


def test_a_conditioning_in_the_settings_is_believed_before_shapes():
    """Eleven classes and a null are no ImageNet; one channel beside the latents need not be depth."""
    settings = copy.deepcopy(folders.TINY['LDMPipeline'])
    settings['models']['unet']['num_classes'] = 11
    assert parts_of.from_settings(settings).kinds['class_label'].drop_rate == 0
    settings['conditioning'] = dict(class_label=dict(drop_rate=0.2))
    found = parts_of.from_settings(settings)
    assert (model_kinds.kind(found), model_kinds.own_scale(found)) == ('class', 3.0)
    assert found.kinds['class_label'].num_classes(found.networks({})) == 10
    settings = copy.deepcopy(folders.TINY['StableDiffusionDepth2ImgPipeline'])
    settings['conditioning'] = dict(text={}, concat={})
    assert model_kinds.kind(parts_of.from_settings(settings)) == 'other'


def test_a_conditioning_that_does_not_fit_the_networks_is_refused():
    settings = copy.deepcopy(folders.TINY['StableDiffusionPipeline'])
    settings['conditioning'] = dict(text={}, depth={})
    with pytest.raises(ValueError, match=r"conditioned on \['context'\].*fills \['concat', 'context'\]"):
        parts_of.from_settings(settings)


@pytest.mark.parametrize(
    ('name', 'spec'),
    [
        (
            'StableDiffusionXLPipeline',
            dict(text=dict(null='zeros', pooled=True), sizes=dict(count=6, width=4)),
        ),
        ('StableDiffusionXLImg2ImgPipeline', dict(text=dict(pooled=True), sizes=dict(count=5, width=4))),
        ('StableUnCLIPImg2ImgPipeline', dict(text={}, image_embedding=dict(drop_rate=0.25))),
        ('StableDiffusionUpscalePipeline', dict(text={}, low_resolution=dict(factor=2, max_noise_level=29))),
        ('LDMSuperResolutionPipeline', dict(low_resolution=dict(factor=2))),
        ('StableDiffusionInstructPix2PixPipeline', dict(text={}, source=dict(drop_rate=0.05))),
    ],
)
def test_foreign_models_are_conditioned_as_they_were_trained(name, spec):
    found = parts_of.from_settings(folders.TINY[name]).kinds
    expected = {
        kind: {'drop_rate': 0.1, **fields} if kind == 'text' else fields for kind, fields in spec.items()
    }
    assert found == combine.kinds(expected)
