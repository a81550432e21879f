"""The PatchGAN of a first stage's training (model discriminator): below 'loss.discriminator.' of its checkpoint."""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import Layout, conv, norm
from ldm_jax.models import discriminator

RUNNING = 'running averages, which are not used in training'


def layout(model: discriminator.Model) -> Layout:
    """The layout of its layers, which are numbered with the norms and activations between them."""
    rules, ignore = conv('main.0', 'conv_in'), {}
    for n in range(1, model.num_layers + 1):
        place = 3 * n - 1
        rules += conv(f'main.{place}', f'conv_{n}', bias=False) + norm(f'main.{place + 1}', f'norm_{n}')
        ignore |= {
            f'main.{place + 1}.{name}': RUNNING
            for name in ('running_mean', 'running_var', 'num_batches_tracked')
        }
    return Layout(tuple(rules + conv(f'main.{3 * model.num_layers + 2}', 'conv_out')), ignore)
