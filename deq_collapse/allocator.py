"""Makes the C library's allocator keep the memory that a training step frees."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for the next tensor instead of returning it to the kernel.

    Otherwise every step faults in the pages of its activations again: on one core, a tenth to a quarter of a
    training step and half of an evaluation. Peak memory does not change. It does nothing if the environment
    sets glibc's thresholds, or with another C library.
    """
    given = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if given or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_TRIM_THRESHOLD, 2**30)
    libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest value allowed
