"""Training stage 1: the autoencoder, KL or VQ, with a perceptual and an adversarial term.

Of images x and reconstructions x_hat, P numbers each, the generator's loss is

    KL    P mean r / exp(s) + P s  +  kl_weight KL  +  lambda g         sums over an image, means over images
    VQ    mean r  +  codebook_weight codebook loss  +  lambda g
    r = |x - x_hat| + perceptual_weight LPIPS(x, x_hat)                 LPIPS at every pixel and channel
    g = -mean D(x_hat)

with the log variance s, 0 unless it is learned, and the adaptive weight

    lambda = disc_weight min(|grad n| / (|grad g| + 1e-4), 1e4)         0 before step disc_start

of the gradients with respect to the decoder's last kernel, n being the terms with r. The discriminator's loss is
the hinge mean(relu(1 - D(x)) + relu(1 + D(x_hat))) / 2, or the softplus of vanilla GANs.

That the KL stage sums where the VQ stage averages is the original's, kept so that its kl_weight, log variance and
the bound of lambda mean what they meant. Its log variance is a parameter that no optimizer has, so that 0 is what
the published stages were trained with. Its disc_factor only multiplies disc_weight, as Adam does not see a factor.
Ref: Rombach et al. 2022, arXiv:2112.10752, appendix G; Esser et al. 2021, arXiv:2012.09841, eq. 4 to 7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.build import unknown
from ldm_jax.data import pipeline
from ldm_jax.images import to_float
from ldm_jax.models import quantizer, vae
from ldm_jax.training.stages import first_stage_losses as losses
from ldm_jax.training.trained import Trained
from ldm_jax.types import Array, PyTree

WEIGHTS = ('perceptual_weight', 'kl_weight', 'codebook_weight', 'disc_weight', 'disc_start')
DECODER = ('decoder', 'post_quant_conv')
LAST = ('decoder', 'conv_out', 'kernel')


@dataclasses.dataclass(frozen=True)
class Stage(Trained):
    """An autoencoder learns to reconstruct images through latents near a standard normal, or of a codebook.

    Attributes:
        first_stage: models/vae.py or models/vq.py.
        image_size: pixels along a side.
        pretrained: part -> parameters: 'perceptual', which stays as it is, and 'first_stage' and 'discriminator' to
            train on from, which are fresh by default.
        train: 'all', or 'decoder' to keep the encoder (and the codebook), so that latents stay what they were.
        perceptual: models/lpips.py; perceptual_weight 0 goes without.
        discriminator: models/discriminator.py; None goes without.
        disc_start: updates before the adversary joins; until then nothing of it is computed or changed.
        learn_logvar: train the log variance too (KL).

    Raises ValueError for settings that contradict each other.
    """

    first_stage: nn.Module
    image_size: int
    pretrained: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    train: str = 'all'
    pixel_loss: str = 'l1'
    perceptual: nn.Module | None = None
    perceptual_weight: float = 1.0
    kl_weight: float = 1e-6
    learn_logvar: bool = False
    logvar: float = 0.0
    codebook_weight: float = 1.0
    discriminator: nn.Module | None = None
    disc_loss: str = 'hinge'
    disc_weight: float = 0.5
    disc_start: int = 0

    def __post_init__(self):
        for field, have in (
            ('pixel_loss', losses.PIXEL),
            ('disc_loss', losses.ADVERSARIAL),
            ('train', ('all', 'decoder')),
        ):
            if getattr(self, field) not in have:
                raise unknown(field, getattr(self, field), sorted(have))
        for field in WEIGHTS:
            if getattr(self, field) < 0:
                raise ValueError(f'stage.{field} must be at least 0; got {getattr(self, field)}.')
        side = self.first_stage.downscale
        if self.image_size < 1 or self.image_size % side:
            raise ValueError(f'stage.image_size must be a multiple of {side} pixels; got {self.image_size}.')
        if self.perceptual_weight and (self.perceptual is None or 'perceptual' not in self.pretrained):
            raise ValueError(
                f'perceptual_weight is {self.perceptual_weight} and there is no perceptual network. Convert one with '
                'tools/convert_loss_networks.py and name it (--config.pretrained.perceptual=models/lpips_vgg), or '
                'set --config.stage.perceptual_weight=0 to go without.'
            )
        if self.train == 'decoder' and 'first_stage' not in self.pretrained:
            raise ValueError(
                "train='decoder' keeps the encoder of a trained first stage; name one as pretrained.first_stage."
            )
        if self.learn_logvar and self._has_codebook:
            raise ValueError('learn_logvar is for KL first stages; a VQ one has no log variance.')

    @property
    def frozen(self) -> dict[str, PyTree]:
        """What the loss needs and nothing changes, by part: 'perceptual', and 'encoder', all but the decoder's half."""
        parts = {'perceptual': self.pretrained['perceptual']} if self.perceptual_weight else {}
        if self.train == 'decoder':
            tree = self.pretrained['first_stage']
            parts['encoder'] = {name: tree[name] for name in tree if name not in DECODER}
        return parts

    def init(self, key: Array) -> PyTree:
        """What the generator's optimizer trains: dict(first_stage=..., and logvar=[] if it is learned)."""
        tree = self.pretrained.get('first_stage')
        if tree is None:
            tree = trees.init(self.first_stage, key, size=self.image_size)
        if self.train == 'decoder':
            tree = {name: tree[name] for name in DECODER}
        logvar = {'logvar': self.logvar} if self.learn_logvar else {}
        return jax.tree.map(jnp.array, {'first_stage': tree, **logvar})  # copies, which may be donated

    def init_discriminator(self, key: Array) -> tuple[PyTree, PyTree]:
        """(parameters, running statistics) of the discriminator."""
        example = jnp.zeros((1, self.image_size, self.image_size, self.first_stage.image_channels))
        variables = nn.meta.unbox(jax.jit(self.discriminator.init)(key, example))
        params = self.pretrained.get('discriminator', variables['params'])
        return jax.tree.map(jnp.array, params), variables['batch_stats']

    def axes(self) -> dict[str, tuple[str | None, ...]]:
        """The logical axes of each parameter of the networks, by its path within their own."""
        modules = [self.first_stage, *filter(None, (self.perceptual, self.discriminator))]
        return {
            name: axes
            for module in modules
            for name, axes in trees.named(trees.logical_axes(module, size=self.image_size)).items()
        }

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples:
        """Examples as the loss wants them: dict(image=float32 [S, S, 3] in [-1, 1])."""
        return pipeline.Mapped(source, lambda example: {'image': to_float(example['image'])})

    def draw(self, key: Array, batch: PyTree) -> Array | None:
        """Noise [B, h, w, Z] of the posterior's sample; None for VQ, which has none."""
        if self._has_codebook:
            return None
        b, h, w, _ = batch['image'].shape
        f = self.first_stage.downscale
        return jax.random.normal(key, (b, h // f, w // f, self.first_stage.z_channels))

    def loss(
        self, params: PyTree, batch: PyTree, draws: Array | None, adversary: losses.Adversary | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """The generator's loss and metrics, means over the batch; 'kl' is in nats an image.

        Its gradient is made here, since lambda needs the gradient of each term at the reconstruction: passing
        them on to the parameters once is all that is left. There is no second derivative.
        """
        image, axis_name = batch['image'], None if adversary is None else adversary.axis_name
        trained = {name: params[name] for name in ('first_stage', 'logvar') if name in params}
        params = jax.lax.stop_gradient({**self.frozen, **params})
        logvar = jnp.asarray(params.get('logvar', self.logvar), float)

        def forward(tree):
            fake, regularizer, metrics = self._forward(
                {**params, 'first_stage': tree}, image, draws, axis_name
            )
            return (fake, regularizer), metrics

        def nll(fake, logvar):
            return self._nll(fake, logvar, image, params.get('perceptual'))

        (fake, regularizer), backward, metrics = jax.vjp(forward, params['first_stage'], has_aux=True)
        (value, measured), (d_fake, d_logvar) = jax.value_and_grad(nll, (0, 1), has_aux=True)(fake, logvar)
        value, metrics = value + regularizer, metrics | measured
        if adversary is not None:

            def last(d_fake):  # the parts of backward that this does not need are never computed under jit
                tree = backward((d_fake, jnp.zeros_like(regularizer)))[0]
                return losses.mean(tree[LAST[0]][LAST[1]][LAST[2]], axis_name)

            g, d_g = self._generator_term(fake, adversary)
            weight = self.disc_weight * losses.adaptive_weight(last(d_fake), last(d_g)) * adversary.active
            value, d_fake = value + weight * g, d_fake + weight * d_g
            metrics |= {'g_loss': g, 'disc_weight': weight}
        gradient = {'first_stage': backward((d_fake, jnp.ones_like(regularizer)))[0]}
        if 'logvar' in trained:
            gradient['logvar'] = d_logvar
            metrics['logvar'] = logvar
        return losses.with_gradient(value, gradient, trained), metrics

    def discriminator_loss(
        self, params: PyTree, batch_stats: PyTree, real: Array, fake: Array, axis_name: str | None = None
    ) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
        """(loss, (running statistics, metrics)) of images and reconstructions [B, H, W, C].

        Each has norms of its own, so the statistics are updated by one, then by the other.
        """

        def logits(x, batch_stats):
            return self.discriminator.apply(
                {'params': params, 'batch_stats': batch_stats},
                x,
                axis_name=axis_name,
                mutable=['batch_stats'],
            )

        real, state = logits(real, batch_stats)
        fake, state = logits(fake, state['batch_stats'])
        terms = losses.ADVERSARIAL[self.disc_loss](real, fake)
        metrics = {'logits_real': jnp.mean(real), 'logits_fake': jnp.mean(fake)}
        return 0.5 * sum(map(jnp.mean, terms)), (state['batch_stats'], metrics)

    def reconstruct(self, params: PyTree, batch: PyTree, draws: Array | None) -> Array:
        """Reconstructions [B, H, W, C], as the loss sees them."""
        return self._forward({**self.frozen, **params}, batch['image'], draws, None)[0]

    def image(self, params: PyTree, batch: PyTree, draws: PyTree) -> Array:
        """Rows of images [2, B, S, S, 3]: inputs over their reconstructions, a KL stage's from the posterior's mean."""
        return jnp.stack([batch['image'], self.reconstruct(params, batch, None)])

    def export(self, params: PyTree, batches: Iterable[PyTree]) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """(settings, parameters by part); scaling_factor is one over the standard deviation of the batches' latents.

        Where the encoder has stayed as it was, so has the scale.
        """
        whole = _whole({**self.frozen, **params})
        if self.train == 'decoder':
            return {}, {'first_stage': whole}

        @jax.jit
        def encode(x):
            return self.first_stage.apply({'params': whole}, x, method='latents')

        latents = np.concatenate([np.asarray(encode(batch['image'])) for batch in batches])
        return {'scaling_factor': float(1 / latents.std())}, {'first_stage': whole}

    @property
    def _has_codebook(self) -> bool:
        return hasattr(self.first_stage, 'num_codes')

    def _forward(
        self, params: PyTree, image: Array, draws: Array | None, axis_name: str | None
    ) -> tuple[Array, Array, dict[str, Array]]:
        """(reconstruction, regularizer, metrics)."""
        variables = {'params': _whole(params)}
        if not self._has_codebook:
            fake, moments = self.first_stage.apply(variables, image, draws)
            kl = jnp.mean(vae.kl_divergence(moments))
            return fake, self.kl_weight * kl, {'kl': kl}
        fake, codebook, indices = self.first_stage.apply(variables, image)
        counts = quantizer.code_counts(indices, self.first_stage.num_codes)
        counts = counts if axis_name is None else jax.lax.psum(counts, axis_name)
        return (
            fake,
            self.codebook_weight * codebook,
            {'codebook': codebook, **quantizer.codebook_usage(counts)},
        )

    def _nll(
        self, fake: Array, logvar: Array, image: Array, perceptual: PyTree
    ) -> tuple[Array, dict[str, Array]]:
        """The terms with r, and metrics."""
        difference = losses.PIXEL[self.pixel_loss](image - fake)
        error, metrics = jnp.mean(difference), {self.pixel_loss: jnp.mean(difference)}
        if self.perceptual_weight:
            lpips = jnp.mean(self.perceptual.apply({'params': perceptual}, image, fake))
            error, metrics = error + self.perceptual_weight * lpips, metrics | {'lpips': lpips}
        mse = jnp.mean((image - fake) ** 2, axis=(1, 2, 3))
        metrics['psnr'] = jnp.mean(10 * jnp.log10(4 / mse))  # of each image, so that means over devices agree
        if self._has_codebook:
            return error, metrics
        return image[0].size * (error / jnp.exp(logvar) + logvar), metrics

    def _generator_term(self, fake: Array, adversary: losses.Adversary) -> tuple[Array, Array]:
        """g and its gradient with respect to the reconstruction; zeros while the adversary is not active."""

        def g(fake):
            logits = self.discriminator.apply(
                {'params': adversary.params}, fake, axis_name=adversary.axis_name
            )
            return -jnp.mean(logits)

        found = jax.value_and_grad(g)
        shapes = jax.eval_shape(found, fake)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.cond(adversary.active, found, lambda _: zeros, fake)


def _whole(params: PyTree) -> PyTree:
    """The first stage's parameters, trained and not."""
    return {**params.get('encoder', {}), **params['first_stage']}
