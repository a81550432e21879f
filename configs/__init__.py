"""Named configs: one file a model or a training run, each with get_config(arg='') -> ConfigDict.

models              part -> spec of ldm_jax/models; what build.parts builds
schedule            spec of the noise schedule of a diffusion model
parameterization    'eps' or 'v': what the U-Net predicts
loss                'l2' or 'l1': what it was trained with
scaling_factor        factor on the first stage's latents; None where the checkpoint holds it
latent_size         side of the latents at image_size, pixels; the network takes other sizes too
tokenizer           spec of the text encoder's tokenizer (tokenizer_2: of text_encoder_2)
context_length      tokens that the U-Net attends to, where they are not 77

and of a training run, tools/train.py --config:

stage               spec of ldm_jax/training: its name and fields; with latent_diffusion objective (what
                    diffusion.loss.objective takes), conditioning (kind -> knobs), encode and samples (images
                    while it trains, see training/stages/samples.py)
pretrained          part -> a model that the part is taken from, and stays; or dict(model=..., **changed fields)
initial             a model that the parts in `models` are trained on from; their settings are its own by default
optimizer           what training.optimizer.optimizer takes: name, lr, warmup_steps, curve, ...
discriminator_optimizer  what differs from it for a first stage's discriminator
run                 fields of training.run.Run; run.ema: the moving averages by name, see training/ema.py; run.parallel:
                    one device, pmap or a mesh (training/parallel/backend.py); run.loader: threads, workers, max_corrupt
data                spec of ldm_jax/data
export              dtype of the exported parameters
"""

import difflib
import importlib
import pkgutil


def names() -> list[str]:
    """Every config's name, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != 'common')


def load(name: str):
    """The ConfigDict of configs/<name>.py; 'tiny:contrastive' is that of its get_config('contrastive').

    Raises ValueError, with the nearest names, for one that there is not.
    """
    name, colon, arg = name.partition(':')
    get_config = _module(name).get_config
    return get_config(arg) if colon else get_config()


def summary(name: str) -> str:
    """What a config is, in one line: the first of its docstring."""
    return _module(name).__doc__.partition('\n')[0]


def _module(name: str):
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=4, cutoff=0.4)
        hint = f'the nearest are {near}' if near else f'have {names()}'
        raise ValueError(f'No config {name!r}; {hint}. tools/inspect_model.py --list shows them all.')
    return importlib.import_module(f'configs.{name}')
