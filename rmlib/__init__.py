"""Reward models from ratings and from preferences: HelpSteer2-Preference (arXiv 2410.01257), from pairs to figures."""

import logging
import os
import sys

# Before anything imports it: it notes a kernel that it did not download.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Threads that spin while they wait make a step many times slower as soon as another process wants a core. OpenMP reads
# this when torch is loaded; where that was before, `training.machine` says so.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
