"""The main job on an embedded default: paint a survey pair, detect, compare with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize

from geocd.config import CLASS_CODES, NOT_OBSERVED, DetectConfig
from geocd.errors import OutputError
from geocd.outputs import check_writable
from geocd.pipeline import Progress, detect
from geocd.rasters.pair import open_pair
from geocd.result import DetectResult
from geocd.testing import comparison_picture, paint_survey, score_against_truth


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found, against what was painted."""

    detection: DetectResult
    agreement: dict[str, dict[str, Any]]
    """Painted, found and false objects, and precision, recall and F1 of pixels, by kind."""
    offset_px: tuple[float, float]
    """Misregistration painted into the after image, (row, col) in before's pixels."""
    picture: Path

    def report(self) -> str:
        """The comparison, for people."""
        rows = [f"painted misregistration: {np.hypot(*self.offset_px):.1f} px", ""]
        rows.append(
            f"{'':<10} {'painted':>8} {'found':>8} {'false':>8} {'P':>6} {'R':>6} {'F1':>6}"
        )
        for kind, a in self.agreement.items():
            rows.append(
                f"{kind:<10} {a['objects']:>8} {a['found']:>8} {a['false']:>8} "
                f"{a['precision']:>6.2f} {a['recall']:>6.2f} {a['f1']:>6.2f}"
            )
        return "\n".join([self.detection.report(), *rows, "", f"look at {self.picture}"])


def _delivered(result: DetectResult, mask: Path) -> NDArray[np.uint8]:
    """The change polygons as a change map: what a user gets, without specks."""
    with rasterio.open(mask) as dataset:
        codes: NDArray[np.uint8] = dataset.read(1)
        transform = dataset.transform
    shapes = [
        (geometry, CLASS_CODES[kind])
        for geometry, kind in zip(result.changes.geometry, result.changes["kind"], strict=True)
    ]
    drawn = np.zeros_like(codes)
    if shapes:
        drawn = rasterize(shapes, out=drawn, transform=transform)
    return np.where(codes == NOT_OBSERVED, codes, drawn)


def run_demo(
    folder: Path,
    *,
    seed: int = 7,
    config: DetectConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Paint a bitemporal survey with known change, detect, and compare.

    The two dates are GeoTIFFs in different CRS, the later one misregistered by some pixels,
    under another sun and season. Everything is written to ``folder``.

    Args:
        folder: created if need be.
        seed: of the painted suburb.
        config: settings of the detection.
        overwrite: replace the outputs of an earlier demo.
        progress: as for ``detect``.

    Raises:
        GeocdError: and its kinds; see ``geocd.errors``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {folder}: {error.strerror}") from None
    output, mask, picture = folder / "changes.gpkg", folder / "mask.tif", folder / "changes.png"
    for path in (output, mask, picture):
        check_writable(path, overwrite=overwrite)
    survey = paint_survey(folder, seed=seed)
    result = detect(survey.before, survey.after, output, mask=mask, config=config,
                    overwrite=overwrite, progress=progress)  # fmt: skip
    found = _delivered(result, mask)
    pair = open_pair(survey.before, survey.after, channels=3).with_motion(result.alignment.motion)
    with pair.reader() as reader:
        window = reader.read(slice(0, pair.grid.height), slice(0, pair.grid.width))
    # The picture shows before's grid; what was not observed stays neutral.
    span = pair.output_grid.slices_over(pair.grid.footprint)
    assert span is not None
    before, after = (np.moveaxis(image, 0, -1) for image in (window.before, window.after))
    comparison_picture(before, after, found[span], survey.truth_mask[span], picture)
    return DemoResult(result, score_against_truth(found, survey.truth_mask),
                      survey.offset_px, picture)  # fmt: skip
