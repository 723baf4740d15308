"""How a report looks: on a wide screen, at 390 pixels, on paper, and by keyboard."""

import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 0 auto; padding: 1rem; color: #1c1e21; }
body { background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; }
.big { font-size: 2rem; font-weight: 600; } .said { border-left: 4px solid #0072b2; padding-left: .8rem; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.pictures { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.pictures img { image-rendering: pixelated; }
figure { margin: 0; } figure svg, figure img { display: block; width: 100%; height: auto; max-width: 46rem; }
figcaption { color: #4a4f57; font-size: .875rem; }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 3px solid #0072b2; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
td, th { padding: .15rem 1rem .15rem 0; text-align: right; vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; }
tr + tr td { border-top: 1px solid #e1e4e8; }
pre { background: #f4f5f7; padding: .8rem; margin: 0; overflow-wrap: normal; width: max-content; min-width: 100%; }
summary { cursor: pointer; padding: .3rem 0; }
@media print {
  body { max-width: none; font-size: 10pt; } figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } pre { white-space: pre-wrap; width: auto; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""


def document(title: str, body: str) -> str:
    """A whole page."""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style>
<main>
{body}
</main>
</html>
"""


def figure(inside: str, words: str = "") -> str:
    """A figure and what it shows."""
    return f"<figure>{inside}{f'<figcaption>{html.escape(words)}</figcaption>' if words else ''}</figure>"


def scrolling(inside: str, words: str) -> str:
    """What may be wider than the page, and then scrolls by itself, also by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(words)}">{inside}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if any(heads) else f"<table>{body}</table>"
