"""The compiled half of a pipeline: one program for each shape, whatever the numbers.

A `SamplerRun` is all that a run of the sampler depends on. Prompts, seeds, guidance, levels, their number and the
sampler's knobs are arrays in it, so that changing them compiles nothing; shapes, the sampler's class and what is left
out (None) are the program. `begin` and `advance` make a run in one piece or in several, for progress and previews.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.changing import Changing, ChangingDenoiser, at
from ldm_jax.diffusion.denoiser import Network, denoiser, on_schedule
from ldm_jax.diffusion.inpainting import MaskedSampler, masked_denoiser
from ldm_jax.diffusion.prng import PHILOX
from ldm_jax.diffusion.sampling import walk
from ldm_jax.inference import guidance as guided
from ldm_jax.inference.model import Params, Parts
from ldm_jax.inference.settings import Guidance
from ldm_jax.types import Array, Cond, NoiseLevel, PyTree, Sampler, Solver


@struct.dataclass
class KnownRegion:
    """What inpainting keeps of an image; see diffusion.blending."""

    known: Array  # [B, h, w, Z]
    mask: Array  # [B, h, w, 1], 1 where latents are made anew
    noise: Array  # [B, h, w, Z]
    by: str = struct.field(pytree_node=False, default='step')  # or 'x0'


@struct.dataclass
class Images:
    """What belongs to each image: the first axis of every leaf is that of the B images."""

    x: Array  # [B, h, w, Z] at the first level
    keys: Array  # uint32 [B, 2], the data of PRNG keys: of the noise that samplers add
    conds: tuple[Cond | Changing, ...]
    guidance: Guidance  # what each image has of it
    kept: KnownRegion | None = None
    sampler: Sampler | None = None  # with knobs [B], in place of the shared one


@struct.dataclass
class SamplerRun:
    """A run of the sampler."""

    images: Images
    levels: NoiseLevel  # leaves [S + 1], padded
    num_steps: Array  # [] of those that are walked
    sampler: Sampler | Solver
    guidance: Guidance  # what all images share of it


def begin(parts: Parts, params: Params, job: SamplerRun) -> PyTree:
    """The carry of a run before its first step: x [B, h, w, Z] and the sampler's memory."""

    def one(images, sampler):
        if hasattr(sampler, 'solve'):
            return images.x, ()
        return images.x, sampler.init(images.x, job.levels, job.num_steps)

    return _each(one, job)


def advance(
    parts: Parts,
    params: Params,
    job: SamplerRun,
    carry: PyTree,
    start: Array | int,
    stop: Array | int,
    *,
    differentiable: bool = False,
) -> PyTree:
    """Steps number start to stop - 1; of a Solver, whose steps are its own, the whole run."""

    def one(images, sampler, carry):
        def predict(cond, part='unet'):
            return denoiser(scheduled(parts.network(params, part), times, job.num_steps), prediction, cond)

        times = parameterization.named(parts.parameterization)(job.levels).c_noise
        prediction = parameterization.named(parts.parameterization)
        keys, kept = jax.random.wrap_key_data(images.keys, impl=PHILOX), images.kept
        masked = kept is not None and (kept.by == 'x0' or hasattr(sampler, 'solve'))

        def found_at(evaluation):
            found = guided.denoiser(
                guided.joined(images.guidance, job.guidance),
                predict,
                [at(cond, evaluation) for cond in images.conds],
                prediction,
                weak=functools.partial(predict, part='weak_model'),
            )
            found = on_schedule(found, parts.schedule)
            return masked_denoiser(found, kept.known, kept.mask) if masked else found

        changes = any(isinstance(cond, Changing) for cond in images.conds)
        found = ChangingDenoiser(found_at) if changes else found_at(0)
        if hasattr(sampler, 'solve'):
            found = found.by_level(job.levels, job.num_steps) if changes else found
            return sampler.solve(found, carry[0], job.levels, job.num_steps, keys), ()
        if kept is not None and not masked:
            sampler = MaskedSampler(sampler, kept.known, kept.mask, kept.noise)
        return walk(sampler, found, carry, job.levels, keys, start, stop, differentiable=differentiable)

    return _each(one, job, carry)


def scheduled(network: Network, times: Array, num_steps: Array) -> Network:
    """A network whose adapters have the strengths of the step of its time, where cond.strengths are [B, K, S].

    times: [S + 1] of the levels, noisiest first.
    """

    def call(x: Array, t: Array, cond: Cond) -> Array:
        if cond.strengths is None or cond.strengths.ndim == 2:
            return network(x, t, cond)
        reached = times[None] >= jnp.broadcast_to(t, x.shape[:1])[:, None]
        step = jnp.clip(jnp.sum(reached & (jnp.arange(len(times)) < num_steps), axis=1) - 1, 0)
        strengths = jnp.take_along_axis(cond.strengths, step[:, None, None], axis=2)[..., 0]
        return network(x, t, dataclasses.replace(cond, strengths=strengths))

    return call


