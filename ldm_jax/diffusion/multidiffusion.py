"""An image too large for a network as overlapping windows of the size that it knows, and their weighted average.

Weights are a product of one function of the row and one of the column, divided by their sum over the windows, so
that a function of each pixel alone gives what it gives without windows.
Ref: Bar-Tal et al. 2023, arXiv:2302.08113, eq. 5 (MultiDiffusion: equal weights); Jimenez 2023, arXiv:2302.02412
(Mixture of Diffusers: Gaussian ones).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import build
from ldm_jax.diffusion.denoiser import Network
from ldm_jax.types import Array, Cond, PyTree


def flat(length: int, overlap: int) -> np.ndarray:
    """The same everywhere."""
    return np.ones(length)


def ramp(length: int, overlap: int) -> np.ndarray:
    """Rising and falling linearly over the overlap: one window fades into the next."""
    inside = np.arange(length) + 0.5
    return np.minimum(np.minimum(inside, length - inside) / max(overlap, 0.5), 1)


def gaussian(length: int, overlap: int) -> np.ndarray:
    """A Gaussian of variance 0.01 in units of the window: its middle counts, its sides do not."""
    return np.exp(-((((np.arange(length) + 0.5) / length - 0.5) / 0.1) ** 2) / 2)


PROFILES = {'flat': flat, 'ramp': ramp, 'gaussian': gaussian}


@dataclasses.dataclass(frozen=True)
class Windows:
    """Square windows, each of which shares `overlap` rows or columns with the next one.

    size: rows and columns of a window; a side that is shorter has one window of its length. Where they do not
        divide the side, the last window ends with it and overlaps more.
    profile: of PROFILES, how much the parts of a window count.
    wrap: 'x', 'y' or 'xy', axes on which windows go round the image's side (a panorama of 360 degrees: 'x').
    at_once: how many windows are evaluated in one batch; memory grows with it.

    Raises ValueError for an overlap that leaves no way forward, or an unknown profile or axis.
    """

    size: int = 64
    overlap: int = 32
    profile: str = 'flat'
    wrap: str = ''
    at_once: int = 1

    def __post_init__(self):
        if not 0 <= self.overlap < self.size or self.at_once < 1:
            raise ValueError(
                'Windows need 0 <= overlap < size and at_once >= 1; '
                f'got size {self.size}, overlap {self.overlap}, at_once {self.at_once}.'
            )
        if self.profile not in PROFILES:
            raise build.unknown('profile of windows', self.profile, list(PROFILES))
        if self.wrap not in ('', 'x', 'y', 'xy'):
            raise build.unknown('axes to wrap', self.wrap, ['', 'x', 'y', 'xy'])

    def starts(self, length: int, axis: str = '') -> list[int]:
        """Where windows begin along a side of this length, axis 'x' or 'y'."""
        stride = self.size - self.overlap
        if length <= self.size:
            return [0]
        if axis and axis in self.wrap:
            return list(range(0, length, stride))
        return [*range(0, length - self.size, stride), length - self.size]

    def weights(self, length: int, axis: str = '', out: int | None = None) -> np.ndarray:
        """[windows, out]: of each along an axis; over all windows those of a row or column add up to one.

        out: rows of a window in the result; by default as many as in the image.
        """
        window = min(self.size, length)
        out = window if out is None else out
        profile = PROFILES[self.profile](out, self.overlap * out // window)
        starts = self.starts(length, axis)
        places = np.arange(out) + np.array(starts)[:, None] * out // window
        places %= length * out // window
        total = np.bincount(places.ravel(), np.tile(profile, len(starts)))
        return profile / total[places]

    def average(self, function: Callable[[PyTree], Array], x: PyTree) -> Array:
        """What a function of windows makes of the whole image, [B, H', W', D].

        Args:
            function: windows, leaves [N, B, h, w, C] with N = at_once -> [N, B, h', w', D]; each window must
                come out alike, a whole number of times larger or smaller.
            x: image or images, leaves [B, H, W, C]. Compiled once, whatever the number of windows.

        Raises ValueError where windows of the result would begin between its pixels.
        """
        height, width = jax.tree.leaves(x)[0].shape[1:3]
        h, w = min(self.size, height), min(self.size, width)
        rows, columns = self.starts(height, 'y'), self.starts(width, 'x')
        past = rows[-1] + h - height, columns[-1] + w - width  # the side, where windows go round it
        x = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, past[0]), (0, past[1]), (0, 0)), mode='wrap'), x)

        def windows(corners):
            def cut(a):
                size = (len(a), h, w, a.shape[-1])
                return jnp.stack([jax.lax.dynamic_slice(a, (0, *corner, 0), size) for corner in corners])

            return jax.tree.map(cut, x)

        out = jax.eval_shape(lambda: function(windows(np.zeros((self.at_once, 2), int))))
        _, batch, out_h, out_w, features = out.shape
        corners = np.array([(row, column) for row in rows for column in columns])
        if (corners * (out_h, out_w) % (h, w)).any():
            raise ValueError(
                f'Windows of {h} x {w} that become {out_h} x {out_w} begin at rows {rows} and columns {columns} '
                f'of {height} x {width}, which are not whole there. Take a size and an overlap that are.'
            )
        places = corners * (out_h, out_w) // (h, w)
        vertical = np.repeat(self.weights(height, 'y', out_h), len(columns), 0)
        horizontal = np.tile(self.weights(width, 'x', out_w), (len(rows), 1))
        # The first windows again fill the last batch up, and count nothing.
        number = np.arange(-(-len(corners) // self.at_once) * self.at_once)
        groups = [a[number % len(corners)] for a in (corners, places, vertical, horizontal)]
        groups[2] *= number[:, None] < len(corners)
        groups = [jnp.asarray(a.reshape(-1, self.at_once, a.shape[1])) for a in groups]

        def body(total, group):
            corners, places, vertical, horizontal = group
            weights = vertical[:, None, :, None, None] * horizontal[:, None, None, :, None]
            for place, output in zip(places, function(windows(corners)) * weights, strict=True):
                start = (0, *place, 0)
                before = jax.lax.dynamic_slice(total, start, output.shape)
                total = jax.lax.dynamic_update_slice(total, before + output.astype(total.dtype), start)
            return total, None

        full = (batch, *(places[-1] + (out_h, out_w)), features)
        total = jnp.zeros(full, jnp.promote_types(out.dtype, jnp.float32))
        total, _ = jax.lax.scan(body, total, groups)
        for axis, beyond in ((1, past[0] * out_h // h), (2, past[1] * out_w // w)):
            total, rest = jnp.split(total, [total.shape[axis] - beyond], axis)
            total += jnp.pad(rest, [(0, a - b) for a, b in zip(total.shape, rest.shape, strict=True)])
        return total.astype(out.dtype)


def windowed(network: Network, windows: Windows) -> Network:
    """A network for latents of any size from one for windows of them: MultiDiffusion.

    Each window sees its part of Cond.concat, and the whole of the other parts. On an axis with several windows let
    these go round the image (Windows.wrap), not the network, which would go round each of them.
    The network's own predictions are averaged, below any guidance, so that rules which measure an image measure
    all of it, and CFG++ samplers have their second prediction. Where predictions are turned into a step linearly,
    as all deterministic samplers here do, that is to average the windows' steps.
    Ref: Bar-Tal et al. 2023, arXiv:2302.08113.
    """

    def predict(x: Array, t: Array, cond: Cond) -> Array:
        def each(parts):
            count, batch = parts[0].shape[:2]
            latents, concat = jax.tree.map(lambda a: a.reshape(count * batch, *a.shape[2:]), parts)
            shared = jax.tree.map(
                lambda a: jnp.concatenate([a] * count), dataclasses.replace(cond, concat=None)
            )
            times = jnp.concatenate([t] * count) if jnp.ndim(t) else t
            out = network(latents, times, dataclasses.replace(shared, concat=concat))
            return out.reshape(count, batch, *out.shape[1:])

        return windows.average(each, (x, cond.concat))

    return predict
