"""Evaluates one-look networks on whole splits: predictions, halting costs, the report, and pictures
of where SACT computed."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from agents.cost import count_flops
from agents.files import write_tensors
from agents.halting.act_resnet import ACTOutput, ACTResNet
from agents.halting.sact import SACTResNet
from agents.one_look import OneLook, one_look_flops
from dtram_env.files import write_text
from train.common import distributed
from train.common.files import save_figure
from train.common.film import Episode
from train.common.looks import episode_groups
from train.common.run_page import write_run_page
from train.common.training import Selection
from train.common.training_task import Images, TrainingTask

LARGEST_BATCH = 1000


@torch.no_grad()
def outputs(network: OneLook | ACTResNet, images: Images) -> Iterator[Any]:
    """Yields a network's output for each batch of a split; sets evaluation mode.

    Several processes share the images.
    """
    network.eval()
    side, _, channels = network.config.image_shape
    batch = max(1, min(LARGEST_BATCH, 8_000_000 // (side * side * channels)))
    own = distributed.own(torch.arange(len(images), device=network.device))
    for indices in own.split(batch):
        yield network(images.store.thumbnail(indices, side))


def logits_of(network: OneLook | ACTResNet, images: Images) -> Tensor:
    """Logits ``(N, K)`` of a split; sets evaluation mode."""
    found = outputs(network, images)
    own = torch.cat([one.logits if isinstance(one, ACTOutput) else one for one in found])
    return distributed.gathered(own, len(images))


def logits_and_rate(network: OneLook | ACTResNet, images: Images) -> tuple[Tensor, float]:
    """Logits ``(N, K)`` of a split, and the measured images per second."""
    began = time.perf_counter()
    logits = logits_of(network, images)
    logits.argmax(-1).cpu()  # waits for the device
    return logits, len(images) / (time.perf_counter() - began)


def select_network(
    network: OneLook | ACTResNet, images: Images, ponder_cost: float = 0.0
) -> Selection:
    """Ranks weights by error, then by loss; weights of a halting network by ACT's loss first."""
    logits = logits_of(network, images)
    error = float((logits.argmax(-1) != images.labels).double().mean())
    loss = float(cross_entropy(logits, images.labels))
    metrics = {"eval/accuracy": 1 - error, "eval/cross_entropy": loss, "eval/mean_glimpses": 1.0}
    if not isinstance(network, ACTResNet):
        return Selection((error, loss), metrics)
    own = torch.cat([one.ponder for one in outputs(network, images)])
    ponder = round(distributed.gathered(own, len(images)).double().mean().item(), 4)
    return Selection((loss + ponder_cost * ponder, error), metrics | {"eval/ponder": ponder})


def halting_cost(network: ACTResNet, images: Images) -> dict[str, Any]:
    """Means on a split: ACT's ponder cost, summed over blocks; FLOPs; units used in each block."""
    found: list[ACTOutput] = []
    flops = count_flops(network, lambda: found.extend(outputs(network, images)))
    ponder, units = (torch.cat([getattr(one, n) for one in found]) for n in ("ponder", "units"))

    def mean(own: Tensor) -> Any:
        return distributed.gathered(own, len(images)).double().mean(dim=0).tolist()

    return {
        "ponder": round(mean(ponder), 4),
        "flops": round(mean(torch.full_like(ponder, flops / len(ponder), dtype=torch.float64))),
        "units": [round(n, 4) for n in mean(units)],
        "units_of_each_block": [len(stage) for stage in network.trunk.stages()],
    }


