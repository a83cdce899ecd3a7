"""The contact sheet: every sample with its verdict, on one page that needs nothing else."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path
from typing import Any

from geocd.inspect.verdict import CANNOT_JUDGE, PASS, REJECT
from geocd.webpage import data_uri, script_hash
from geocd.words import counted

MOST = 400
"""Samples with pictures on a page; the last ones that did not pass go first."""
_TITLES: dict[str, str] = {REJECT: "Reject", CANNOT_JUDGE: "Cannot judge", PASS: "Pass"}
_ORDER = (CANNOT_JUDGE, REJECT, PASS)
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222226; --faint: #5f5f68;
  --line: #d8d8de; --card: #f6f6f8; --pass: #00664a; --reject: #a83a00; --cannot: #6a4a8c; }
@media (prefers-color-scheme: dark) { :root { --paper: #18191c; --ink: #e4e4e8;
  --faint: #a8a8b0; --line: #3e4046; --card: #212226; --pass: #4fc3a1; --reject: #ff9a5c;
  --cannot: #c9a8ec; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif;
  margin: 1.5rem auto; max-width: 90rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p, li { overflow-wrap: anywhere; } p { margin: .3rem 0; } .faint { color: var(--faint); }
.sums { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.sums button { font: inherit; color: inherit; background: var(--card); cursor: pointer;
  border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .9rem; }
.sums button[aria-pressed=true] { outline: 2px solid currentColor; }
.sums button:focus-visible { outline: 3px solid #0072b2; }
.reject { color: var(--reject); } .cannot { color: var(--cannot); } .pass { color: var(--pass); }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem; border-top: 4px solid currentColor; }
article > * { color: var(--ink); } article strong { text-transform: capitalize; }
article.reject strong { color: var(--reject); } article.pass strong { color: var(--pass); }
article.cannot strong { color: var(--cannot); }
article img { width: 100%; height: auto; display: block; border-radius: .25rem; }
figure { margin: .5rem 0 0; }
.defects { display: grid; grid-template-columns: 1fr 1fr; gap: .2rem .6rem; }
figcaption { color: var(--faint); font-size: .85rem; font-variant-numeric: tabular-nums; }
ul { margin: .3rem 0; padding-left: 1.1rem; }
.golden { max-width: 18rem; } .golden img { width: 100%; }
[hidden] { display: none; }
@media print { .sums { display: none; } article { break-inside: avoid; } }
"""
_SCRIPT = """
for (const button of document.querySelectorAll(".sums button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    for (const other of document.querySelectorAll(".sums button"))
      other.setAttribute("aria-pressed", other === button && on ? "true" : "false");
    for (const part of document.querySelectorAll("section"))
      part.hidden = on && part.dataset.verdict !== button.dataset.verdict;
  });
}
document.documentElement.dataset.ready = "yes";
"""
_CLASSES: dict[str, str] = {REJECT: "reject", CANNOT_JUDGE: "cannot", PASS: "pass"}


def render_sheet(entries: list[dict[str, Any]], settings: dict[str, Any], folder: Path) -> str:
    """The page as HTML. It needs no network; every text that comes from outside is escaped.

    Args:
        entries: lines of ``verdicts.jsonl``.
        settings: content of ``inspection.json``.
        folder: where the pictures are; one that is missing is left out.
    """
    shown = _chosen(entries)
    counts = Counter(entry["verdict"] for entry in entries)
    buttons = "".join(
        f'<button type="button" class="{_CLASSES[word]}" aria-pressed="false" '
        f'data-verdict="{_CLASSES[word]}">{_TITLES[word]}: {counts[word]:,}</button>'
        for word in _ORDER
    )
    sections = "".join(_section(word, shown, folder, settings) for word in _ORDER)
    left_out = (
        f'<p class="faint">The page shows {len(shown):,} of them; verdicts.jsonl has all.</p>'
        if len(shown) < len(entries)
        else ""
    )
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {script_hash(_SCRIPT)}"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Inspection: {counts[REJECT]} rejected, {counts[CANNOT_JUDGE]} not judged</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Inspection of {counted(len(entries), "sample")}</h1>
{_settings(settings)}
{left_out}
<div class="sums">{buttons}</div>
{_picture(folder, "pictures/golden.jpg", "the golden", "golden")}
{sections}
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _chosen(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries that the page shows, in their order."""
    if len(entries) <= MOST:
        return entries
    last_first = sorted(entries, key=lambda e: (e["verdict"] == PASS, -e["number"]))
    return sorted(last_first[:MOST], key=lambda e: int(e["number"]))


def _settings(settings: dict[str, Any]) -> str:
    thresholds = ", ".join(f"{k} from {v:.3f}" for k, v in settings["thresholds"].items())
    text = (
        f"Golden: {', '.join(settings['goldens']['files'])}. Weights: "
        f"{settings['weights']['name']}; {thresholds}."
    )
    return f'<p class="faint">{html.escape(text)}</p>'


def _section(
    word: str, entries: list[dict[str, Any]], folder: Path, settings: dict[str, Any]
) -> str:
    mine = [entry for entry in entries if entry["verdict"] == word]
    if not mine:
        return ""
    cards = "".join(_card(entry, folder, settings) for entry in mine)
    return (
        f'<section data-verdict="{_CLASSES[word]}"><h2 class="{_CLASSES[word]}">{_TITLES[word]}'
        f'</h2><div class="sheet">{cards}</div></section>'
    )


def _card(entry: dict[str, Any], folder: Path, settings: dict[str, Any]) -> str:
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in entry["reasons"])
    name = html.escape(entry["name"])
    close = "".join(_defect(defect, folder) for defect in entry["defects"] if "picture" in defect)
    defects = f'<div class="defects">{close}</div>' if close else ""
    return (
        f'<article class="{_CLASSES[entry["verdict"]]}"><h3>{name}</h3>'
        f"<p><strong>{entry['verdict']}</strong></p>"
        f"{f'<ul>{reasons}</ul>' if reasons else ''}"
        f"{_picture(folder, entry['picture'], _facts(entry))}{defects}</article>"
    )


def _facts(entry: dict[str, Any]) -> str:
    """How it lay and how sharp it was, in short."""
    lies = entry["registration"]
    if lies is None or not lies["proven"]:
        return "not aligned, as it was taken"
    x, y = lies["shift_px"]
    sharp = entry["measures"].get("sharpness") or 0.0
    return (
        f"moved {x:+.1f}, {y:+.1f} px, turned {lies['turn_degrees']:+.2f}°, residual "
        f"{lies['residual_px']:.2f} px, sharpness {sharp:.0%}"
    )


def _defect(defect: dict[str, Any], folder: Path) -> str:
    area = f"{defect['area_px']:,} px"
    if "area_mm2" in defect:
        area = f"{defect['area_mm2']:.3g} mm²"
    where = f", zone {defect['zone']}" if defect["zone"] else ""
    small = "" if defect["counts"] else ", too small to count"
    caption = f"{defect['kind']} {defect['score']:.2f}, {area}{where}{small}"
    return _picture(folder, defect["picture"], caption)


def _picture(folder: Path, name: str, caption: str, style: str = "") -> str:
    try:
        uri = data_uri((folder / name).read_bytes(), "jpeg")
    except OSError:
        return ""
    text = html.escape(caption)
    kind = f' class="{style}"' if style else ""
    return f'<figure{kind}><img src="{uri}" alt="{text}"><figcaption>{text}</figcaption></figure>'
