"""UKPConvArg1 (Habernal & Gurevych, ACL 2016): which of two arguments is more convincing, by about five votes a pair.

Two layouts give the same rows: JSON lines (`arguments.jsonl`, `pairs.jsonl`, and `strict.csv` where the strict set is
wanted), and the XML files of the public release (`<debate>_<side>.xml`); each file plain or gzip. Texts are as written,
but for line ends, which become a line feed. The data are licensed CC-BY-4.0.
"""

from rmlib.sources.ukpconvarg1.files import is_layout
from rmlib.sources.ukpconvarg1.table import PUBLISHED, SUBSETS, consensus, counts, gold, load, workers

__all__ = ["PUBLISHED", "SUBSETS", "consensus", "counts", "gold", "is_layout", "load", "workers"]
