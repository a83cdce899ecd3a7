"""Build the archive that QGIS installs a plugin from; the same files give the same bytes.

python3 qgis/make_zip.py [FOLDER]     (default: dist)
"""

import configparser
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
PLUGIN = HERE / "geocd_qgis"
_KINDS = {".py", ".svg", ".txt"}


def version() -> str:
    """The version that the plugin says it has."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


def make_zip(folder: Path) -> Path:
    """Write the archive into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"geocd_qgis-{version()}.zip"
    files = {p.name: p for p in PLUGIN.iterdir() if p.suffix in _KINDS}
    files["LICENSE"] = HERE.parent / "LICENSE"
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            # Neither the time of the checkout nor the user's mask may change the archive.
            entry = zipfile.ZipInfo(f"{PLUGIN.name}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name].read_bytes())
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{make_zip(Path(sys.argv[1] if len(sys.argv) > 1 else 'dist'))}\n")
