"""Other ways to align the pairs of ``alignment.py``: OpenCV's, and AROSICS as a command.

Each gives the displacement (x, y) at points (x, y) of the before image, or None. A pixel of
before is a metre wide, and its upper left corner is at ``CORNER``.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np

Points = np.ndarray
CORNER = (500_000, 4_000_000)

# Runs with AROSICS's own Python: AROSICS is a peer, no dependency.
_AROSICS = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
from arosics import COREG, COREG_LOCAL
before, after, points, found, mode, left, top, spacing = sys.argv[1:]
points = np.load(points)
common = dict(max_shift=20, nodata=(None, 0), q=True, progress=False, ignore_errors=True)
report = {}
if mode == "global":
    task = COREG(before, after, **common)
    task.calculate_spatial_shifts()
    # In metres, and of after's place: to where after shows it is the other way.
    shift = [-(task.x_shift_map or 0.0), task.y_shift_map or 0.0]
    report["reliability"] = task.shift_reliability
    moved = np.tile(np.array(shift), (len(points), 1))
else:
    from scipy.interpolate import RBFInterpolator
    task = COREG_LOCAL(before, after, grid_res=int(spacing), window_size=(128, 128), **common)
    table = task.CoRegPoints_table
    table = table[(table.ABS_SHIFT >= 0) & (table.OUTLIER == False)]
    report["ties"] = len(table)
    spots = table[["X_MAP", "Y_MAP"]].to_numpy(float) - (float(left), float(top))
    spots = spots * (1, -1) - 0.5
    shifts = table[["X_SHIFT_M", "Y_SHIFT_M"]].to_numpy(float) * (-1, 1)
    moved = RBFInterpolator(spots / 1000, shifts, smoothing=1e-3, neighbors=200)(points / 1000)
np.save(found, moved)
print("REPORT" + json.dumps(report))
"""


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Gray values as uint8, stretched where they are not."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def phase(before: np.ndarray, after: np.ndarray, valid: np.ndarray, points: Points) -> Points:
    """One shift by phase correlation of the whole images."""
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    images = (i.astype(np.float32) for i in (before, after))
    shift, _ = cv2.phaseCorrelate(*images, window)
    return np.tile(shift, (len(points), 1))


def ecc(before: np.ndarray, after: np.ndarray, valid: np.ndarray, points: Points) -> Points | None:
    """An affine map by the enhanced correlation coefficient, in a pyramid, with a mask."""
    matrix = np.eye(2, 3, dtype=np.float32)
    steps = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-5)
    for level in (8, 4, 2):
        size = (before.shape[1] // level, before.shape[0] // level)
        small = [cv2.resize(i, size, interpolation=cv2.INTER_AREA) for i in (before, after)]
        mask = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        scaled = matrix.copy()
        scaled[:, 2] /= level
        try:
            _, scaled = cv2.findTransformECC(*small, scaled, cv2.MOTION_AFFINE, steps, mask, 5)
        except cv2.error:
            return None
        matrix = scaled.copy()
        matrix[:, 2] *= level
    return points @ matrix[:, :2].T + matrix[:, 2] - points


def sift(before: np.ndarray, after: np.ndarray, valid: np.ndarray, points: Points) -> Points | None:
    """An affine map by SIFT features and MAGSAC."""
    finder = cv2.SIFT.create(nfeatures=8000)
    (first, a), (second, b) = (
        finder.detectAndCompute(i, m) for i, m in ((before, None), (after, valid.astype(np.uint8)))
    )
    if a is None or b is None:
        return None
    pairs = cv2.BFMatcher().knnMatch(a, b, k=2)
    good = [m for m, *rest in pairs if rest and m.distance < 0.8 * rest[0].distance]
    if len(good) < 4:
        return None
    here = np.array([first[m.queryIdx].pt for m in good])
    there = np.array([second[m.trainIdx].pt for m in good])
    matrix, _ = cv2.estimateAffine2D(here, there, method=cv2.USAC_MAGSAC, ransacReprojThreshold=2)
    return None if matrix is None else points @ matrix[:, :2].T + matrix[:, 2] - points


def arosics(
    python: Path, mode: str, before: Path, after: Path, points: Points, coarser: int
) -> tuple[Points | None, dict[str, object]]:
    """A shift (``global``) or tie points through a thin-plate spline (``local``).

    Its tie points are 80 pixels of before apart, also where after's are ``coarser`` times as wide:
    it counts in after's.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder) / "points.npy", Path(folder) / "found.npy"
        np.save(asked, points)
        command = [
            str(python),
            "-c",
            _AROSICS,
            str(before),
            str(after),
            str(asked),
            str(found),
            mode,
            *(str(value) for value in CORNER),
            str(80 // coarser),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        report = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
        if done.returncode or not report:
            return None, {"error": done.stderr.strip().splitlines()[-1:]}
        return np.load(found), json.loads(report[-1].removeprefix("REPORT"))
