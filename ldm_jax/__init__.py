"""Stable Diffusion and latent diffusion research in JAX and Flax.

    import ldm_jax

    pipeline = ldm_jax.open('emoji32')
    images = ldm_jax.text_to_image(pipeline, 'a red apple, noto style', seed=1)
    ldm_jax.save_png('apple.png', images[0])

The names below are imported when they are used: importing the package imports nothing heavy.
"""

__version__ = '0.1.0'

TASKS = (
    'class_to_image', 'depth_to_image', 'edit', 'hires', 'image_to_image', 'inpaint', 'inpaint_without_text',
    'interpolate', 'layout_to_image', 'outpaint', 'refine', 'semantic_to_image', 'super_resolution',
    'text_to_image', 'unconditional', 'upscale', 'variations',
)  # fmt: skip
# Name -> the module that has it, and its name there.
PLACES = {
    'open': ('ldm_jax.inference.opening', 'open_pipeline'),
    'load': ('ldm_jax.checkpoints.loading', 'load'),
    'Sampling': ('ldm_jax.inference.settings', 'Sampling'),
    'Guidance': ('ldm_jax.inference.settings', 'Guidance'),
    'watched': ('ldm_jax.inference.watching', 'watched'),
    'load_image': ('ldm_jax.requests.files', 'load_image'),
    'save_png': ('ldm_jax.images', 'save_png'),
} | {task: (f'ldm_jax.pipelines.{task}', task) for task in TASKS}
__all__ = ['__version__', *PLACES]


def __getattr__(name):
    import importlib

    if name not in PLACES:
        raise AttributeError(f'ldm_jax has no {name!r}; it has {sorted(PLACES)} and its modules.')
    module, attribute = PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__():
    return sorted(__all__)
