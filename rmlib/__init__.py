"""Reward models from ratings and from preferences: HelpSteer2-Preference (arXiv 2410.01257), from pairs to figures."""

__version__ = "0.1.0"
