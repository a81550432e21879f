"""The config of toy.Stage."""

from ml_collections import ConfigDict

from configs import common


def get_config(arg=''):
    return ConfigDict(
        dict(
            stage=dict(name='tests.training.toy'),
            models=dict(),
            data=dict(name='synthetic', image_size=4),
            optimizer=dict(lr=1e-2, warmup_steps=5),
            run=common.run(60, 8, log_every=7, save_every=1, image_every=20, keep_every=25),
        )
    )
