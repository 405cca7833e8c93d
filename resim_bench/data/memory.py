"""What was found out about a folder of data, remembered in the user's cache: a hint that saves time, never a fact.

Whoever recalls something checks that it still holds (names, sizes, times); what cannot be read or written is done anew.
"""

import contextlib
import hashlib
import json
from pathlib import Path

import platformdirs

from resim_bench import files


def _file(kind: str, folder: Path) -> Path:
    key = hashlib.sha256(str(Path(folder).resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    return platformdirs.user_cache_path("resim-bench") / kind / f"{key}.json"


def recall(kind: str, folder: Path):
    """What `remember` was given last for `kind` and `folder`, or None."""
    try:
        return json.loads(_file(kind, folder).read_bytes())
    except (OSError, ValueError):
        return None


def remember(kind: str, folder: Path, value) -> None:
    """Keep a JSON-able `value` for `kind` and `folder`; on a full or read-only disk it is forgotten."""
    with contextlib.suppress(OSError), files.replacing(_file(kind, folder)) as stream:
        stream.write(json.dumps(value).encode())
