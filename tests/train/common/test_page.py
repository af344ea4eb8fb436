"""Figures, pictures and Markdown in a page."""

import base64
import io
import re

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from train.common.page import from_markdown, inline, picture


def a_figure() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot([1, 2], [1, 2], label="<b>", gid="curve-0")
    figure.axes[0].legend()
    return figure


def test_figures_keep_text_and_take_the_pages_colours() -> None:
    svg = inline(a_figure(), 'a "name" & <more>')
    assert 'role="img" aria-label="a &#34;name&#34; &amp; &lt;more&gt;"' in svg
    assert "&lt;b&gt;</text>" in svg and "<b>" not in svg
    assert "currentColor" in svg and "#000000" not in svg and "http://purl" not in svg


def test_parts_of_two_figures_have_other_names() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', inline(a_figure(), "x"))) for _ in range(2)]
    assert len(ids[0]) > 10 and not ids[0] & ids[1]
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg := inline(a_figure(), "x")))
    assert used <= set(re.findall(r' id="([^"]+)"', svg)) and used
    assert len(re.findall(r'id="f\d+-curve-0"', svg)) == 1


def content(element: Markup) -> bytes:
    return base64.b64decode(element.rpartition(",")[2][: -len('">')])


def test_pictures_are_small_and_look_alike() -> None:
    """Noise is the largest picture."""
    noise = np.random.default_rng(0).integers(0, 256, (280, 280, 3), dtype=np.uint8)
    assert len(content(picture(noise, "noise"))) < 100_000
    flat = np.zeros((280, 280, 3), np.uint8)
    flat[50:90, 60:100] = 255
    element = picture(flat, "flat")
    assert "data:image/webp" in element and len(content(element)) < 5_000
    with Image.open(io.BytesIO(content(element))) as shown:
        np.testing.assert_allclose(np.asarray(shown), flat, atol=20)


def test_markdown_cannot_bring_html_or_pictures() -> None:
    text = "# <script>\n\n| a |\n|---:|\n| <img src=x> ![x](http://x/y.png) |\n"
    html = from_markdown(text)
    assert "<h2>&lt;script&gt;</h2>" in html and "<img" not in html and "<script" not in html
    assert html.count('aria-label="table"><table>') == html.count("</table></div>") == 1
