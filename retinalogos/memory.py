"""What becomes of memory that the process frees."""

import ctypes

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SETTINGS = {
    # The largest that glibc's own adjustment goes to (mallopt(3)); larger blocks are still given back one by one.
    _MMAP_THRESHOLD: 32 * 2**20,
    # Never: the largest integer it takes.
    _TRIM_THRESHOLD: 2**31 - 1,
}


def keep_freed_memory() -> bool:
    """Lets this process keep freed blocks of up to 32 MiB for its next ones; False where the C library is not glibc.

    A network's step on a CPU frees its activations and asks for as much again. glibc gives most of them back to the
    system each time, and every page is then cleared and mapped anew, which takes a seventh of a Next-DiT's training
    step (``benchmarks/next_dit.py``); of a U-Net's it takes nothing that was seen. Memory of further threads is given
    back as before. Kept blocks do not add to the peak, they stay at it until the process ends.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return all(mallopt(name, value) == 1 for name, value in _SETTINGS.items())
