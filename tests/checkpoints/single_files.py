"""Listings of the public single files, and what stands in for their contents.

How the listings were made is said in tests/checkpoints/fixtures/README_single_files.md.
"""

import functools
import lzma
from pathlib import Path

import numpy as np

import configs
from ldm_jax import trees

# Models published in this layout too, under a name that is no config's.
CONFIGS = {'sd2_sgm': 'sd2_base'}
# Parts of the configs that their files do not hold: encoders that came from elsewhere, statistics likewise.
NOT_IN_FILE = {
    'rdm768': {'text_encoder', 'image_encoder'},
    'sd21_unclip_l': {'image_normalizer'},
    'sd21_unclip_h': {'image_normalizer'},
}
SCALE = 0.234375  # of the file of churches, which alone stores one


@functools.cache
def listings():
    """Name -> key -> array of the shape, of stride 0."""
    text = lzma.decompress((Path(__file__).parent / 'fixtures' / 'single_files.txt.xz').read_bytes()).decode()
    found = {}
    for section in text.removeprefix('# ').split('\n# '):
        name, *rows = section.splitlines()
        rows = (row.split(' ') for row in rows)
        found[name] = {key: blank(tuple(map(int, shape))) for key, *shape in rows}
    return found


def blank(shape):
    """An array of any shape that takes no memory."""
    return np.broadcast_to(np.int8(0), shape)


def config(name):
    """The config of a listing, with the parts that the file holds."""
    spec = configs.load(CONFIGS.get(name, name)).to_dict()
    absent = NOT_IN_FILE.get(name, set())
    if 'text_encoder' in absent:
        spec.pop('tokenizer')
    return dict(spec, models={part: model for part, model in spec['models'].items() if part not in absent})


def tables(beta_start, beta_end, steps=1000, dtype=np.float32):
    """The schedule's tables that the original code stores, by key."""
    betas = np.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=np.float64) ** 2
    return {'betas': betas.astype(dtype), 'alphas_cumprod': np.cumprod(1 - betas).astype(dtype)}


def reading(name):
    """What `read` answers for a listing: the small tensors that identify asks for."""
    schedule = config(name).get('schedule')
    if schedule is None:
        return None
    held = tables(schedule['beta_start'], schedule['beta_end']) | {'scale_factor': np.float32(SCALE)}
    return held.__getitem__


def narrow(name):
    """A config's settings with the same blocks, but few of them and narrow: everything that identifies it stays."""
    settings = config(name)
    for part, spec in (models := settings['models']).items():
        models[part] = spec | _NARROW[spec['name']](spec)
    encoders = [
        models[part] for part in ('text_encoder', 'text_encoder_2', 'class_embedder') if part in models
    ]
    if models.get('unet', {}).get('context_width'):
        models['unet']['context_width'] = sum(spec['width'] for spec in encoders) or 64
    return settings


def _unet(spec):
    if spec.get('depth_up'):  # one number for each residual block
        return dict(channels=64, **({'vector_width': 80} if 'vector_width' in spec else {}))
    return dict(
        # Heads keep their width, and group norms their 32 groups.
        channels=max(32, spec.get('head_width') or 0),
        num_res_blocks=1,
        depth=tuple(min(depth, 3) for depth in spec['depth']),
        mid_depth=min(spec.get('mid_depth', 1), 3),
        **({'vector_width': 80} if 'vector_width' in spec else {}),
    )


def _clip_text(spec):
    projection = dict(projection_width=64) if spec.get('projection_width') else {}
    return dict(vocab_size=96, context_length=7, width=64, num_layers=2, num_heads=1, **projection)


_NARROW = {
    'unet': _unet,
    'vae': lambda spec: dict(channels=32, num_res_blocks=1),
    'vq': lambda spec: dict(channels=32, num_res_blocks=1, num_codes=17),
    'clip_text': _clip_text,
    'clip_vision': lambda spec: dict(
        image_size=28, patch_size=14, width=48, num_layers=2, projection_width=24
    ),
    'bert': lambda spec: dict(vocab_size=50, width=40, num_layers=2),
    'class_embedder': lambda spec: dict(width=24),
    'spatial_rescaler': lambda spec: {},
    'image_normalizer': lambda spec: dict(width=24),
}


def below(name, prefix, instead=''):
    """The keys of a listing below a prefix, with another one in its place."""
    return {instead + key[len(prefix) :]: s for key, s in listings()[name].items() if key.startswith(prefix)}


def exported(layout, model, part=''):
    """What an export would hold, by key."""
    leaves = {part + path: leaf for path, leaf in trees.named(trees.shapes(model, size=8)).items()}
    tensors = {}
    for rule in layout.rules:
        arrays = rule.to_torch(tuple(blank(leaves[path].shape) for path in rule.flax))
        tensors |= dict(zip(rule.torch, arrays, strict=True))
    return tensors
