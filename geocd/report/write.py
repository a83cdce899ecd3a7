"""One self-contained file from changes and the images they were found in."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocd import outputs
from geocd.config import ReportConfig
from geocd.errors import ConfigError
from geocd.outputs import check_page
from geocd.rasters.pair import RasterPair, open_pair
from geocd.rasters.scene import Scene
from geocd.rasters.write import bounded_cache
from geocd.report.beside import layers_beside
from geocd.report.images import (
    EncodedPair,
    Overview,
    Window,
    draw_overview,
    encode_overview,
    thumbnails,
)
from geocd.report.layer import ChangeLayer, areas, read_changes
from geocd.report.observed import Observed, observed_in_images, observed_in_map
from geocd.report.page import Page, ReportImages, packed
from geocd.report.table import change_table
from geocd.vectorize.compared import aligned
from geocd.words import counted

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

_MEGABYTE = 1_000_000
_TABLE_SHARE = 0.5
"""Largest share of what is left beside the bare page that the table of changes takes, before
outlines are thinned more."""
_BESIDE_SHARE = 0.1
"""Largest share of the same that the layers beside the changes take."""
_TOLERANCES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, None)
"""Thinning of the outlines, in pixels; None: no outlines, boxes instead."""
_OVERVIEW_SHARE = 0.6
"""Share of what the images may take that goes to the overviews, where there are thumbnails."""
_RESERVE = 2_000
"""Bytes kept free: numbers in the page whose length is only known in the end."""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report, and what of the changes it holds."""

    output: Path
    size: int
    """Bytes."""
    changes: int
    """Changes of the file."""
    shown: int
    """Changes that the report lists: the largest ones, if there are very many."""
    thumbnails: int
    """Changes with pictures sharper than the overview."""

    def report(self) -> str:
        """The summary, for people."""
        listed = "" if self.shown == self.changes else f", the {self.shown} largest listed"
        told = counted(self.changes, "change")
        return f"{told}{listed}, {self.size / _MEGABYTE:.1f} MB -> {self.output}"


