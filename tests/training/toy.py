"""A stage that costs nothing, for tests of the code around the step: a line learns to sum noisy inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data import pipeline
from ldm_jax.training.trained import Trained


@dataclasses.dataclass(frozen=True)
class Stage(Trained):
    """Has no network."""

    width: int = 3

    def init(self, key):
        return {'kernel': jax.random.normal(key, (self.width,))}

    def prepare(self, source):
        x = np.random.default_rng(0).standard_normal((len(source), self.width)).astype(np.float32)
        return pipeline.InMemory({'x': x})

    def axes(self):
        return {'kernel': ('embed',)}

    def draw(self, key, batch):
        return 0.1 * jax.random.normal(key, batch['x'].shape)

    def loss(self, params, batch, draws):
        error = (batch['x'] + draws) @ params['kernel'] - batch['x'].sum(axis=1)
        return jnp.mean(error**2), {'bias': jnp.mean(error)}

    def image(self, params, batch, draws):
        return jnp.broadcast_to(
            params['kernel'][:, None, None, None, None], (self.width, len(batch['x']), 4, 4, 3)
        )

    def export(self, params, batches):
        return {}, {'line': params}
