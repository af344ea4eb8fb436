"""Several processes that train one model, as torchrun starts them; without torchrun, one.

Each process has its own device and trains on its share of every batch (`agents.draws`).
DistributedDataParallel sums their gradients, so the weights are those of one process with the whole
batch, up to rounding. The main process, number 0, alone reads and writes the run's folder, prints,
and evaluates the test split. gloo connects processes on the CPU, nccl those on GPUs.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from signal import Signals
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from agents import draws
from agents.objective import Losses

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""How long a process waits for another that lives but does not answer; one that dies is noticed at
once. One may compile its step, or save to a slow disk, while the others wait."""
BEFORE_TRAINING = timedelta(days=1)
"""How long processes wait for one that still prepares its data."""

_store: dist.Store | None = None  # what the processes share beside tensors


def launched() -> bool:
    """Whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


def is_main() -> bool:
    """Whether this is the only process, or the one that writes."""
    return not launched() or os.environ["RANK"] == "0"


def local_process() -> int:
    """Number of this process on its machine."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def local_processes() -> int:
    """Processes on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() else 1


def launcher() -> list[str]:
    """The words after ``python`` that start as many processes again."""
    if not launched():
        return []
    machines = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    place = ["--nnodes", str(machines), "--rdzv-backend", "c10d"]
    place += ["--rdzv-endpoint", os.environ["MASTER_ADDR"] + ":29400"]
    here = ["--nproc-per-node", str(local_processes())]
    return ["-m", "torch.distributed.run", *(place if machines > 1 else []), *here]


def joined() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized()


def processes() -> int:
    """Processes that train together."""
    return dist.get_world_size() if joined() else 1


def quiet() -> None:
    """Only the main process prints."""
    if not is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def join(device: torch.device) -> None:
    """Joins the processes that torchrun started, once all of them have prepared their data."""
    global _store
    if not launched() or joined():
        return
    _store, process, count = next(dist.rendezvous("env://", timeout=BEFORE_TRAINING))
    meet("joined")
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    group: Any = {"store": _store, "rank": process, "world_size": count, "timeout": PATIENCE}
    dist.init_process_group(backend, **group)


def meet(place: str) -> None:
    """Waits until all processes are at a place of the program, however long that takes."""
    if _store is not None:
        _store.set(f"{place}-{os.environ['RANK']}", "")
        all_here = [f"{place}-{k}" for k in range(int(os.environ["WORLD_SIZE"]))]
        _store.wait(all_here, BEFORE_TRAINING)


def leave() -> bool:
    """Ends the training together; whether this process goes on, alone."""
    if joined():
        dist.destroy_process_group()
    return is_main()


def says(text: str) -> bool:
    """Whether this process prints an error: once they train together, one of those that have it."""
    if _store is None:  # each has its own reason, as far as they know
        return True
    try:
        return _store.add(text, 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return True


def is_lost(error: BaseException | None) -> bool:
    """Whether an error says that another process does not answer."""
    at_fault = isinstance(error, dist.DistError) or "gloo" in str(error)
    return joined() and isinstance(error, RuntimeError) and at_fault


# -- values that all processes share ---------------------------------------------------------------


def from_main(make: Callable[[], T]) -> T:
    """What a function returns, or raises, in the main process; it is called there alone.

    What it draws of torch's random numbers on the CPU, as a network does that is made, counts as
    drawn in all processes.
    """
    if not joined():
        return make()
    found: list[Any] = [None, None, None]
    if is_main():
        try:
            found[0] = make()
        except Exception as error:
            found[1] = error
        found[2] = torch.get_rng_state()
    dist.broadcast_object_list(found, src=0)
    value, problem, drawn = found
    torch.set_rng_state(drawn)
    if problem is not None:
        raise problem
    return value


def summed(tensor: Tensor) -> Tensor:
    """The sum of the processes' tensors, in place."""
    if joined():
        dist.all_reduce(tensor)
    return tensor


def mean_of_batch(means: Tensor) -> Tensor:
    """Means over a whole batch, from the means over each process's share of it."""
    return summed(means * draws.part_of_batch()) if joined() else means


def share_of(images: int) -> draws.Share | None:
    """This process's share of a batch of some images; None if there is only one process."""
    return draws.Share(dist.get_rank(), processes(), images) if joined() else None