def whole_map(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Ponder cost ``(B, H, W)`` at every pixel of images of a size, summed over blocks.

    A pixel has the cost of the nearest position in each of `ACTOutput.maps`.
    """
    return torch.stack([interpolate(one[:, None], size)[:, 0] for one in maps]).sum(dim=0)


def draw_maps(image: np.ndarray, maps: Sequence[Tensor]) -> Figure:
    """Draws an image, the ponder cost map ``(h, w)`` of each block, and their sum.

    The image is ``(H, W, C)`` uint8, C = 1 (grey) or 3 (RGB).
    """
    height, width = image.shape[:2]
    summed = whole_map([one[None] for one in maps], (height, width))[0]
    names = [f"block {k}" for k in range(1, len(maps) + 1)] + ["all blocks"]
    size = 2.2 * (len(maps) + 2), 2.6
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(maps) + 2)
    axes[0].imshow(image.squeeze(), cmap="gray", extent=(0, width, height, 0))
    axes[0].set_title("image")
    for axis, name, one in zip(axes[1:], names, [*maps, summed], strict=True):
        low, high = float(one.min()), float(one.max())
        shown = axis.imshow(
            one.cpu().numpy(),
            cmap="viridis",
            extent=(0, width, height, 0),
            vmin=low,
            vmax=max(high, low + 0.1),  # so that rounding errors are not drawn as a contrast
        )
        axis.set_title(f"{name}: {float(one.mean()):.2f}")
        figure.colorbar(shown, ax=axis, shrink=0.7)
    for axis in axes:
        axis.set_axis_off()
    return figure


@torch.no_grad()
def draw_ponder_maps(folder: Path, network: SACTResNet, images: Images) -> None:
    """Draws SACT's ponder cost at each position of four images as ``ponder-K.png``."""
    indices = torch.arange(min(4, len(images)), device=network.device)
    seen = images.store.thumbnail(indices, network.config.image_shape[0])
    maps = network(seen).maps
    for k, image in enumerate(seen.cpu().numpy()):
        save_figure(draw_maps(image, [one[k] for one in maps]), folder / f"ponder-{k}.png")


def report(
    folder: Path,
    task: TrainingTask,
    network: OneLook | ACTResNet,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Evaluates the test split once; writes ``results.txt``, ``report.html`` and the outcomes.

    Returns the results with the entries of `about`, ready for JSON; errors in percent.
    """
    images, validation = task.images("test"), task.images("validation")
    logits, rate = logits_and_rate(network, images)
    best = logits.softmax(dim=-1).max(dim=-1)
    prediction, sure, labels = (
        part.cpu().numpy() for part in (best.indices, best.values, images.labels)
    )
    error = float((prediction != labels).mean())
    if isinstance(network, ACTResNet):
        cost = halting_cost(network, images)
    else:
        cost = {"flops": one_look_flops(network)}
    if isinstance(network, SACTResNet):
        draw_ponder_maps(folder, network, images)
    validated = logits_of(network, validation).argmax(-1)
    validation_error = (validated != validation.labels).double().mean().item()
    results = {
        **task.about_test(),
        "test_error": round(100 * error, 4),
        "validation": {"error": round(100 * validation_error, 4)},
        "encoder": network.config.encoder,
        "side": network.config.image_shape[0],
        "parameters": sum(p.numel() for p in network.parameters()),
        **cost,
        "images_per_second": round(rate),
        **about,
    }
    write_tensors(folder / "test_images.safetensors", {"prediction": best.indices.int()})
    write_text(folder / "results.txt", describe(results))

    def episode(n: int) -> Episode:
        title, names = f"Test image {images.data.caption(n)}", task.class_names
        about: Any = names, 0, False, int(labels[n]), [], int(prediction[n])
        return Episode(title, images.data.image(n), *about)

    ones = np.ones(len(images), dtype=np.int64)
    write_run_page(
        folder,
        results,
        labels,
        prediction,
        task.class_names,
        summary=f"Test error {results['test_error']:.2f} %: {len(images):,} images, one look each.",
        groups=episode_groups(episode, prediction == labels, ones, sure),
    )
    return results


def describe(results: dict[str, Any]) -> str:
    """The results as text."""
    side, hardware = results["side"], results["hardware"]
    halting = ""
    if "units" in results:
        pairs = zip(results["units"], results["units_of_each_block"], strict=True)
        units = ", ".join(f"{n:.2f} of {m}" for n, m in pairs)
        halting = f"residual units in each block: {units}; ponder cost {results['ponder']:.2f}\n"
    return (
        f"{results['env_id']}: {results['dataset']}, {results['split']} split, "
        f"{results['images']:,} images, one deterministic pass\n"
        f"one look at the image of {side}x{side} pixels, {results['encoder']}: "
        f"test error {results['test_error']:.2f} %\n"
        f"{halting}"
        f"{results['parameters']:,} parameters, {results['flops'] / 1e6:.3f} MFLOP an image, "
        f"{results['images_per_second']:,} images/s; trained in {results['train_seconds']:.0f} s "
        f"on {hardware['device']} ({hardware['processor']}, {hardware['cpu_threads']} threads)\n"
    )