def _each(one: Callable[..., PyTree], job: SamplerRun, *carry: PyTree) -> PyTree:
    """one(images, sampler, *carry), image by image where the sampler's knobs are each image's own."""
    if job.images.sampler is None:
        return one(job.images, job.sampler, *carry)

    def alone(images, *carry):
        batch = jax.tree.map(lambda a: a[None], images.replace(sampler=None))
        return one(batch, images.sampler, *carry)

    return jax.vmap(alone)(job.images, *carry)


@dataclasses.dataclass(frozen=True)
class Programs:
    """Jitted functions of one model on some devices, with the batch spread over them.

    Each device runs the program of its own share, with nothing to say to the others. An image's bits depend on how
    many images that share holds, since XLA sums matrix products of another number of rows in another order (a few
    1e-6, at most 1/255 in a pixel here and there), and on nothing else: neither on the others in the batch, nor on
    the place in it, nor on how many devices there are. With as many images at a time as devices, one for each, an
    image is the same to the bit alone, in any batch and on any number of devices of a kind.
    Compiled programs are kept for as long as this object.
    """

    parts: Parts
    devices: tuple[jax.Device, ...]

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), ('data',))

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of parameters, which are whole on every device."""
        return NamedSharding(self._mesh, PartitionSpec())

    def shares(self, batch: int) -> int:
        """The least multiple of the number of devices that holds so many images."""
        return -(-batch // len(self.devices)) * len(self.devices)

    def begin(self, params: Params, job: SamplerRun) -> PyTree:
        """`begin` of this module; the leaves of the carry get a first axis of the devices."""
        return self._begin(params, job.images, dataclasses.replace(job, images=None))

    def advance(self, params: Params, job: SamplerRun, carry: PyTree, start: int, stop: int) -> PyTree:
        """`advance` of this module, on such carries."""
        return self._advance(
            params, job.images, dataclasses.replace(job, images=None), carry, np.int32(start), np.int32(stop)
        )

    def latents(self, carry: PyTree) -> np.ndarray:
        """The latents [B, h, w, Z] of a carry."""
        x = np.asarray(carry[0])
        return x.reshape(-1, *x.shape[-3:])

    def map(self, function: Callable[..., PyTree], params: Params, *batches: PyTree) -> PyTree:
        """function(parts, params, *batches) of images' arrays [B, ...] to such arrays, spread over the devices.

        function: a plain function of a module, or a method of Parts, by which its program is kept.
        """
        batch = len(jax.tree.leaves(batches)[0])
        padded = jax.tree.map(lambda a: pad(a, self.shares(batch)), batches)
        return jax.tree.map(lambda a: np.asarray(a)[:batch], self._mapped(function)(params, padded))

    @functools.cached_property
    def _begin(self) -> Callable[..., PyTree]:
        def run(params, images, shared):
            return _stacked(begin(self.parts, params, shared.replace(images=images)))

        return self._spread(run, (False, True, False))

    @functools.cached_property
    def _advance(self) -> Callable[..., PyTree]:
        def run(params, images, shared, carry, start, stop):
            carry = jax.tree.map(lambda a: a[0], carry)
            return _stacked(advance(self.parts, params, shared.replace(images=images), carry, start, stop))

        return self._spread(run, (False, True, False, True, False, False))

    def _mapped(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        if function not in self._maps:

            def run(params, batches):
                return function(self.parts, params, *batches)

            self._maps[function] = self._spread(run, (False, True))
        return self._maps[function]

    @functools.cached_property
    def _maps(self) -> dict[Callable[..., PyTree], Callable[..., PyTree]]:
        return {}

    def _spread(self, run: Callable[..., PyTree], batched: tuple[bool, ...]) -> Callable[..., PyTree]:
        """run, jitted, on each device's share of the arguments that are batched."""
        specs = tuple(PartitionSpec('data') if b else PartitionSpec() for b in batched)
        # Devices hold copies of the parameters and never talk, so there is nothing to check.
        return jax.jit(
            jax.shard_map(
                run, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec('data'), check_vma=False
            )
        )


def pad(a: Array | np.ndarray, size: int) -> Array | np.ndarray:
    """An array [B, ...] with its last row repeated to [size, ...]; JAX's stay JAX's where none is missing."""
    if len(a) == size:
        return a
    return np.concatenate([a, np.repeat(a[-1:], size - len(a), axis=0)])


def joined(made: Sequence[PyTree], batch: int) -> PyTree:
    """Trees of arrays [size, ...] one after the other as one of [B, ...]."""
    if len(made) == 1:
        return jax.tree.map(lambda a: a[:batch], made[0])
    return jax.tree.map(lambda *each: np.concatenate(each)[:batch], *made)


def _stacked(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: jnp.asarray(a)[None], tree)
