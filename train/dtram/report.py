"""The end of a run: one exact pass over the test split, its table and its page."""

import io
import textwrap
import time
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from agents.cost import flops_of_first_glimpse, flops_per_glimpse, mean_flops
from agents.dtram import DTRAM
from agents.files import write_tensors
from agents.stopping import ConfidenceStop, FixedStop, LearnedStop, StoppingRule
from agents.unroll import Scores, classify, score
from dtram_env.files import write_text
from dtram_env.rendering import draw_episode, readable
from train.common.film import Episode, Look
from train.common.looks import episode_groups, location_maps
from train.common.page import inline
from train.common.run_page import histogram, log_scale, new_plot, write_run_page
from train.common.training_task import Images, TrainingTask
from train.dtram.validation import collapses, farthest_location

matplotlib.use("Agg")

CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
LEARNED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
SCORE_BATCH = 1000  # at most
TITLE_WIDTH = 20  # letters over a picture


def report(folder: Path, task: TrainingTask, agent: DTRAM, about: dict[str, Any]) -> dict[str, Any]:
    """Evaluates the test split once; writes ``results.txt``, ``report.html`` and the outcomes.

    Returns the results with the entries of `about`, ready for JSON; errors in percent.
    """
    images, validation = task.images("test"), task.images("validation")
    batch = min(SCORE_BATCH, task.eval_batch_size)
    scores = score(agent, task.sensor, images.store, images.labels, batch)
    taken, prediction = scores.apply(agent.stopping)
    assert isinstance(agent.stopping, LearnedStop)
    validated = score(agent, task.sensor, validation.store, validation.labels, batch)
    stop = about["options"]["stop"]
    act = stop["name"] == "act"  # its answers mix those of several glimpses
    bound = stop.get("max_mean_glimpses")

    def row(rule: StoppingRule) -> dict[str, float]:
        error, glimpses = scores.error_and_glimpses(rule)
        return {"test_error": percent(error), "mean_glimpses": round(glimpses, 4)}

    test_glimpses = scores.error_and_glimpses(agent.stopping)[1]
    chosen = validated.error_and_glimpses(agent.stopping)
    kept = {"validation": chosen[1], "test": test_glimpses}
    results = {
        **task.about_test(),
        **row(agent.stopping),
        "stop_threshold": agent.stopping.threshold,
        "discount": task.discount,
        "histogram": torch.bincount(taken, minlength=task.max_glimpses + 1)[1:].tolist(),
        "validation": {"error": percent(chosen[0]), "mean_glimpses": round(chosen[1], 4)},
        "collapsed": collapses(
            validated, stops=stop["name"] in ("after", "joint"), farthest=farthest_location(agent)
        ),
        "max_mean_glimpses": bound,
        "bound_kept": {split: mean <= bound for split, mean in kept.items() if bound is not None},
        "fixed": {t: row(FixedStop(t)) for t in range(1, task.max_glimpses + 1) if not act},
        "confidence": {c: row(ConfidenceStop(c)) for c in CONFIDENCES if not act},
        # With the chosen threshold, so that the curve passes through the result.
        "learned": {p: row(LearnedStop(p)) for p in sorted({*LEARNED, agent.stopping.threshold})},
        "parameters": sum(p.numel() for p in agent.parameters()),
        "flops_per_glimpse": flops_per_glimpse(agent),
        "flops_of_first_glimpse": flops_of_first_glimpse(agent),
        "mean_flops": round(mean_flops(agent, test_glimpses)),
        "images_per_second": round(images_per_second(task, agent, images)),
        **about,
    }
    per_image = {"prediction": prediction.int(), "num_glimpses": taken.int()}
    write_tensors(folder / "test_images.safetensors", per_image)
    write_text(folder / "results.txt", table(results))
    report_page(folder, task, images, scores, agent.stopping, results)
    return results


