"""Self-contained HTML pages: text, tables, plots as SVG, galleries of thumbnails with a filter. One file, no network.

Everything given as `str` is escaped, so that names from files may be passed as they are; `Html` is markup already.
Plots number their series: the same series has the same colour in every plot, in a light and in a dark browser.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import cv2
import numpy as np

from simplepose.core.files import written_whole

THUMBNAIL_SIDE = 240  # pixels of the longer side; twenty to thirty kilobytes each
JPEG_QUALITY = 82
SERIES_COLORS = 8
PLOT_WIDTH = 640  # units of the SVG; a page shows it at that many pixels, or narrower
FEW_POINTS = 40  # a line of at most so many shows each of them
NO_VALUE = "\N{EN DASH}"


class Html(str):
    """Markup that is shown as it is."""


@dataclass(frozen=True)
class Picture:
    """An entry of a gallery.

    Attributes:
        image: (H, W, 3) uint8 BGR of any size.
        caption: a line or two below it; also what the filter's text field searches.
        tags: what the filter's buttons select by.
    """

    image: np.ndarray
    caption: str
    tags: Sequence[str] = ()


class Page:
    """A page, written from top to bottom: each method appends to it, and `write` makes the file."""

    def __init__(self, title: str, subtitle: str = ""):
        self.title = title
        self._sections: list[str] = []
        self._body = [f"<h1>{markup(title)}</h1>"]
        if subtitle:
            self._body.append(f'<p class="subtitle">{markup(subtitle)}</p>')
        self._contents_at = len(self._body)

    def section(self, heading: str, text: str = "") -> None:
        """Start a section, which the list of contents at the top links to."""
        self._sections.append(heading)
        self._body.append(f'<h2 id="s{len(self._sections)}">{markup(heading)}</h2>')
        if text:
            self.text(text)

    def heading(self, heading: str) -> None:
        self._body.append(f"<h3>{markup(heading)}</h3>")

    def text(self, text: str) -> None:
        self._body.append(f"<p>{markup(text)}</p>")

    def items(self, lines: Iterable[str]) -> None:
        """A list of sentences."""
        self._body.append("<ul>" + "".join(f"<li>{markup(line)}</li>" for line in lines) + "</ul>")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "", digits: int = 1) -> None:
        """A table; numbers are aligned and rounded to `digits`, NaN and None become a dash."""
        cells = "".join(f"<th>{markup(cell)}</th>" for cell in head)
        lines = "".join("<tr>" + "".join(_cell(cell, digits) for cell in row) + "</tr>" for row in rows)
        caption = f"<caption>{markup(caption)}</caption>" if caption else ""
        self._body.append(
            f'<div class="scroll"><table>{caption}<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
        )

    def plots(self, *plots: Html) -> None:
        """Plots side by side where the window is wide enough."""
        self._body.append(f'<div class="plots">{"".join(plots)}</div>')

    def gallery(self, pictures: Iterable[Picture], side: int = THUMBNAIL_SIDE) -> None:
        """Thumbnails, made one by one; with a filter by tag and text if there is something to choose between."""
        counts, figures = Counter(), []
        for picture in pictures:
            counts.update(dict.fromkeys(picture.tags, 1))
            image, tags = thumbnail(picture.image, picture.caption, side), markup(json.dumps(list(picture.tags)))
            figures.append(
                f'<figure data-tags="{tags}">{image}<figcaption>{markup(picture.caption)}</figcaption></figure>'
            )
        buttons = "".join(
            f'<button type="button" data-tag="{markup(tag)}">{markup(tag or "all")} ({count})</button>'
            for tag, count in [("", len(figures)), *counts.items()]
        )
        search = '<input type="search" placeholder="text in a caption" aria-label="text in a caption">'
        choice = f'<div class="filter" hidden>{buttons}{search}</div>' if len(counts) > 1 else ""
        self._body.append(
            f'<div class="gallery">{choice}<div class="cells" style="--side: {side}px">{"".join(figures)}</div></div>'
        )

    def html(self) -> str:
        """The whole page."""
        links = "".join(f'<a href="#s{n}">{markup(name)}</a>' for n, name in enumerate(self._sections, 1))
        contents = [f"<nav>{links}</nav>"] if len(self._sections) > 1 else []
        body = "\n".join([*self._body[: self._contents_at], *contents, *self._body[self._contents_at :]])
        return _FRAME.format(title=markup(self.title), style=_STYLE, script=_SCRIPT, body=body)

    def write(self, path: str | os.PathLike) -> None:
        """Write the page; an older file stays until the new one is complete."""
        with written_whole(path) as scratch:
            # A lone surrogate, as in a file name that is not UTF-8, cannot be written.
            scratch.write_text(self.html(), encoding="utf-8", errors="replace")


def markup(value: Any) -> Html:
    """A value as markup: escaped unless it is `Html`."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def thumbnail(image: np.ndarray, alt: str, side: int = THUMBNAIL_SIDE) -> Html:
    """An image (H, W, 3) uint8 BGR inside the page, at most `side` pixels high and wide."""
    scale = side / max(image.shape[:2])
    if scale < 1:
        size_wh = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    # A photograph is smaller as JPEG, a drawing on plain ground as PNG.
    encoded = {
        "jpeg": cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1],
        "png": cv2.imencode(".png", image)[1],
    }
    kind = min(encoded, key=lambda name: len(encoded[name]))
    data = base64.b64encode(encoded[kind].tobytes()).decode("ascii")
    height, width = image.shape[:2]
    source = f"data:image/{kind};base64,{data}"
    return Html(f'<img src="{source}" width="{width}" height="{height}" alt="{markup(alt)}">')


