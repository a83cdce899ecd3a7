"""A sample as a layer that people label in QGIS, and what comes back from them."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

from geocd.assess.area import SampledAccuracy, estimate_accuracy
from geocd.assess.labelling import Labels, sample_name
from geocd.assess.sampling import MAP_CLASSES, NONE, PixelSample, Stratum
from geocd.errors import ConfigError, InputError, OutputError
from geocd.maps.qml import add_layer_style
from geocd.maps.vector import provenance_rows
from geocd.outputs import check_writable, replacing
from geocd.vectorize.attributes import to_ground

SAMPLE, STRATA = "sample", "strata"
"""Names of the layer to label, and of the table of its strata."""
UNCLEAR = "unclear"
"""The label of a unit of which nobody can tell what is true."""
LABELS = (*MAP_CLASSES, UNCLEAR)
"""What the column "reference" may hold."""

_PLAIN = "change"
_KINDS = tuple(name for name in MAP_CLASSES if name not in (NONE, _PLAIN))
_WRITE_ERRORS = (DataSourceError, DataLayerError, FeatureError, GeometryError, sqlite3.Error)


def check_sample_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a sample that could not be written.

    Raises:
        ConfigError: the extension is not ``.gpkg``.
        OutputError: see ``outputs.check_writable``.
    """
    if path.suffix.lower() != ".gpkg":
        raise ConfigError(f"cannot write {path.name!r}: samples are written as .gpkg")
    check_writable(path, overwrite=overwrite)


def write_sample(
    sample: PixelSample, path: Path, *, record: Mapping[str, object], overwrite: bool = False
) -> None:
    """Write the layer "sample", styled for labelling in QGIS, and the table "strata". Atomic.

    The form in QGIS offers the labels in words, and hides what the map says, so that whoever
    labels is not led by it.

    Args:
        sample: the pixels.
        path: a GeoPackage.
        record: what made it, kept in a table "provenance".
        overwrite: replace an existing file.

    Raises:
        ConfigError: another extension.
        OutputError: the file cannot be written; the target is as it was.
    """
    check_sample_output(path, overwrite=overwrite)
    with replacing(path) as temporary:
        try:
            with warnings.catch_warnings():
                # Layers without a CRS are a supported case: they are in pixel units.
                warnings.filterwarnings("ignore", message=".*crs.*was not provided.*")
                pyogrio.write_dataframe(units_of(sample), temporary, driver="GPKG", layer=SAMPLE,
                                        geometry_type="Polygon")  # fmt: skip
            for table, name in ((_strata_table(sample), STRATA), (provenance_rows(record),
                                                                   "provenance")):  # fmt: skip
                pyogrio.write_dataframe(table, temporary, driver="GPKG", layer=name, append=True)
            add_layer_style(temporary, SAMPLE, style=SAMPLE, description="units to label")
        except _WRITE_ERRORS as error:
            reason = str(error).replace(str(temporary), str(path))
            raise OutputError(f"{path} was not written: {reason}; is the disk full?") from None


def units_of(sample: PixelSample) -> geopandas.GeoDataFrame:
    """The units of a sample, numbered from 1, without labels."""
    names = np.array([s.name for s in sample.strata], dtype=object)
    classes = np.array([s.map_class for s in sample.strata], dtype=object)
    count = len(sample.row)
    columns: dict[str, Any] = {
        "unit": np.arange(1, count + 1),
        "reference": np.full(count, None, dtype=object),
        "note": np.full(count, None, dtype=object),
        "stratum": names[sample.stratum],
        "map_class": classes[sample.stratum],
        "row": sample.row,
        "col": sample.col,
    }
    squares = shapely.box(sample.col, sample.row, sample.col + 1, sample.row + 1)
    crs = None if sample.grid.crs is None else sample.grid.crs.to_wkt()
    outlines = to_ground(np.asarray(squares), sample.grid)
    return geopandas.GeoDataFrame(columns, geometry=outlines, crs=crs)


