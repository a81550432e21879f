"""Installs ldm_jax: the base holds what sampling needs, extras the rest."""

import pathlib
import re

from setuptools import find_packages, setup

VERSION = re.search(r"__version__ = '(.+)'", pathlib.Path('ldm_jax/__init__.py').read_text())[1]

TRAIN = [
    'array-record>=0.8.1',
    'grain>=0.2.15',
    'importlib_resources>=6.4',  # TensorFlow Datasets imports it and does not name it
    'msgpack>=1.0.8',
    'opencv-python-headless>=4.12.0.88',
    'optax>=0.2.8',
    'protobuf>=6.31.1',
    'pyarrow>=18',
    'tensorboardX>=2.6.2.2',
    'tensorflow-datasets>=4.9.8',
]

PLOTS, SLURM, RAY = ['matplotlib>=3.11.2'], ['submitit>=1.5.4'], ['ray>=2.60.0']

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
        'absl-py>=2.1',
        'flax>=0.12.2',
        'ftfy>=6.3',
        'filelock>=3.16',
        'huggingface_hub>=1.3',
        'jax>=0.10.2',
        'ml-collections>=1.0',
        'ml-dtypes>=0.5',
        'numpy>=2.0',
        'orbax-checkpoint>=0.12',
        'pillow>=11.3',
        'pyyaml>=6.0.1',
        'scipy>=1.14',
        'regex>=2025.10.22',
        'tokenizers>=0.22.1',
        'tqdm>=4.66',
        'transformers>=5.3',
    ],
    extras_require={
        'train': TRAIN,
        'sweeps': PLOTS,
        'slurm': SLURM,
        'ray': RAY,
        'test': [
            *TRAIN,
            *PLOTS,
            *SLURM,
            *RAY,
            'diffusers>=0.36',
            'hypothesis>=6.120',
            'lycoris-lora>=4.1.3',
            'mypy>=2.4',
            'peft>=0.21.2',
            'playwright>=1.65.2',
            'pytest>=8.3',
            'pytest-timeout>=2.3.1',
            'pytest-xdist>=3.6.1',
            'resvg-py>=0.5',
            'ruff>=0.17',
            'safetensors>=0.7',
            'torch>=2.13',
        ],
        'emoji64': ['resvg-py>=0.5'],
        'wandb': ['wandb>=0.31'],
        'cuda': ['jax[cuda12]>=0.10.2'],
        'tpu': ['jax[tpu]>=0.10.2'],
    },
)
