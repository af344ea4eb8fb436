"""Runs functions in several processes that train together, as torchrun would start them."""

import copy
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from agents import draws
from train import one_look, reinforce
from train.common import distributed
from train.common.run import run_program
from train.common.training import TrainingRun, open_run, open_task
from train.dtram.networks import new_agent
from train.reinforce import Options, train_stopper, train_trunk

CPU = torch.device("cpu")
LIMIT = 300  # seconds


def together(count: int, function: Callable[..., object], *arguments: Any) -> None:
    """Calls ``function(*arguments)`` in `count` new processes; fails if one of them does.

    The function is one of a module's. New processes are copies of one that has only imported the
    programs, which takes a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.processes"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_one_of, args=(number, count, port, function, arguments))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * count


def _one_of(
    number: int, count: int, port: int, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(number),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    function(*arguments)
    distributed.leave()


# -- what they do ----------


def train_some(options: Options, kill_after: int | None = None) -> None:
    """Trains both stages, without the evaluation of a program; writes the final weights.

    With `kill_after` the last process gets SIGTERM after so many batches, and all end.
    """
    task = open_task(options)
    how = options.stop, options.bf16, options.seed
    agent, _ = new_agent(task, options.encoder, options.core, options.locator, *how)
    run = open_run(options, task, agent, "train/reinforce.py")
    if kill_after is not None:
        signal_after(run, kill_after)
    try:
        with run:
            for stage in run.stages(["trunk", "stopper"]):
                if stage == "trunk":
                    train_trunk(options, task, agent, run, task.max_glimpses, 0)
                else:
                    train_stopper(options, task, agent, run)
    except SystemExit as end:
        assert kill_after is not None and end.code == 128 + signal.SIGTERM
        return
    assert kill_after is None
    if run.is_main:
        save_file(agent.state_dict(), run.path / "final.safetensors")


def signal_after(run: TrainingRun, batches: int) -> None:
    """The last process gets SIGTERM after some batches."""
    count, last = run.count, dist.get_rank() == dist.get_world_size() - 1

    def counted(*arguments: Any, **keywords: Any) -> None:
        nonlocal batches
        count(*arguments, **keywords)
        batches -= 1
        if batches == 0 and last:
            os.kill(os.getpid(), signal.SIGTERM)

    run.count = counted  # type: ignore[method-assign]


def refuse_the_folder(options: Options) -> None:
    """Only the main process sees the folder, and all raise its error."""
    task = open_task(options)
    with pytest.raises(ValueError, match="holds a run already"):
        open_run(options, task, nn.Linear(1, 1), "train/reinforce.py")
    count = torch.tensor(float(distributed.says("the same error")))
    assert distributed.summed(count) == 1


def check_what_is_shared() -> None:
    distributed.join(CPU)
    process, count = dist.get_rank(), distributed.processes()
    for images in (7, count, 1):
        values = torch.arange(2.0 * images).view(2, images)
        own = distributed.own(torch.arange(images))
        assert torch.equal(distributed.gathered(values[:, own], images, dim=1), values)
    torch.manual_seed(process)  # as if only the main process had drawn
    number, drawn = distributed.from_main(lambda: (dist.get_rank(), torch.rand(3)))
    following = torch.rand(3)
    torch.manual_seed(0)
    assert number == 0 and torch.equal(torch.rand(3), drawn)
    assert torch.equal(torch.rand(3), following)
    with draws.sharing(distributed.share_of(7)):
        own_mean = torch.arange(7.0)[process::count].mean()
        torch.testing.assert_close(distributed.mean_of_batch(own_mean), torch.tensor(3.0))
    shared = distributed.SharedSignal()
    got = [shared(signal.SIGTERM if process == k == 1 else None) for k in range(3)]
    assert got == [None, None, signal.SIGTERM]
    assert shared(signal.SIGINT if process == 0 else None, now=True) == signal.SIGINT


def check_batch_norm() -> None:
    """Outputs, gradients and statistics are those of the whole batch."""
    distributed.join(CPU)
    torch.manual_seed(0)
    x, slope = 3 + 2 * torch.randn(7, 4, 5, 6), torch.randn(7, 4, 5, 6)
    own = slice(dist.get_rank(), None, distributed.processes())
    plain = nn.BatchNorm2d(4, momentum=0.3)
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    shared = copy.deepcopy(plain)
    shared.__class__ = distributed.SharedBatchNorm
    found = []
    for norm, part in ((plain, slice(None)), (shared, own)):
        seen = x[part].clone().requires_grad_()
        y = norm(seen)
        (y * slope[part]).sum().backward()
        assert seen.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        found.append((y.detach(), seen.grad, norm.weight.grad, norm.bias.grad, norm.state_dict()))
    whole, mine = found
    for k in (0, 1):
        torch.testing.assert_close(mine[k], whole[k][own])
    for k in (2, 3):
        torch.testing.assert_close(distributed.summed(mine[k]), whole[k])
    torch.testing.assert_close(dict(mine[4]), dict(whole[4]))
    torch.testing.assert_close(shared.eval()(x), plain.eval()(x))


def train_whole(options: Options | one_look.Options) -> None:
    """The whole program."""
    train = reinforce.train if isinstance(options, Options) else one_look.train
    run_program(lambda: train(options))  # type: ignore[arg-type]
