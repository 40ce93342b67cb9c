"""What a process needs for its speed is in force once training is imported, or is said to be missing."""

import ctypes
import os
import subprocess
import sys

import pytest

from rmlib.training.machine import KEPT

ON_GLIBC = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    """What a new process says that was started without any of the variables."""
    unset = {name: value for name, value in os.environ.items() if name not in {*KEPT, "OMP_WAIT_POLICY"}}
    return subprocess.run([sys.executable, "-c", code], env=unset, capture_output=True, text=True, check=True)


@pytest.mark.skipif(not ON_GLIBC, reason="only glibc gives freed memory back so soon, and has mallopt")
def test_a_fresh_process_that_imports_training_keeps_freed_memory_and_lets_threads_sleep() -> None:
    code = "import os, sys, rmlib.training as t; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    assert fresh(code + "; print(t.machine.prepare())").stdout.split() == ["False", "PASSIVE", "True"]


def test_a_process_that_imported_torch_first_is_told_what_to_do() -> None:
    # A module of that name stands for torch, which takes seconds to import.
    said = fresh("import sys; sys.modules['torch'] = sys; import rmlib.training.settings").stderr
    assert "import rmlib first, or start with OMP_WAIT_POLICY=PASSIVE" in said
