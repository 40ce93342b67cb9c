"""Two processes from the function that a notebook cell calls: `python tests/notebook_launch.py FOLDER PORT`."""

import sys
from pathlib import Path

from accelerate import notebook_launcher


def cell(folder: str) -> None:
    """What a notebook's cell would define: the library is imported in the processes, not before."""
    from several_processes import work

    work(Path(folder))


if __name__ == "__main__":
    notebook_launcher(cell, (sys.argv[1],), num_processes=2, use_port=sys.argv[2])