# ---- Plots ----------------------------------------------------------------------------------------------


def line_plot(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    dashed: Sequence[str] = (),
) -> Html:
    """Lines by name, each (xs, ys); points that are NaN interrupt a line.

    Args:
        y_range: of the axis; None takes that of the values.
        dashed: the names of lines to compare with, as a diagonal.
    """
    xs = _finite(x for line in lines.values() for x in line[0])
    ys = _finite(y for line in lines.values() for y in line[1])
    width, height, left, right, top, bottom = PLOT_WIDTH, 360, 56, 12, 12, 44
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(*(y_range or (min(ys), max(ys))))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (_share(value, ticks) for value, ticks in ((x, x_ticks), (y, y_ticks)))
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    parts = []
    for x in x_ticks:
        at = place(x, y_ticks[0])
        parts.append(_line(*at, *place(x, y_ticks[-1]), "grid") + _text(at[0], at[1] + 16, _number(x), "middle"))
    for y in y_ticks:
        at = place(x_ticks[0], y)
        parts.append(_line(*at, *place(x_ticks[-1], y), "grid") + _text(at[0] - 6, at[1] + 4, _number(y), "end"))
    parts.append(_text((left + width - right) / 2, height - 8, x_label, "middle"))
    parts.append(
        f'<text transform="translate(14 {(height - bottom) / 2:.1f}) rotate(-90)" text-anchor="middle">'
        f"{markup(y_label)}</text>"
    )
    for number, (name, line) in enumerate(lines.items()):
        path, pen = [], "M"
        for x, y in zip(*line):
            if math.isfinite(x) and math.isfinite(y):
                path.append("{}{:.1f} {:.1f}".format(pen, *place(x, y)))
                if len(line[0]) <= FEW_POINTS and name not in dashed:
                    at = 'cx="{:.1f}" cy="{:.1f}"'.format(*place(x, y))
                    parts.append(f'<circle class="c{number % SERIES_COLORS}" r="3.5" {at}/>')
                pen = "L"
            else:
                pen = "M"
        kind = "dashed" if name in dashed else f"line c{number % SERIES_COLORS}"
        parts.append(f'<path class="{kind}" d="{" ".join(path)}"><title>{markup(name)}</title></path>')
    names = {name: "dashed" if name in dashed else number for number, name in enumerate(lines)}
    return _plot(title, height, parts, names)


