"""Shared set-up: tests run on the CPU, with eight devices for the ones that shard."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the suite's time is compiling small networks once: without LLVM's optimizations that takes half as long,
# and another third less with XLA's older code generator.
os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
    ' --xla_cpu_use_fusion_emitters=false',
)