def own(indices: Tensor) -> Tensor:
    """The images of a batch ``(B,)`` that belong to this process."""
    return indices[dist.get_rank() :: processes()] if joined() else indices


def gathered(part: Tensor, images: int, dim: int = 0) -> Tensor:
    """Joins each process's values of its `own` images into one tensor of all images.

    Dimension `dim` of `part` are this process's images; that of the result all `images` images.
    """
    if not joined():
        return part
    shape = (*part.shape[:dim], images, *part.shape[dim + 1 :])
    whole = torch.zeros(shape, dtype=part.dtype, device=part.device)
    place = own(torch.arange(images, device=part.device))
    return summed(whole.index_copy_(dim, place, part))


class SharedSignal:
    """Tells all processes of a signal that any of them got, after the same batch."""

    def __init__(self) -> None:
        self._flag = torch.tensor(0)
        self._work: Any = None

    def __call__(self, got: Signals | None, now: bool = False) -> Signals | None:
        """The signal that some process had at the last call; with `now`, at this one.

        Without `now` no process waits for slower ones.
        """
        if not joined():
            return got
        agreed = self._answer()
        if not agreed:
            self._flag = torch.tensor(got or 0)
            self._work = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)
            agreed = self._answer() if now else 0
        return Signals(agreed) if agreed else None

    def _answer(self) -> int:
        if self._work is None:
            return 0
        self._work.wait()
        self._work = None
        return int(self._flag)


# -- one model -------------------------------------------------------------------------------------


def spread(
    model: nn.Module, loss: Callable[..., Losses], partly: bool = False
) -> Callable[..., Losses]:
    """A loss of `model` whose gradient is that of the whole batch, in all processes.

    `partly`: whether the loss leaves out some of the learned parameters in some epochs. Batch norms
    use the statistics of the whole batch from here on. In one process it is the loss as it is.
    """
    if not joined():
        return loss
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
    forward = _OneForward(model, loss)
    # Equal in all processes: the statistics of batch norms, and constants.
    buffers = [name for name, _ in forward.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(forward, buffers)
    return DistributedDataParallel(forward, find_unused_parameters=partly)


class _OneForward(nn.Module):
    """A loss as one forward, through which DistributedDataParallel follows the gradient."""

    def __init__(self, model: nn.Module, loss: Callable[..., Losses]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: Any) -> Losses:
        losses = self.loss(*batch)
        # The gradients will be averaged over processes, whose shares may differ by an image.
        weight = processes() * draws.part_of_batch()
        losses.total.register_hook(lambda gradient: weight * gradient)
        return losses


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm over the whole batch of all processes; as SyncBatchNorm, also on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and joined()):
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """Batch norm of the processes' features ``(B, C, H, W)``, and its statistics ``(C,)``.

    Sums are of float64, so that they do not depend on how the images are shared. On the CPU torch's
    own batch norm is less exact: with channels last its outputs can be wrong by a thousandth.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        values, over = x.float(), (0, 2, 3)
        sums = values.sum(over, dtype=torch.float64)
        sums = summed(torch.cat([sums, sums.new_full((1,), x.numel() / x.shape[1])]))
        count = sums[-1]
        mean = (sums[:-1] / count).float()
        centred = values - mean[:, None, None]
        squares = summed(centred.square().sum(over, dtype=torch.float64))
        scale = (squares / count + epsilon).rsqrt().float()
        normal = centred * scale[:, None, None]
        ctx.save_for_backward(normal, scale, weight, count)
        y = normal * weight[:, None, None] + bias[:, None, None]
        unbiased = (squares / (count - 1)).float()
        ctx.mark_non_differentiable(mean, unbiased)
        return y.to(x.dtype), mean, unbiased

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        normal, scale, weight, count = ctx.saved_tensors
        over, values = (0, 2, 3), gradient.float()
        own = torch.stack(
            [part.sum(over, dtype=torch.float64) for part in (values, values * normal)]
        )
        of_bias, of_weight = own.float()
        offset, slope = (summed(own) / count).float()[..., None, None]
        of_x = (values - offset - normal * slope) * (weight * scale)[:, None, None]
        return of_x.to(gradient.dtype), of_weight, of_bias, None
