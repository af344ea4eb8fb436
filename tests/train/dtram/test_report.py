"""The page, pictures and table of a report: names of the user's own data are shown as they are."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from agents.stopping import FixedStop
from agents.unroll import GlimpseSensor, Scores
from dtram_env.rendering import readable
from tests.train.pages import Page
from train.dtram.report import glimpse_figure, report_page, table

NAMES = ("$x_{", "$y^{")  # together a formula, which has no end
ROW = {"mean_glimpses": 2.0, "test_error": 10.0}


@pytest.mark.parametrize("names", [NAMES, ("ñ", "鳥"), (r"a\b", "a\nb")])
def test_titles_show_class_names_as_they_are(tmp_path: Path, names: tuple[str, str]) -> None:
    """Characters that no font has become escapes, as in captions; a box would be a warning."""
    task: Any = SimpleNamespace(sensor=GlimpseSensor(4), max_glimpses=1, class_names=names)
    data = SimpleNamespace(image=lambda n: np.zeros((8, 8, 1), np.uint8), caption=str)
    images: Any = SimpleNamespace(data=data, labels=torch.tensor([0, 1]))
    none = torch.zeros(1, 2, 2)
    scores = Scores(images.labels, none, none[..., 0], none)
    figure = glimpse_figure(task, images, scores, torch.tensor([1, 1]), torch.tensor([0, 0]))
    right, wrong = names[0], f"{names[0]} (is {names[1]})"
    titles = [title for axes in figure.axes if (title := axes.get_title())]
    assert titles == [readable(s)[0] for s in (right, wrong)]
    figure.savefig(tmp_path / "glimpses.png")


def results_of(name: str) -> dict[str, Any]:
    """What a page and a table read of the results on a dataset of some name."""
    curves = {family: {1: ROW} for family in ("fixed", "confidence", "learned")}
    results: dict[str, Any] = {**curves, **ROW, "images": 10, "env_id": "ID", "split": "test"}
    results |= {"stop_threshold": 0.5, "bound_kept": {}, "collapsed": [], "parameters": 7}
    results |= {"histogram": [3, 1], "command": f"python train/reinforce.py --root {name}"}
    results |= dict.fromkeys(("flops_per_glimpse", "images_per_second", "train_seconds"), 1)
    results["hardware"] = {"device": "cpu", "processor": "P", "cpu_threads": 1}
    return results | {"options": {"stop": {"name": "after"}, "root": name}, "dataset": name}


def test_the_table_shows_the_datasets_name_as_it_is() -> None:
    for name in ("".join(NAMES), "photos [/b] :cat:"):
        assert f"ID: {name}, test split, 10 images" in table(results_of(name))


ODD = ("<script>alert(1)</script>", "鳥 & שלום", '" onload="x', "{{ 7 * 7 }}", "caf\udce9")


def a_page(folder: Path, steps: int, wrong: int, side: int = 8, **changes: Any) -> Page:
    """The page of 40 images of noise, some of them wrong, in classes with odd names."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % len(ODD)
    logits = 9.0 * torch.nn.functional.one_hot(labels).expand(steps, -1, -1)
    logits[-1, :wrong] = logits[-1, :wrong].roll(1, dims=-1)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    sensor = GlimpseSensor(side // 2, first_glimpse="thumbnail")
    task: Any = SimpleNamespace(sensor=sensor, class_names=ODD)
    data = SimpleNamespace(image=lambda n: np.roll(noise, n), caption=lambda n: f"{n}, {ODD[0]}")
    images: Any = SimpleNamespace(data=data, labels=labels)
    locations = torch.rand(steps, 40, 2, generator=generator) * 2 - 1
    scores = Scores(labels, logits, torch.zeros(steps, 40), locations)
    results = results_of(ODD[0]) | changes
    return Page(report_page(folder, task, images, scores, FixedStop(steps), results))


@pytest.mark.parametrize(("steps", "wrong"), [(1, 0), (1, 1), (2, 40), (30, 3)])
def test_a_page_shows_all_names_as_they_are(tmp_path: Path, steps: int, wrong: int) -> None:
    page = a_page(tmp_path, steps, wrong)
    shown = [name.encode("utf-8", "backslashreplace").decode() for name in ODD]
    assert all(name in page.text for name in shown) and "49" not in page.text
    assert len(page.named("script")) == 1
    assert f"--root {ODD[0]}" in page.text and f"ID: {ODD[0]}" in page.text
    assert len(page.named("article")) == 2 * min(12, 40 - wrong) + min(12, wrong)
    assert page.text.count("There is none.") == (wrong == 0) + 2 * (wrong == 40)
    assert ("No answer is wrong." in page.text) == (wrong == 0)
    assert ("Where it looked" in page.text) == (steps > 1)  # the first look is at the whole image


@pytest.mark.parametrize("side", [280, 1500])
def test_a_page_of_large_images_is_small(tmp_path: Path, side: int) -> None:
    """Noise is the worst for any format, above all at the size of the pictures.

    `Page` holds the limit.
    """
    page = a_page(tmp_path, 3, 20, side)
    pictures = [one["src"] for one in page.named("img") if "webp" in one["src"][:20]]
    assert len(pictures) == 36


def test_a_page_warns(tmp_path: Path) -> None:
    changes = {"collapsed": ["it never stops"], "bound_kept": {"validation": True, "test": False}}
    page = a_page(tmp_path, 2, 1, max_mean_glimpses=1.5, **changes)
    assert "mean glimpses on test: over the bound 1.5" in page.text
    assert "collapsed: it never stops" in page.text and "glimpses on validation" not in page.text
    assert "Warnings" not in a_page(tmp_path, 2, 1).text


def test_a_page_in_a_browser(browser: Any, tmp_path: Path) -> None:
    """Arrow keys step through the images of the group used last, boxes hide curves, and the page is
    as wide as a phone."""
    from playwright.sync_api import expect

    steps = [{"step": n, "eval/accuracy": n / 3, "rollout/success_rate": n / 4} for n in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))
    a_page(tmp_path, 30, 3)
    wrong: list[str] = []
    with browser.new_page(viewport={"width": 375, "height": 700}) as page:
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        places = page.locator(".steps [role=status]")
        page.keyboard.press("ArrowRight")
        expect(places).to_have_text(["2 of 12", "1 of 12", "1 of 3"])
        page.get_by_label("previous image").last.click()
        expect(places).to_have_text(["2 of 12", "1 of 12", "3 of 3"])
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(places).to_have_text(["2 of 12", "1 of 12", "2 of 3"])
        expect(page.locator("article:visible")).to_have_count(3)
        curves = [page.locator(f"[id$=-curve-{k}]") for k in (0, 1)]
        page.get_by_label("validation").uncheck()
        expect(curves[0]).to_be_visible()
        expect(curves[1]).to_be_hidden()
        page.get_by_label("validation").check()
        expect(curves[1]).to_be_visible()
    assert not wrong
