"""Parts of self-contained pages: a document, pictures inside it, the legend of error maps."""

from __future__ import annotations

import html
import io

from PIL import Image

from geocd.assess.panels import FALSE_ALARM, HIT, MISS, UNSEEN, Picture
from geocd.webpage import data_uri

_QUALITY = 88
_LEGEND = (
    (HIT, "change, and found"),
    (FALSE_ALARM, "false alarm"),
    (MISS, "missed"),
    (UNSEEN, "not observed"),
)
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222226; --faint: #66666e;
  --line: #d8d8de; }
@media (prefers-color-scheme: dark) { :root { --paper: #18191c; --ink: #e4e4e8;
  --faint: #a0a0a8; --line: #3e4046; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .4rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: normal; }
th[scope=row] { text-align: left; } thead th { color: var(--faint); }
tbody tr:first-child { font-weight: bold; } tbody tr:first-child th { font-weight: bold; }
.panels { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; }
@media (max-width: 45rem) { .panels { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; } figcaption, .faint { color: var(--faint); }
img { width: 100%; height: auto; display: block; } .chart { max-width: 620px; }
.legend span { display: inline-flex; align-items: center; margin-right: 1.2rem; }
.legend i { width: 1em; height: 1em; margin-right: .4em; border: 1px solid var(--line); }
"""


def document(title: str, body: str) -> str:
    """A page that needs no network, light or dark as the reader's system is.

    Args:
        title: plain text; it is escaped.
        body: HTML.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def legend() -> str:
    """What the colours of an error map mean, as HTML."""
    entries = "".join(
        f'<span><i style="background: rgb{colour}"></i>{text}</span>' for colour, text in _LEGEND
    )
    return f'<p class="legend">{entries}</p>'


def figure_html(picture: Picture, caption: str) -> str:
    """A picture (height, width, 3), uint8, with its caption below, as HTML."""
    encoded = io.BytesIO()
    # Colour at full resolution: the edges of the error map are thin.
    Image.fromarray(picture).save(encoded, "JPEG", quality=_QUALITY, subsampling=0)
    uri = data_uri(encoded.getvalue(), "jpeg")
    return f'<figure><img src="{uri}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
