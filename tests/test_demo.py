"""The demo in a browser: its answers are those of Python, and it works by mouse and by keyboard."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dtram_env
from agents.loading import load_agent
from demo.build import MODELS, PRETRAINED, build, serve
from dtram_env.datasets import DatasetNotFoundError

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
MODEL = "mnist-conv"
WIDTHS = {"desktop": (1280, 900), "phone": (375, 700)}
RUN = """async (name) => {
  const { argmax, glimpsesTaken } = await import("/agent.js");
  const { Task } = await import("/task.js");
  const task = await Task.load(name);
  const found = [];
  for (let i = 0; i < task.count; i++) {
    const steps = await task.agent.run(task.image(i));
    const taken = glimpsesTaken(steps, task.threshold);
    found.push([argmax(steps[taken - 1].probs), taken]);
  }
  return found;
}"""


@contextmanager
def _served(folder: Path, models: tuple[str, ...]) -> Iterator[str]:
    """Builds a demo and serves it; its address."""
    try:
        build(folder, models)
    except DatasetNotFoundError as error:
        pytest.skip(str(error))
    with serve(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def address(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the demo with one model."""
    with _served(tmp_path_factory.mktemp("demo"), (MODEL,)) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, without motion."""
    with _opened(browser, address) as found:
        yield found


def test_it_plays_glimpse_by_glimpse(browser: Any, address: str) -> None:
    """Where motion is welcome; another image or threshold ends the show."""
    with _opened(browser, address, reduced_motion="no-preference") as page:
        status = page.locator("#status")
        for _ in range(18):
            page.get_by_role("button", name="next image").click()
        expect(status).to_have_text("Image 19: 1 glimpse; it looks on.")
        expect(status).to_have_text("Image 19: 2 glimpses; it looks on.")
        page.get_by_label("stop threshold").press("Home")
        expect(status).to_contain_text("Image 19: 3 after")
        page.get_by_role("button", name="previous image").click()
        page.get_by_label("draw a digit").check()
        _draw(page, [(0.3, 0.2), (0.3, 0.5), (0.65, 0.5)])  # a 4, in two strokes
        _draw(page, [(0.6, 0.2), (0.6, 0.9)])
        expect(status).to_contain_text("Your digit: 4 after", timeout=10_000)


@contextmanager
def _opened(browser: Any, address: str, reduced_motion: str = "reduce") -> Iterator[Any]:
    """The page, in a context of its own; at its end nothing may have gone wrong in it."""
    with browser.new_context(reduced_motion=reduced_motion) as context:
        page, wrong, asked = context.new_page(), [], []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        expect(page.locator("#status")).to_contain_text("after", timeout=30_000)
        yield page
        assert not wrong
        assert all(url.startswith((address, "data:", "blob:")) for url in asked)


def _in_python(name: str) -> list[list[int]]:
    """Answers and numbers of glimpses for the page's images, by the environment."""
    agent, images = load_agent(PRETRAINED / name), MODELS[name].images
    env_id, keywords = agent.about["env_id"], agent.about["env_options"]
    if "Birds" in env_id:  # drawn when asked for
        keywords = keywords | {"num_test": images}
    found = dtram_env.evaluate(agent, env_id, **keywords)
    pairs = zip(found.prediction.tolist(), found.num_glimpses.tolist(), strict=True)
    return [list(pair) for pair in pairs][:images]


def test_the_page_answers_as_python_does(page: Any) -> None:
    assert len(answers := page.evaluate(RUN, MODEL)) == 200
    assert answers == _in_python(MODEL)


def _draw(page: Any, points: list[tuple[float, float]]) -> None:
    """Draws a line with the mouse; a point is at shares of the canvas."""
    box = page.locator("#image").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_drawn_seven_is_read(page: Any, width: str) -> None:
    page.set_viewport_size(dict(zip(("width", "height"), WIDTHS[width], strict=True)))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("draw a digit").check()
    _draw(page, [(0.2, 0.15), (0.5, 0.15), (0.3, 0.6)])  # small, and not in the middle
    expect(page.locator("#status")).to_contain_text("Your digit: 7 after")
    page.get_by_role("button", name="clear").click()
    expect(page.locator("#status")).to_have_text("Draw a digit.")


def test_a_one_drawn_with_the_keyboard_is_read(page: Any) -> None:
    page.get_by_label("draw a digit").check()
    page.locator("#image").focus()
    for _ in range(12):
        page.keyboard.press("ArrowUp")
    page.keyboard.press(" ")
    for _ in range(24):
        page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    expect(page.locator("#status")).to_contain_text("Your digit: 1 after")


def test_a_game_by_keyboard(page: Any) -> None:
    """Glimpses until the budget is used, the answer by its key, and the score of both."""
    page.get_by_label("beat it").check()
    page.locator("#image").focus()
    for number in range(2, 9):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text(f"glimpse {min(number, 7)} of 7")
    page.keyboard.press("7")  # the first test image
    expect(page.locator("#status")).to_contain_text("Right, after 7: it is 7.")
    score = page.locator("#score")
    expect(score).to_contain_text("Games: 1. You: mean return 0.868, 0 % wrong, 7.00 glimpses")
    page.get_by_role("button", name="next image").click()
    page.get_by_role("button", name="7", exact=True).click()  # it is a 2
    expect(page.locator("#status")).to_contain_text("Wrong, after 1: it is 2.")
    expect(score).to_contain_text("Games: 2. You: mean return 0.434, 50 % wrong, 4.00")


def test_a_lower_threshold_stops_sooner(page: Any) -> None:
    page.get_by_label("stop threshold").fill("0")
    expect(page.locator("#chosen")).to_contain_text("p > 0.100: 2.42 % error with 1.53 glimpses")
    expect(page.locator("#status")).to_contain_text("after 1 glimpse")
    page.get_by_label("stop threshold").press("End")
    expect(page.locator("#chosen")).to_contain_text("p > 0.999")
    assert int(page.get_by_label("glimpses shown").get_attribute("max")) > 1


@pytest.mark.slow
def test_all_models(browser: Any, tmp_path: Path) -> None:
    """Built whole: under 25 MB, every image answered as in Python, a game on birds."""
    with _served(tmp_path, tuple(MODELS)) as address, _opened(browser, address) as page:
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) < 25e6
        for name in MODELS:
            assert page.evaluate(RUN, name) == _in_python(name), name
        page.get_by_label("digits anywhere").check()
        page.get_by_label("draw a digit").check()
        _draw(page, [(0.1, 0.1), (0.3, 0.1), (0.2, 0.4)])
        expect(page.locator("#status")).to_contain_text("Your digit: 7 after")
        page.get_by_label("birds").check()
        expect(page.locator("#status")).to_contain_text("Image 1: warbler after")
        page.get_by_label("beat it").check()
        page.locator("#image").click()
        expect(page.locator("#status")).to_contain_text("glimpse 2 of 3")
        page.get_by_role("button", name="warbler").click()
        expect(page.locator("#score")).to_contain_text("Games: 1. You: mean return 0.960")


def test_a_taken_port_is_no_obstacle(tmp_path: Path) -> None:
    with serve(tmp_path, 0) as first, serve(tmp_path, first.server_port) as second:
        assert first.server_port != second.server_port


def test_a_model_that_is_missing(browser: Any, address: str) -> None:
    """The page says which file it could not load."""
    with browser.new_page() as page:
        page.route("**/models/*.onnx", lambda route: route.fulfill(status=404))
        page.goto(address)
        expect(page.locator("#status")).to_contain_text(f"did not work: {address}/models/{MODEL}")
        expect(page.locator("#status")).to_contain_text("404")
