"""From a trained network to a weights file with its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from geocd.models.card import WeightsCard
from geocd.models.checkpoint import save_weights
from geocd.training.defect_source import DefectSource
from geocd.training.recipe import PairsSource, Recipe, TileSource


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run knows of itself, for the card."""

    step: int
    """Optimiser steps behind the weights."""
    seconds: float
    """Wall-clock time of training."""
    device: str
    """Where it ran."""
    processes: int
    """Processes that shared each batch."""
    tiles: tuple[int, ...]
    """Tiles of each source."""
    pairs: tuple[int, ...]
    """Pairs of each real source."""
    good: tuple[int, ...] = ()
    """Pictures of good parts of each source of synthesised defects."""
    hashes: tuple[str, ...] = ()
    """Content of the images that were trained on, by which a calibration knows them again."""
    damaged: tuple[str, ...]
    """Tiles and pairs that were skipped because they are damaged."""


def export_weights(
    path: Path, network: nn.Module, recipe: Recipe, facts: RunFacts, *,
    validation: Mapping[str, Any],
) -> WeightsCard:  # fmt: skip
    """Write a network's weights with their card, 16 bits a number; an older file is replaced."""
    notes, config = recipe.card, recipe.network
    card = WeightsCard(
        name=recipe.name, architecture=config.architecture, width=config.width,
        options=dict(config.options), classes=recipe.classes, exclusive=recipe.exclusive,
        thresholds=notes.thresholds or (0.5,) * len(recipe.planes),
        bands=("red", "green", "blue"), mean=(config.mean,) * 3, std=(config.std,) * 3,
        gsd=notes.gsd, summary=notes.summary, terms=notes.terms, limitations=notes.limitations,
        training=_history(recipe, facts), validation=dict(validation),
    )  # fmt: skip
    return save_weights(path, network, card, half=True, overwrite=True)


def _history(recipe: Recipe, facts: RunFacts) -> dict[str, Any]:
    """What the weights were trained on."""
    loss = recipe.loss
    history: dict[str, Any] = {
        "initial_weights": recipe.network.initial,
        "steps": facts.step,
        "steps_planned": recipe.steps,
        "hours": round(facts.seconds / 3600, 2),
        "device": facts.device,
        "processes": facts.processes,
        "seed": recipe.seed,
        "loss": loss.change,
        "stages": [
            f"{s.steps} steps of {s.batch} x {s.crop} px" + ", self-labelled" * s.self_label
            for s in recipe.stages
        ],
        "tiles": [_tiles(s, n) for s, n in zip(recipe.sources, facts.tiles, strict=True)],
        "pairs": [_pairs(s, n) for s, n in zip(recipe.pairs, facts.pairs, strict=True)],
        "damaged": list(facts.damaged),
    }
    if facts.hashes:
        history["content_sha256"] = list(facts.hashes)
    if recipe.defects:
        history["defects"] = [_good(s, n) for s, n in zip(recipe.defects, facts.good, strict=True)]
    if loss.teacher:
        history["teacher"] = loss.teacher
    return history


def _tiles(source: TileSource, count: int) -> dict[str, Any]:
    return {
        "folder": source.name, "files": source.include, "tiles": count, "gsd_m": source.gsd,
        "share": source.weight, "origin": source.origin, "terms": source.terms,
    }  # fmt: skip


def _good(source: DefectSource, count: int) -> dict[str, Any]:
    return {
        "folder": source.folder, "files": list(source.include), "pictures": count,
        "share": source.weight, "origin": source.origin, "terms": source.terms,
    }  # fmt: skip


def _pairs(source: PairsSource, count: int) -> dict[str, Any]:
    return {
        "folder": source.folder, "split": source.split, "files": list(source.include),
        "pairs": count, "gsd_m": source.gsd,
        "share": source.weight, "origin": source.origin, "terms": source.terms,
    }  # fmt: skip