def report_page(
    folder: Path,
    task: TrainingTask,
    images: Images,
    scores: Scores,
    rule: StoppingRule,
    results: dict[str, Any],
) -> Path:
    """Writes ``report.html`` on a pass over the test images, stopped by the agent's `rule`."""
    length, answer = scores.logits_at_stop(rule)
    best = answer.softmax(dim=-1).max(dim=-1)
    taken, sure, prediction, labels = (
        part.cpu().numpy() for part in (length, best.values, best.indices, images.labels)
    )
    by_rule, by_glimpses = error_plot(results), histogram(results["histogram"])
    learns = results["options"]["stop"]["name"] != "off"

    def episode(n: int) -> Episode:
        return episode_of(task, images, scores, n, int(taken[n]), int(prediction[n]), learns)

    return write_run_page(
        folder,
        results,
        labels,
        prediction,
        task.class_names,
        summary=f"Test error {results['test_error']:.2f} % at {results['mean_glimpses']:.2f} "
        f"glimpses an image: {results['images']:,} images, one deterministic pass.",
        warnings=warnings(results),
        costs=[
            inline(by_rule, "test error by mean number of glimpses and stopping rule"),
            inline(by_glimpses, "share of the test images by number of glimpses"),
        ],
        rules=[row for section in rules(results) for row in section],
        maps=location_maps(
            scores.locations.cpu().numpy().swapaxes(0, 1),
            taken,
            task.sensor.first_glimpse == "thumbnail",
        ),
        groups=episode_groups(episode, prediction == labels, taken, sure),
    )


def episode_of(
    task: TrainingTask,
    images: Images,
    scores: Scores,
    n: int,
    taken: int,
    prediction: int,
    learns: bool = False,
) -> Episode:
    """Image number `n` with its first `taken` glimpses; `learns`: whether to show p(stop)."""
    belief = scores.logits[:taken, n].softmax(dim=-1).cpu().numpy()
    stop = torch.sigmoid(scores.stop_logit[:taken, n]).tolist()
    locations = scores.locations[:taken, n].cpu().numpy()
    looks = [Look([], *look) for look in zip(locations, belief, stop, strict=True)]
    return Episode(
        f"Test image {images.data.caption(n)}",
        images.data.image(n),
        task.class_names,
        task.sensor.glimpse_size,
        task.sensor.first_glimpse == "thumbnail",
        int(images.labels[n]),
        looks if learns else [look._replace(stop=None) for look in looks],
        prediction,
    )


def images_per_second(task: TrainingTask, agent: DTRAM, images: Images) -> float:
    """Measured rate by the agent's own stop, with stopped images leaving the batch."""
    began = time.perf_counter()
    batch = min(SCORE_BATCH, task.eval_batch_size)
    for indices in torch.arange(len(images), device=task.device).split(batch):
        classified = classify(agent, task.sensor, images.store, indices)
        classified.prediction.cpu()  # waits for the device
    return len(images) / (time.perf_counter() - began)


def percent(share: float) -> float:
    """A share in [0, 1] as percent, rounded to 0.0001 so that 0.07 is not 0.07000000000000001."""
    return round(100 * share, 4)


def rules(results: dict[str, Any]) -> list[list[tuple[str, dict[str, float]]]]:
    """Names and results of the stopping rules: the agent's own, fixed numbers, confidences."""
    chosen = results["stop_threshold"]
    near = 0.9995 < chosen < 1  # three digits would say "p > 1"
    threshold = f"1 - {1 - chosen:.1e}" if near else f"{chosen:.3g}"
    given = results["options"]["stop"].get("threshold") is not None
    how = "given" if given else "chosen on validation"
    learned = f"DT-RAM, learned stop, p > {threshold} ({how})"
    names = {
        "off": "RAM, no stop learned: the whole budget",
        "act": f"ACT, sum of halting scores > {threshold}",
    }
    return [
        [(names.get(results["options"]["stop"]["name"], learned), results)],
        [(f"RAM, {t} glimpse{'s' * (t > 1)}", row) for t, row in results["fixed"].items()],
        [(f"confidence > {p:g}", row) for p, row in results["confidence"].items()],
    ]


def warnings(results: dict[str, Any]) -> list[str]:
    """What a reader of the results must know: a bound that is not kept, and a collapse."""
    found = [
        f"mean glimpses on {split}: over the bound {results['max_mean_glimpses']}"
        for split, kept in results["bound_kept"].items()
        if not kept
    ]
    if results["collapsed"]:
        found.append(f"collapsed: {', '.join(results['collapsed'])} (metrics.jsonl has its course)")
    return found


