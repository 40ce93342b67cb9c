"""Two processes from the function that a notebook cell calls: `python tests/notebook_launch.py FOLDER PORT MODULE`."""

import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from accelerate import notebook_launcher

TESTS = Path(__file__).resolve().parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
SECONDS = 600  # of a machine that is busy with other things; idle, it takes some 15


def launch(module: str, folder: Path) -> None:
    """Call the `work` of a module in two processes, with a folder that holds what they need and take their runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(folder), str(port), module]
    environment = os.environ | ENVIRONMENT | {"RMLIB_RUNS": str(folder / "runs")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def cell(folder: str, module: str) -> None:
    """What a notebook's cell would define: the library is imported in the processes, not before."""
    import_module(module).work(Path(folder))


if __name__ == "__main__":
    notebook_launcher(cell, (sys.argv[1], sys.argv[3]), num_processes=2, use_port=sys.argv[2])
