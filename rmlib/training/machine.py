"""How this process keeps memory and lets threads wait: set when `rmlib.training` is imported, before the first step."""

import ctypes
import logging
import os
from functools import cache

logger = logging.getLogger(__name__)

# A step allocates what the last one freed, which glibc gives back to the system and faults in again, page by page;
# these keep it. Parameters of mallopt (malloc.h), each with the variable that says the same at the start of a process.
KEPT = {"MALLOC_MMAP_THRESHOLD_": (-3, 2**30), "MALLOC_TRIM_THRESHOLD_": (-1, -1), "MALLOC_TOP_PAD_": (-2, 2**28)}


@cache
def prepare() -> bool:
    """Have freed memory kept and waiting threads sleep; whether both are in force. What is not is logged, once.

    A process that was started with one of the variables of `KEPT` is left as it is; only glibc has something to set.
    OpenMP reads `OMP_WAIT_POLICY`, which importing `rmlib` sets, when torch is loaded.
    """
    is_kept = bool(KEPT.keys() & os.environ) or _set_in_glibc()
    sleeps = "OMP_WAIT_POLICY" in os.environ
    if not sleeps:
        logger.warning(
            "torch was imported before rmlib, so its waiting threads keep the cores from others: import rmlib first, "
            "or start with OMP_WAIT_POLICY=PASSIVE"
        )
    return is_kept and sleeps


def _set_in_glibc() -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    refused = [name for name, (parameter, value) in KEPT.items() if mallopt(parameter, value) != 1]
    if refused:
        logger.warning("glibc refused to keep freed memory, steps are slower: start the process with %s set", refused)
    return not refused
