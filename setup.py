"""Installs ldm_jax: the base holds what sampling needs, extras the rest."""

import pathlib
import re

from setuptools import find_packages, setup

VERSION = re.search(r"__version__ = '(.+)'", pathlib.Path('ldm_jax/__init__.py').read_text())[1]

TRAIN = [
    'array-record>=0.8.6',
    'grain>=0.2.18',
    'importlib_resources>=7.0',  # TensorFlow Datasets imports it and does not name it
    'msgpack>=1.2',
    'optax>=0.2.8',
    'protobuf>=7',
    'pyarrow>=26',
    'tensorboardX>=2.6.5',
    'tensorflow-datasets>=4.9.10',
]

setup(
    name='ldm_jax',
    version=VERSION,
    description='Stable Diffusion and latent diffusion research in JAX and Flax',
    long_description=pathlib.Path('README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=find_packages(include=['ldm_jax', 'ldm_jax.*', 'configs']),
    package_data={
        'ldm_jax': ['py.typed', 'text/*.gz', 'text/*.LICENSE', 'data/builders/*.tsv', 'weights/**']
    },
    install_requires=[
        'absl-py>=2.5.1',
        'flax>=0.12.8',
        'ftfy>=6.3.1',
        'filelock>=4.2',
        'huggingface_hub>=2.4',
        'jax>=0.10.2',
        'ml-collections>=1.1.0',
        'ml-dtypes>=0.6',
        'numpy>=2.4.6',
        'orbax-checkpoint>=0.12.8',
        'pillow>=13.0',
        'pyyaml>=6.0.3',
        'scipy>=1.17',
        'regex>=2025.10.22',
        'tokenizers>=0.23.1',
        'tqdm>=4.70',
        'transformers>=5.23',
    ],
    extras_require={
        'train': TRAIN,
        'test': [
            *TRAIN,
            'diffusers>=0.42.1',
            'hypothesis>=6.160',
            'mypy>=2.4',
            'pytest>=9.2',
            'pytest-timeout>=2.4',
            'pytest-xdist>=3.8',
            'resvg-py>=0.5',
            'ruff>=0.17',
            'safetensors>=0.8.0',
            'torch>=2.13',
        ],
        'emoji64': ['resvg-py>=0.5'],
        'wandb': ['wandb>=0.31'],
        'cuda': ['jax[cuda12]>=0.10.2'],
        'tpu': ['jax[tpu]>=0.10.2'],
    },
)
