"""Several processes that train one model: who takes which examples, and the few things they tell each other.

Started by torchrun, `accelerate launch` or `accelerate.notebook_launcher`; one process needs none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from rmlib.models.batches import Group

Result = TypeVar("Result")
PATIENCE = timedelta(hours=2)  # while the first process tokenises, or computes features, the others wait


class ProcessesError(RuntimeError):
    """Processes that were asked for and did not start, or that were started to be used in another way."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; collective methods are called by all of them, in one order."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def join(cls, asked: int | None = None) -> Processes:
        """Join the processes that the launcher started; raises ProcessesError where these are not the `asked` ones."""
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        _refuse_other_engines()
        _refuse_missing(state.num_processes, asked)
        return cls(state.process_index, state.num_processes, state.device)

    @staticmethod
    def leave() -> None:
        """End the communication; the processes go on alone."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Sums over the processes, in double precision; alone, the values as they are."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, by rank; known to all."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def on_main(self, action: Callable[[], Result]) -> Result:
        """What `action` gives in the first process, for all; its error is raised in all, so that none waits in vain."""
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = action()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def add_gradients(self, weights: Iterable[torch.Tensor]) -> None:
        """Put the sum over the processes in the place of each weight's gradient; one that has none counts as zero."""
        if self.size == 1:
            return
        sent = []
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            sent.append(dist.all_reduce(weight.grad, async_op=True))
        for one in sent:
            one.wait()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The first process goes through the block before the others, which then find what it has kept on disk."""
        if self.size > 1 and not self.is_main:
            dist.barrier()
        yield
        if self.size > 1 and self.is_main:
            dist.barrier()


ALONE = Processes()


def shares(groups: Sequence[Group], indices: Sequence[int], size: int) -> list[list[int]]:
    """The indices dealt to `size` processes, each in the order given: the longest first, to whom has fewest tokens.

    Every process computes all shares, so that nothing has to be sent. A share is empty where there are fewer indices.
    """
    if size == 1:
        return [list(indices)]
    load, dealt = [0] * size, [set[int]() for _ in range(size)]
    for position in sorted(range(len(indices)), key=lambda at: (-groups[indices[at]].n_tokens_shared, at)):
        rank = min(range(size), key=lambda at: (load[at], at))
        load[rank] += groups[indices[position]].n_tokens_shared
        dealt[rank].add(position)
    return [[indices[position] for position in sorted(share)] for share in dealt]


def _refuse_missing(size: int, asked: int | None) -> None:
    advice = "on a CPU start them with torchrun --nproc_per_node=N -m rmlib.training run.json"
    if asked is not None and asked != size:
        raise ProcessesError(f"{asked} processes were asked for and {size} started; {advice}")
    # accelerate names an address for processes that, without a GPU, it does not start.
    if size == 1 and {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys() and "RANK" not in os.environ:
        raise ProcessesError(f"accelerate launch was asked for several processes and started one; {advice}")


def _refuse_other_engines() -> None:
    for engine in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true":
            raise ProcessesError(
                f"accelerate is configured for {engine}, which is not used here: weights are spread by the setting "
                "sharding='full'; launch with --multi_gpu"
            )
