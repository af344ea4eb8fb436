"""Memory of a program: what it frees it keeps, and uses again."""

import ctypes

# Parameters of glibc's mallopt, in malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Keeps the C library from giving large arrays back to the system and asking for them again.

    By default glibc maps every large array anew, and the system clears its pages, which takes time
    in every batch. The process keeps its peak of memory until it ends. Other C libraries are left
    as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
    mallopt(TOP_PAD, 2**26)