def bar_plot(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    unit: str = "",
    stacked: bool = False,
    intervals: Sequence[tuple[float, float]] | None = None,
) -> Html:
    """Horizontal bars, a group for each label.

    Args:
        series: name -> a value for each label; NaN draws none.
        unit: of the axis.
        stacked: the series of a label end to end, for shares of one whole.
        intervals: (low, high) for each label, drawn over the bar of a single series.
    """
    values = np.array(list(series.values()), np.float64).reshape(len(series), len(labels))  # (series, labels)
    filled = np.nan_to_num(values)
    ends = filled.sum(axis=0) if stacked else filled
    ticks = _ticks(min(0, *_finite(ends.ravel()), *_finite(np.ravel(intervals or ()))),
                   max(0, *_finite(ends.ravel()), *_finite(np.ravel(intervals or ()))))  # fmt: skip
    left, right, thick = 12 + 7 * min(24, max(map(len, labels), default=0)), 44, 13
    group = thick * (1 if stacked else len(series)) + 7
    height = group * len(labels) + 42

    def place(value: float) -> float:
        return left + _share(value, ticks) * (PLOT_WIDTH - left - right)

    parts = []
    for tick in ticks:
        parts.append(_line(place(tick), 4, place(tick), height - 36, "axis" if tick == 0 else "grid"))
        parts.append(_text(place(tick), height - 22, _number(tick), "middle"))
    parts.append(_text((left + PLOT_WIDTH - right) / 2, height - 5, unit, "middle"))
    for row, label in enumerate(labels):
        top = 6 + row * group
        shown = label if len(label) <= 24 else label[:23] + "…"
        parts.append(_text(left - 6, top + (group - 7) / 2 + 4, shown, "end"))
        start, places = 0.0, []
        for number, name in enumerate(series):
            value = filled[number, row]
            low, high = sorted((place(start), place(start + value)))
            y = top if stacked else top + number * thick
            tip = f"{label}, {name}: {_number(values[number, row])} {unit}"
            parts.append(
                f'<rect class="c{number % SERIES_COLORS}" x="{low:.1f}" y="{y}" width="{high - low:.1f}" '
                f'height="{thick - 1}"><title>{markup(tip)}</title></rect>'
            )
            start += value if stacked else 0
            places.append((start if stacked else values[number, row], y))
        if intervals is not None:
            low, high = map(place, intervals[row])
            middle = top + (thick - 1) / 2
            parts += [_line(low, middle, high, middle, "whisker")]
            parts += [_line(end, middle - 4, end, middle + 4, "whisker") for end in (low, high)]
        else:
            for value, y in places[-1:] if stacked else places:
                at, anchor = (place(value) + 4, "start") if not value < 0 else (place(value) - 4, "end")
                if math.isfinite(value):
                    parts.append(_text(at, y + 10, _number(value), anchor, "value"))
    return _plot(title, height, parts, {name: number for number, name in enumerate(series)})


def _plot(title: str, height: float, parts: Sequence[str], names: Mapping[str, Any]) -> Html:
    """The figure around a plot: title, and a legend if there are several series."""
    keys = "".join(
        f'<span><i class="{"dashed" if key == "dashed" else f"c{key % SERIES_COLORS}"}"></i>{markup(name)}</span>'
        for name, key in names.items()
    )
    legend = f'<div class="legend">{keys}</div>' if len(names) > 1 else ""
    size = f'viewBox="0 0 {PLOT_WIDTH} {height:.0f}" role="img" aria-label="{markup(title)}"'
    return Html(
        f'<figure class="plot"><figcaption>{markup(title)}</figcaption><svg {size}>{"".join(parts)}</svg>'
        f"{legend}</figure>"
    )


