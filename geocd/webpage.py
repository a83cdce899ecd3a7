"""What self-contained pages share: binary content as text, and the hash of a script."""

from __future__ import annotations

import base64
import hashlib


def data_uri(content: bytes, kind: str) -> str:
    """An encoded image of a kind such as png, as the address of itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def script_hash(script: str) -> str:
    """The source expression by which a content security policy lets one script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
