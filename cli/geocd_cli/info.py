"""``geocd info``."""

from __future__ import annotations

import json
import os
import platform

import click

from geocd_cli.reporting import translate_errors


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
def info(as_json: bool) -> None:
    """Show versions, devices and GDAL: what to put into a bug report."""
    import rasterio
    import torch

    from geocd.models.files import bundled_weights
    from geocd.provenance import library_versions

    facts: dict[str, object] = dict(library_versions())
    facts["gdal (rasterio)"] = rasterio.__gdal_version__
    facts["platform"] = platform.platform()
    facts["cpus"] = os.cpu_count()
    facts["torch threads"] = torch.get_num_threads()
    facts["cuda devices"] = [
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    ]
    facts["bundled weights"] = bundled_weights()
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        click.echo(f"{name:>24}  {text}")
