"""Reward models from ratings and from preferences: HelpSteer2-Preference (arXiv 2410.01257), from pairs to figures."""

import logging

# Before anything imports it: it notes a kernel that it did not download.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"
