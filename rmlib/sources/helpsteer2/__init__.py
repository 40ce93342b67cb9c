"""HelpSteer2 (arXiv 2406.08673) and its preferences (arXiv 2410.01257), from the files as released (CC-BY-4.0).

`train.jsonl.gz` and `validation.jsonl.gz` hold one rated response a row, two adjacent rows a prompt. Where present,
`preference/preference.jsonl.gz` holds the preferences between the two, and `disagreements/disagreements.jsonl.gz` the
ratings of single annotators.
"""

from rmlib.sources.helpsteer2.table import is_layout, load

__all__ = ["is_layout", "load"]