def _finite(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)] or [0.0]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, about six, from at most `low` to at least `high`."""
    spread = (high - low) or max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(spread / 5))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= spread / 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _share(value: float, ticks: Sequence[float]) -> float:
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def _number(value: float) -> str:
    """At most three significant digits, more for large whole numbers."""
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}") if math.isfinite(value) else NO_VALUE


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{markup(text)}</text>'


def _cell(cell: Any, digits: int) -> str:
    if cell is None or (isinstance(cell, Real) and not math.isfinite(cell)):
        return f'<td class="number">{NO_VALUE}</td>'
    if isinstance(cell, Real):
        whole = isinstance(cell, (int, np.integer))
        return f'<td class="number">{cell if whole else format(float(cell), f".{digits}f")}</td>'
    kind = ' class="number"' if re.fullmatch(r"[+-]?[\d.]+ ?%?", str(cell)) else ""
    return f"<td{kind}>{markup(cell)}</td>"


# The policy forbids every request: what is not in the file cannot be shown, and nothing leaves it.
_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2128; --soft: #5b6572; --rule: #dde1e6; --shade: #f4f6f8;
  --c0: #2f6fb0; --c1: #d9822b; --c2: #8657b5; --c3: #c8443c; --c4: #3a9a5b; --c5: #9a7b3c; --c6: #1a9aa0;
  --c7: #7d8590; }
@media screen and (prefers-color-scheme: dark) { :root {
  --ground: #15181c; --ink: #e4e7eb; --soft: #a0a9b4; --rule: #343b44;
  --shade: #1f242a; --c0: #6aa9e6; --c1: #f0a352; --c2: #b48be0; --c3: #ee7168; --c4: #62c483; --c5: #cdae68;
  --c6: #4fc7cc; --c7: #98a1ac; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1340px; margin: 0 auto; padding: 24px 20px 80px; }
h1 { font-size: 28px; line-height: 1.25; margin: 8px 0; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 48px 0 8px; padding-top: 12px; border-top: 1px solid var(--rule); }
h3 { font-size: 17px; margin: 28px 0 6px; }
p, ul { max-width: 88ch; margin: 8px 0; }
li { margin: 4px 0; }
.subtitle, caption, figcaption, .legend { color: var(--soft); }
.subtitle { overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 14px 0; }
a { color: var(--c0); }
.scroll { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 4px 0; }
th, td { padding: 4px 12px; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
td:first-child, th:first-child { padding-left: 0; }
td.number { text-align: right; white-space: nowrap; }
tbody tr:hover { background: var(--shade); }
.plots { display: flex; flex-wrap: wrap; gap: 20px 32px; align-items: flex-start; }
figure { margin: 0; }
.plot { flex: 1 1 480px; max-width: 640px; margin: 12px 0; }
.plot figcaption { font-size: 15px; font-weight: 600; color: var(--ink); }
svg { display: block; width: 100%; height: auto; font-size: 12px; fill: var(--soft); }
svg .value { fill: var(--ink); font-size: 11px; }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg .dashed { fill: none; stroke: var(--soft); stroke-dasharray: 5 4; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 5px;
  vertical-align: -1px; }
.legend i.dashed { height: 0; border-top: 2px dashed var(--soft); vertical-align: 4px; }
.filter { display: flex; flex-wrap: wrap; gap: 6px; margin: 10px 0; }
.filter[hidden] { display: none; }
button, input { font: inherit; font-size: 14px; color: var(--ink); background: var(--shade); padding: 3px 10px;
  border: 1px solid var(--rule); border-radius: 12px; }
button { cursor: pointer; }
button[aria-pressed=true] { background: var(--c0); border-color: var(--c0); color: var(--ground); }
.cells { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, calc(var(--side) * 0.85)), 1fr));
  gap: 16px 12px; margin: 12px 0; }
.cells figure[hidden] { display: none; }
.cells figure { display: flex; flex-direction: column; }
.cells img { max-width: 100%; height: 240px; object-fit: contain; background: var(--shade); width: 100%; }
.cells figcaption { font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; margin-top: 4px; }
@media print { :root { color-scheme: light; } nav, .filter { display: none; } main { max-width: none; padding: 0; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
""" + "".join(
    f"svg .c{n}, i.c{n} {{ fill: var(--c{n}); background: var(--c{n}); }}\n"
    f"svg .line.c{n} {{ stroke: var(--c{n}); fill: none; }}\n"
    for n in range(SERIES_COLORS)
)

_SCRIPT = """
for (const gallery of document.querySelectorAll(".gallery")) {
  const choice = gallery.querySelector(".filter");
  if (!choice) continue;
  choice.hidden = false;
  const buttons = [...choice.querySelectorAll("button")], field = choice.querySelector("input");
  let tag = "";
  const show = () => {
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.tag === tag);
    for (const cell of gallery.querySelectorAll("figure"))
      cell.hidden = (tag && !JSON.parse(cell.dataset.tags).includes(tag))
        || !cell.textContent.toLowerCase().includes(field.value.toLowerCase());
  };
  for (const button of buttons) button.onclick = () => { tag = button.dataset.tag; show(); };
  field.oninput = show;
  show();
}
"""