def _strata_table(sample: PixelSample) -> pd.DataFrame:
    rows = [
        {
            "stratum": s.name,
            "map_class": s.map_class,
            "pixels": s.pixels,
            "drawn": s.drawn,
            "area": s.pixels * sample.pixel_area,
            "unit": sample.unit,
        }
        for s in sample.strata
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """What people said of the units of a sample."""

    strata: tuple[Stratum, ...]
    area: float
    """Of all strata."""
    unit: str
    """m2, or px without a CRS."""
    stratum: NDArray[np.int64]
    """Index of the stratum of each unit that could be judged, shape (n,)."""
    reference: tuple[str, ...]
    """Its label."""
    unclear: int
    """Units that nobody could judge; they are left out."""


@dataclass(frozen=True, slots=True)
class SampleAssessment:
    """Accuracy and area from a labelled sample."""

    sample: LabelledSample
    accuracy: SampledAccuracy

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; areas in the unit that it names."""
        content = self.accuracy.to_dict()
        for name, share in zip(self.accuracy.classes, self.accuracy.share, strict=True):
            content["classes"][name]["area"] = {
                "mapped": self.mapped_area(name),
                "value": share.value * self.sample.area,
                "standard_error": share.standard_error * self.sample.area,
                "interval_95": [bound * self.sample.area for bound in share.interval],
            }
        return {
            "area_unit": self.sample.unit,
            "area": self.sample.area,
            "unclear": self.sample.unclear,
            "strata": {
                s.name: {"map_class": s.map_class, "pixels": s.pixels, "drawn": s.drawn}
                for s in self.sample.strata
            },
        } | content

    def mapped_area(self, name: str) -> float:
        """Area that the map gives to a class, by counting its pixels."""
        pixels = sum(s.pixels for s in self.sample.strata if s.map_class == name)
        return pixels / sum(s.pixels for s in self.sample.strata) * self.sample.area


def assess_sample(path: str | Path, *, labels: Sequence[Labels] = ()) -> SampleAssessment:
    """Accuracy and area from a sample whose every unit was labelled.

    Args:
        path: a GeoPackage of ``write_sample``, with the column "reference" filled in: none,
            building, road, change, or unclear. Units that are unclear are left out, as if they
            were a random part of their stratum.
        labels: further labels, of units that have none in the file or the same one.

    Raises:
        InputError: the file is no sample, units are missing or without a label, a label is
            none of these, too few of a stratum are left, or labels are of another sample or
            contradict each other.
    """
    sample = read_sample(Path(path), labels=labels)
    in_map = {s.map_class for s in sample.strata}
    seen = in_map | set(sample.reference)
    classes = tuple(name for name in MAP_CLASSES if name in seen)
    codes = {name: index for index, name in enumerate(classes)}
    mapped = np.array([codes[s.map_class] for s in sample.strata])[sample.stratum]
    reference = np.array([codes[name] for name in sample.reference], np.int64)
    sizes = np.array([s.pixels for s in sample.strata])
    accuracy = estimate_accuracy(sample.stratum, mapped, reference, sizes=sizes, classes=classes)
    return SampleAssessment(sample, accuracy)


def read_sample(path: Path, *, labels: Sequence[Labels] = ()) -> LabelledSample:
    """The labels of a sample, checked; see ``assess_sample``."""
    try:
        units = pyogrio.read_dataframe(path, layer=SAMPLE, read_geometry=False)
        table = pyogrio.read_dataframe(path, layer=STRATA)
        names = table["stratum"].tolist()
        strata = tuple(Stratum(*row) for row in table[["stratum", "pixels", "drawn"]].values)
        of_unit = units["stratum"].tolist()
        for more in labels:
            units["reference"] = _joined(path, units, more)
        given = units["reference"]
    except (DataSourceError, DataLayerError, KeyError) as error:
        raise InputError(
            f"{path} is no sample ({error}); draw one with geocd sample MAP -o SAMPLE.gpkg"
        ) from None
    _check_units(path, strata, of_unit)
    _check_labels(path, units)
    reference = given.str.strip().str.lower()
    judged = (reference != UNCLEAR).to_numpy()
    if not {s.map_class for s in strata} & set(_KINDS):
        # A map of plain change shows every kind of it.
        reference = reference.replace(list(_KINDS), _PLAIN)
    stratum = np.array([names.index(name) for name in of_unit])
    return LabelledSample(
        strata=strata,
        area=float(table["area"].sum()),
        unit=str(table["unit"].iloc[0]),
        stratum=stratum[judged],
        reference=tuple(reference[judged]),
        unclear=int((~judged).sum()),
    )


def _joined(path: Path, units: pd.DataFrame, labels: Labels) -> pd.Series[Any]:
    """The labels of the file and others, by the number of the unit."""
    name = sample_name(units)
    if labels.sample != name:
        raise InputError(
            f"the labels are of the sample {labels.sample}, and {path} is the sample {name}; give "
            "those that its own page exported"
        )
    known = units["reference"].where(units["reference"].astype(str).str.strip() != "")
    more = units["unit"].map(labels.reference)
    apart = known.notna() & more.notna() & (known != more)
    if apart.any():
        unit = units.loc[apart].iloc[0]
        raise InputError(
            f"unit {unit['unit']} is labelled {unit['reference']!r} and "
            f"{labels.reference[unit['unit']]!r}; whoever labels must agree first"
        )
    return known.where(known.notna(), more)


def _check_units(path: Path, strata: tuple[Stratum, ...], of_unit: list[str]) -> None:
    for stratum in strata:
        found = of_unit.count(stratum.name)
        if found != stratum.drawn:
            raise InputError(
                f"{path}: {stratum.drawn} units were drawn in the stratum {stratum.name}, and "
                f"{found} are there; deleted or added units make the sample no sample: label "
                f"what cannot be judged as {UNCLEAR} instead"
            )
    if len(of_unit) != sum(s.drawn for s in strata):
        raise InputError(f"{path} has units of strata that its table of strata does not name")


def _check_labels(path: Path, units: pd.DataFrame) -> None:
    labels = units["reference"]
    missing = labels.isna() | (labels.astype(str).str.strip() == "")
    if missing.any():
        first = ", ".join(str(u) for u in units.loc[missing, "unit"].head())
        raise InputError(
            f"{path}: {int(missing.sum())} of {len(labels)} units have no label (the first: "
            f"{first}); fill in the column reference with one of {', '.join(LABELS)}, or give what "
            "the page of geocd sample exported (--labels)"
        )
    known = labels.astype(str).str.strip().str.lower().isin(LABELS)
    if not known.all():
        raise InputError(
            f"{path}: unit {units.loc[~known, 'unit'].iloc[0]} is labelled "
            f"{labels[~known].iloc[0]!r}; known are {', '.join(LABELS)}"
        )
