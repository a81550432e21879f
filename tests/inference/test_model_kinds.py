"""Every kind of model has its tasks, and an error for the others."""

import dataclasses

import pytest

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


def test_errors_say_what_is_wanted_what_there_is_and_what_fits():
    found = parts_of.from_settings(folders.TINY['StableDiffusionPipeline'])
    model_kinds.check(found, 'inpaint', 'inpaint', 'text')
    with pytest.raises(
        ValueError,
        match=r'^edit is for .* told a text and an image\. This one is told a text: .* text_to_image',
    ):
        model_kinds.check(found, 'edit', 'edit')
    strange = dataclasses.replace(found, unet=dataclasses.replace(found.unet, in_channels=11))
    with pytest.raises(ValueError, match='told what no task here knows'):
        model_kinds.check(strange, 'edit', 'edit')