def table(results: dict[str, Any]) -> str:
    """The results as text."""
    data = f"{results['env_id']}: {results['dataset']}, {results['split']} split"
    grid = Table(title=f"{data}, {results['images']:,} images, one deterministic pass")
    grid.add_column("stopping rule")
    grid.add_column("mean glimpses", justify="right")
    grid.add_column("test error %", justify="right")
    for section in rules(results):
        for name, row in section:
            grid.add_row(name, f"{row['mean_glimpses']:.2f}", f"{row['test_error']:.2f}")
        grid.add_section()
    output = io.StringIO()
    console = Console(file=output, width=100, markup=False, emoji=False)  # names as they are
    console.print(grid)
    for warning in warnings(results):
        console.print(warning)
    seconds = (results.get("trunk") or {}).get("train_seconds")
    on_trunk = "" if seconds is None else f" (its trunk in {seconds:.0f} s)"
    hardware = results["hardware"]
    console.print(
        f"{results['parameters']:,} parameters, {results['flops_per_glimpse'] / 1e6:.3f} MFLOP a "
        f"glimpse, {results['images_per_second']:,} images/s; trained in "
        f"{results['train_seconds']:.0f} s{on_trunk} on {hardware['device']} "
        f"({hardware['processor']}, {hardware['cpu_threads']} threads)"
    )
    return output.getvalue()


def error_plot(results: dict[str, Any]) -> Figure:
    """Test error against mean glimpses, one line for each family of stopping rules."""
    figure, axes = new_plot("mean number of glimpses", "test error %")
    names = {
        "fixed": "fixed number (RAM)",
        "confidence": "confidence threshold",
        "learned": "learned stop, threshold varied",
    }
    errors: list[float] = []
    for (family, name), marker in zip(names.items(), "os^", strict=True):
        rows = results[family].values()
        if rows:
            x, y = zip(*sorted((r["mean_glimpses"], r["test_error"]) for r in rows), strict=True)
            axes.plot(x, y, marker=marker, markersize=4, linewidth=1, label=name)
            errors += y
    glimpses, error = results["mean_glimpses"], results["test_error"]
    label = f"DT-RAM: {error:.2f} % at {glimpses:.2f}"
    axes.plot(glimpses, error, "*", markersize=14, color="black", label=label)
    log_scale(axes, errors)
    axes.legend(fontsize=8)
    return figure


def set_title(axes: Axes, text: str, width: int = 80, **style: Any) -> None:
    """Sets a title with names of the user's own data, in lines of `width` letters: a $ begins no
    formula, and characters that the font lacks are shown as `readable` shows them."""
    text, font = readable(text)
    if isinstance(path := getattr(font, "path", None), str):  # not Pillow's own font
        style["font"] = Path(path)
    axes.set_title(textwrap.fill(text, width), parse_math=False, **style)


def glimpse_figure(
    task: TrainingTask, images: Images, scores: Scores, taken: Tensor, prediction: Tensor
) -> Figure:
    """The split's first images by number of glimpses, with numbered boxes (the talk's figure 7)."""
    columns = 8
    counts = torch.bincount(taken, minlength=task.max_glimpses + 1).tolist()
    rows = [t for t in range(1, task.max_glimpses + 1) if counts[t]]
    figure = Figure(figsize=(1.3 * columns + 1.2, 1.5 * len(rows) + 0.2), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for t, cells in zip(rows, grid, strict=True):
        for axes in cells:
            axes.axis("off")
        shown = torch.nonzero(taken == t)[:columns, 0].tolist()
        for axes, n in zip(cells, shown, strict=False):
            episode = episode_of(task, images, scores, n, t, int(prediction[n]))
            axes.imshow(draw_episode(episode.image, episode.boxes, size=224))
            answer, label = (task.class_names[int(k[n])] for k in (prediction, images.labels))
            said = answer if answer == label else f"{answer} (is {label})"
            color = "black" if answer == label else "crimson"
            set_title(axes, said, TITLE_WIDTH, fontsize=8, color=color, pad=2)
        share = 100 * counts[t] / len(taken)
        text = f"{t} glimpse{'s' * (t > 1)}\n{share:.1f} %"
        side = {"transform": cells[0].transAxes, "ha": "right", "va": "center", "fontsize": 9}
        cells[0].text(-0.08, 0.5, text, **side)
    return figure
