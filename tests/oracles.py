"""What tests compare with: random weights for both sides, and the distance between two answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import rules
from ldm_jax.types import NoiseLevel, PyTree


def randomize(module, seed: int = 0) -> None:
    """Fills a torch module's parameters in place so that every one of them matters to the output.

    Norm scales are around 1; everything else is normal with the variance of its fan-in, biases too, so that no
    zero-initialised branch hides an error.
    """
    import torch

    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 16
            values = generator.standard_normal(shape) / np.sqrt(fan_in)
            if len(shape) == 1 and name.endswith('weight'):
                values = 1 + 0.2 * generator.standard_normal(shape)
            parameter.copy_(torch.from_numpy(values))


def tensors(module) -> dict[str, np.ndarray]:
    """A torch module's state as numpy arrays by key."""
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def params_like(model, layout: rules.Layout, state: Mapping[str, np.ndarray], **inputs) -> PyTree:
    """Our parameters for the same weights: `inputs` are those of model.inputs."""
    return apply_layout.import_params(layout, state, trees.shapes(model, **inputs))


def go_round(module, wrap: str) -> None:
    """Lets the convolutions of a torch module go round on axes 'x', 'y' or 'xy', in place.

    For 'xy' by torch's own padding_mode, which is what A1111's Tiling sets. Where diffusers pads apart from the
    convolution (Downsample2D with padding 0: right and bottom), that goes round too.
    """
    import torch

    def padded(x, right, bottom, left=0, top=0):
        for axis, sides in (('x', (left, right, 0, 0)), ('y', (0, 0, top, bottom))):
            x = torch.nn.functional.pad(x, sides, mode='circular' if axis in wrap else 'constant')
        return x

    def before(conv, inputs):
        return padded(inputs[0], *conv.own_padding, *conv.own_padding)

    def downsample(self):
        return lambda x: self.conv(padded(x, 1, 1))

    for part in module.modules():
        if type(part).__name__ == 'Downsample2D' and part.padding == 0:
            part.forward = downsample(part)
        elif isinstance(part, torch.nn.Conv2d) and wrap == 'xy':
            part.padding_mode = 'circular'
        elif isinstance(part, torch.nn.Conv2d):
            part.own_padding, part.padding = part.padding, (0, 0)
            part.register_forward_pre_hook(before)


def relative_error(ours, theirs) -> float:
    """Largest difference over the scale (largest absolute value) of the reference."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert np.isfinite(ours).all()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def keys(x, seed: int = 0):
    """PRNG keys [B], one for each image of x [B, ...]."""
    return jax.random.split(jax.random.key(seed), len(x))


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """float64 in jax, for as long as the block lasts."""
    with jax.enable_x64(True):
        yield


def assert_come_back(layout, params, state):
    """A layout makes of parameters the state dict that they are of, to the bit."""
    exported = apply_layout.export_params(layout, params)
    assert exported.keys() == state.keys()
    assert all(np.array_equal(exported[key], state[key]) for key in state)


def assert_parity(module, net, pairs, *inputs):
    """The output is a torch module's with the same weights, in both dtypes; the layout loses none of them.

    pairs: rules from 'net' to 'module'. inputs: [B, H, W, C], which torch is given as [B, C, H, W], or others.
    """
    import torch

    randomize(net)
    layout = rules.Layout(tuple(pairs))
    state = {f'net.{key}': array for key, array in tensors(net).items()}
    shapes = nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs)['params'])
    params = apply_layout.import_params(layout, state, {'module': shapes})
    assert_come_back(layout, params, state)

    with torch.no_grad():
        expected = net.double().eval()(*(torch.tensor(_channels(array, to=1)) for array in inputs))
    expected = _channels(expected.numpy(), to=-1)
    with float64():
        output = _run(module.clone(dtype=jnp.float64), params, 'float64', inputs)
    assert relative_error(output, expected) < 1e-9
    assert relative_error(_run(module, params, 'float32', inputs), expected) < 1e-5


def _channels(array, to):
    """An image's channels as another axis; anything else as it is."""
    return np.moveaxis(array, -1 if to == 1 else 1, to) if array.ndim == 4 else array


def _run(module, params, dtype, inputs):
    params, inputs = trees.cast((params['module'], inputs), dtype)
    output = jax.jit(module.apply)({'params': params}, *inputs)
    assert output.dtype == dtype
    return output


def trajectory(sampler, denoise, x, levels, keys):
    """x [S, B, ...] after each step of sampling.sample, by a loop of its own that compiles nothing."""
    steps, seen = len(levels.sigma) - 1, []
    with jax.disable_jit():
        state = sampler.init(x, levels, jnp.asarray(steps, jnp.int32))
        for i in range(steps):
            here, there = (
                NoiseLevel(t=levels.t[j], alpha=levels.alpha[j], sigma=levels.sigma[j]) for j in (i, i + 1)
            )
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            x, state = sampler.step(denoise, x, state, here, there, step_keys)
            seen.append(x)
    return jnp.stack(seen)
