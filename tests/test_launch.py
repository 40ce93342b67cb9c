"""The launch files: shell that parses, arguments that torchrun knows, a module that is there."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
FILES = sorted(LAUNCH.glob("*.sh"))
# A stand-in for Python, and for what Slurm brings: each writes its arguments and does nothing else.
STUB = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$ARGUMENTS"\n'


@pytest.fixture
def stubs(tmp_path: Path) -> dict[str, str]:
    """An environment in which launch files start nothing."""
    tools = {
        "python": STUB,
        "srun": '#!/usr/bin/env bash\nshift\nexec "$@"\n',
        "scontrol": "#!/usr/bin/env bash\nprintf 'node-1\\nnode-2\\n'\n",
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "ARGUMENTS": str(tmp_path / "arguments"), **slurm}


def started(file: Path, environment: dict[str, str]) -> list[str]:
    subprocess.run(["bash", str(file), "run.json"], env=environment, check=True)
    return Path(environment["ARGUMENTS"]).read_text().splitlines()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_launch_file_parses_and_says_how_to_call_it(file: Path, stubs: dict[str, str]) -> None:
    subprocess.run(["bash", "-n", str(file)], check=True)
    bare = subprocess.run(["bash", str(file)], env=stubs, capture_output=True, text=True)
    assert bare.returncode and "usage:" in bare.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_launch_file_starts_the_training_module_with_the_run_file(file: Path, stubs: dict[str, str]) -> None:
    arguments = started(file, stubs)
    assert arguments[-3:] == ["-m", "rmlib.training", "run.json"]
    assert importlib.util.find_spec("rmlib.training")
    if "torch.distributed.run" in arguments:
        parsed = get_args_parser().parse_args(arguments[2:])  # exits at an argument that it does not know
        assert parsed.module and parsed.training_script == "rmlib.training" and parsed.nproc_per_node == "8"


def test_slurm_starts_eight_processes_on_each_node_that_meet_at_the_first(stubs: dict[str, str]) -> None:
    parsed = get_args_parser().parse_args(started(LAUNCH / "slurm.sh", stubs)[2:])
    assert (parsed.nnodes, parsed.rdzv_endpoint, parsed.rdzv_id) == ("2", "node-1:29500", "7")
    assert re.search(r"^#SBATCH --gpus-per-node=8$", (LAUNCH / "slurm.sh").read_text(), re.MULTILINE)


def test_the_run_file_of_the_readme_is_one_that_training_takes() -> None:
    from rmlib.training.settings import TrainSettings

    readme = (LAUNCH.parent / "README.md").read_text()
    job = json.loads(re.search(r"```json\n(.*?)```", readme, re.DOTALL).group(1))  # type: ignore[union-attr]
    TrainSettings.from_dict(job["settings"])
    assert job.keys() <= {"source", "settings", "initialise_from", "adapter", "folder", "processes"}