def write_report(
    changes: str | Path,
    *,
    before: str | Path,
    after: str | Path,
    output: str | Path,
    mask: str | Path | None = None,
    config: ReportConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WrittenReport:
    """Make a page from changes and the images they were found in.

    The page is one file that needs no network: a swipe map of both dates with the polygons, a
    list of changes with pictures, totals, scores, alignment, and how the changes were made. A
    person marks changes in it as accepted, rejected or unsure; see ``apply_verdicts``. The
    images are drawn on before's grid, after with the motion that the run found.

    Args:
        changes: output of ``geocd.detect``; without a GeoPackage the page cannot tell how it
            was made.
        before: raster of the earlier date: a file, a URL, a VRT or a folder of tiles.
        after: of the later date.
        output: the page, ends in .html.
        mask: the change map of the same run; it tells exactly what was observed.
        config: size of the page.
        overwrite: replace an existing page.
        progress: called with the stage, the steps done and the steps in all.

    Raises:
        ConfigError: the extension is another, or the size is too small for the page.
        GeocdError: and its kinds, for inputs and outputs. Nothing is left half-written.
    """
    target, config = Path(output), config or ReportConfig()
    report = progress or (lambda stage, done, total: None)
    check_page(target, overwrite=overwrite)
    _refuse_inputs(target, (changes, before, after, mask))
    layer = read_changes(Path(changes))
    with bounded_cache():
        bands = shown_bands(before, after, layer.provenance)
        pair = open_pair(before, after, channels=3, bands=bands)
        pair = aligned(pair, layer.provenance.get("alignment"))
        observed = (
            None if mask is None else observed_in_map(Path(mask), pair.output_grid, pair.grid)
        )
        overview = draw_overview(
            pair, longest=config.overview_size, progress=lambda *rows: report("draw", *rows)
        )
        if observed is None:
            grid = pair.grid.scaled(overview.step, overview.step)
            observed = observed_in_images(overview.seen, grid)
        page, shown, sharp = _composed(layer, pair, overview, observed, config, report)
    with outputs.replacing(target) as temporary:
        temporary.write_bytes(page)
    return WrittenReport(target, len(page), len(layer.frame), shown, sharp)


def shown_bands(
    before: str | Path, after: str | Path, record: dict[str, Any]
) -> tuple[int, ...] | None:
    """The bands that the run read, if they are three; one for gray images; None: the first."""
    config = record.get("config")
    chosen = config.get("bands") if isinstance(config, dict) else None
    if isinstance(chosen, list) and len(chosen) == 3 and all(isinstance(b, int) for b in chosen):
        return tuple(chosen)
    fewest = min((Scene.open(source).bands for source in (before, after)), key=len)
    return fewest[:1] if len(fewest) < 3 else None


def _refuse_inputs(target: Path, inputs: tuple[str | Path | None, ...]) -> None:
    for source in inputs:
        if source is not None and Path(source).resolve() == target.resolve():
            raise ConfigError(f"the report would replace its input {source}; write it elsewhere")


def _composed(
    layer: ChangeLayer, pair: RasterPair, overview: Overview, observed: Observed,
    config: ReportConfig, report: Progress,
) -> tuple[bytes, int, int]:  # fmt: skip
    """The page within its budget, the changes listed, and those with sharper pictures."""
    budget = int(config.max_mb * _MEGABYTE)
    no_images = ReportImages(overview, EncodedPair(b"", b"", 1), [])
    bare = len(Page(layer, pair, observed, {"count": 0}, {}).render(no_images))
    beside = layers_beside(layer, pair.grid, most=int((budget - bare) * _BESIDE_SHARE))
    table, windows = _fitting_table(layer, pair, int((budget - bare) * _TABLE_SHARE), config)
    page = Page(layer, pair, observed, table, beside)
    taken = len(page.render(no_images)) + _RESERVE
    # Four letters of text carry three bytes of a picture.
    room = (budget - taken) * 3 // 4
    native = overview.step == 1
    smallest = encode_overview(overview, max(0, room if native else int(room * _OVERVIEW_SHARE)))
    needed = taken + len(smallest) * 4 / 3
    if needed > budget:
        enough = math.ceil(needed / _MEGABYTE * 10) / 10
        raise ConfigError(
            f"a report of {len(layer.frame)} changes does not fit into {config.max_mb:g} MB; "
            f"it needs {enough:g} at least, and more for sharp images: try --max-mb "
            f"{max(20, math.ceil(2 * enough))}"
        )
    pixel = overview.extent[1] / smallest.width
    pictures = _sharp(pair, windows, pixel, room - len(smallest), config.max_thumbnails, report)
    images = ReportImages(overview, smallest, pictures)
    return page.render(images), table["count"], sum(p is not None for p in pictures)


def _fitting_table(
    layer: ChangeLayer, pair: RasterPair, most: int, config: ReportConfig
) -> tuple[dict[str, Any], list[Window]]:
    """The table of changes, largest first, with outlines as fine as the budget allows."""
    size, _ = areas(layer.frame)
    order = size.sort_values(ascending=False, kind="stable").index[: config.max_changes]
    frame = layer.frame.loc[order].reset_index(drop=True)
    for tolerance in _TOLERANCES:
        table, windows = change_table(frame, pair.grid, tolerance=tolerance)
        if len(packed(table)) <= most:
            break
    return table, windows


def _sharp(
    pair: RasterPair,
    windows: list[Window],
    pixel: float,
    room: int,
    most: int,
    report: Progress,
) -> list[EncodedPair | None]:
    """Pictures of the largest changes, as many as there is room for."""
    wanted = windows[:most]
    pictures: list[EncodedPair | None] = []
    with closing(thumbnails(pair, wanted, pixel=pixel)) as made:
        for number, picture in enumerate(made, 1):
            room -= 0 if picture is None else len(picture)
            if room < 0:
                break
            pictures.append(picture)
            report("thumbnails", number, len(wanted))
    return pictures
