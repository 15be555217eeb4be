"""Several processes that train as one.

`torchrun --nproc_per_node=N -m pdeforecast train …` starts N processes. Each draws the batch that a single
process would draw and takes a part of it; losses are divided so that their *mean over the processes* is the
loss of the whole batch, and DistributedDataParallel averages the gradients. So N processes take the steps of
one, up to rounding, and a run may be resumed by another number of them. The first process alone writes.
Without torchrun every function here is the identity.

Processes meet by gloo on CPUs and by NCCL on GPUs, one GPU for each. (Ours have run on CPUs only.)
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pdeforecast.errors import ForecastError, UsageError

_PATIENCE = timedelta(hours=1)
"""How long one waits for the others. An error ends a process, and torchrun then ends the rest at once; this
bounds the wait for another machine that was lost."""


class LostError(ForecastError):
    """Another process of the same training ended."""


def rank() -> int:
    """The number of this process, from 0: the one that writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def together(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started with this one, for the time of a `with`.

    Args:
        device: "cpu", or "cuda": then each process has the GPU of its own number on its machine.

    Raises:
        UsageError: if there are fewer GPUs than processes.
        LostError: if another process ends.
    """
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if device == "cuda":
        local, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if local > there:
            raise UsageError(
                f"expected a GPU for each process; came {local} processes and {there} GPUs.",
                f"Type `torchrun --nproc_per_node={there} …`, or add `--device cpu`.",
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    # After an error the others do not come: nobody waits for them, and torchrun sees this process end.
    try:
        yield
        wait()
    except RuntimeError as error:
        if not isinstance(error, distributed.DistBackendError) and "gloo" not in str(error):
            raise
        raise LostError(
            "expected all processes to go on; another one ended.",
            "Mend what it says, then start them again; with `--resume` if steps were saved.",
        ) from error
    distributed.destroy_process_group()


def wait() -> None:
    """Returns when all processes have come here."""
    if size() > 1:
        distributed.barrier()


def own(chosen: Tensor) -> Tensor:
    """This process's part of a batch.

    Raises:
        UsageError: if there is none for some process.
    """
    if size() > len(chosen):
        raise UsageError(
            f"expected at most {len(chosen)} processes for batches of {len(chosen)}; came {size()}.",
            "Add `--set training.batch=…`, a larger one, or start fewer processes.",
        )
    return chosen.tensor_split(size())[rank()]


def mean(x: Tensor) -> Tensor:
    """The mean of a tensor over the processes; without gradients if there are several."""
    if size() == 1:
        return x
    total = x.detach().clone()
    distributed.all_reduce(total)
    return total / size()


def agreed(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The first process's numbers."""
    if size() == 1:
        return list(numbers)
    told = torch.tensor(numbers, device=device)
    distributed.broadcast(told, 0)
    return told.tolist()


def share(tensors: Iterable[Tensor]) -> None:
    """Gives all processes the first one's values of these tensors."""
    if size() > 1:
        for tensor in tensors:
            # Neither Gloo nor NCCL sends integers of two bytes.
            sent = tensor.detach().int() if tensor.dtype == torch.int16 else tensor.detach()
            distributed.broadcast(sent, 0)
            tensor.detach().copy_(sent)


def averaging(trained: Sequence[nn.Module], loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`loss`, whose gradients in the weights of the modules become their means over the processes."""
    if size() == 1:
        return loss
    # Some weights may have no part in a phase, but then in none of its steps.
    return DistributedDataParallel(_Step(trained, loss), static_graph=True)


class _Step(nn.Module):
    """The loss of a step as what DistributedDataParallel can hold: weights, and no buffers."""

    def __init__(self, trained: Sequence[nn.Module], loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weight for part in trained for weight in part.parameters())
        self.loss = loss

    def forward(self, *parts: object) -> Tensor:
        return self.loss(*parts)
