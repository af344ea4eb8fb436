"""Pages of results: each is one file that needs no other, made from a template in ``templates/``.

The templates escape all text. Figures and pictures become part of the page.
"""

import base64
import io
import itertools
import re
from pathlib import Path
from typing import Any

import matplotlib.colors
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from dtram_env.files import write_text

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals["curve_colour"] = lambda k: matplotlib.colors.to_hex(f"C{k % 10}")
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
COLOURS = {"#000000": "currentColor", "#ffffff": "var(--page)"}  # of figures, on light and dark
FIGURES = itertools.count(1)


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Writes a page from a template and its `content`; returns the path."""
    return write_text(path, TEMPLATES.get_template(template).render(content))


def inline(figure: Figure, label: str) -> Markup:
    """A figure as SVG, whose black and white follow the page's colours.

    `label` is its accessible name. A box of a legend with the value ``curve-0`` shows and hides the
    artists whose gid is ``curve-0`` or ends in ``-curve-0``.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True)
    svg = text.getvalue()
    svg = re.sub("<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'style="[^"]*"', _in_page_colours, svg)
    number = next(FIGURES)  # names of the parts must be unique in a page
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>f{number}-", svg)
    name = f'<svg class="plot" role="img" aria-label="{escape(label)}" '
    return Markup(svg[svg.index("<svg") :].replace("<svg ", name, 1))


def _in_page_colours(style: re.Match[str]) -> str:
    text = re.sub("font-family: [^;]*;", "", style[0])
    for colour, of_page in COLOURS.items():
        text = text.replace(colour, of_page)
    return text


def image(content: bytes, kind: str, label: str) -> Markup:
    """An image element with a file's content, a "png", "webp" or "gif"."""
    data = base64.b64encode(content).decode()
    return Markup('<img alt="{}" src="data:image/{};base64,{}">').format(label, kind, data)


def picture(pixels: np.ndarray, label: str) -> Markup:
    """Pixels ``(H, W, 3)`` uint8 as an image element of some kilobytes."""
    return image(encoded(Image.fromarray(pixels), "webp", quality=85), "webp", label)


def encoded(picture: Image.Image, kind: str, **how: Any) -> bytes:
    """The content of an image file."""
    content = io.BytesIO()
    picture.save(content, format=kind, **how)
    return content.getvalue()


def from_markdown(text: str) -> Markup:
    """Markdown with tables as HTML; HTML in the text is escaped, and the first heading is an h2."""
    html = MARKDOWN.render(text).replace("<h1>", "<h2>").replace("</h1>", "</h2>")
    region = '<div class="wide" tabindex="0" role="region" aria-label="table">'
    html = html.replace("<table>", f"{region}<table>")
    return Markup(html.replace("</table>", "</table></div>"))
