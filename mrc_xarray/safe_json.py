"""JSON from a file that anyone may have made: limits on its length, depth and number of values."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["DEEPEST", "LONGEST", "JsonLimitError", "decode_json"]

#: The longest JSON that is read, in bytes or characters. Real metadata of images are shorter.
LONGEST = 256 * 1024**2
#: Levels of nesting. Python's limit is below 1000, and lower for writing than for reading.
DEEPEST = 200
_TOO_DEEP = f"nested more than {DEEPEST} levels deep"


class JsonLimitError(ValueError):
    """JSON that is too long, too deep or too large to decode; the message says what was found."""


def decode_json(text: str | bytes, *, most_values: int | None = None) -> Any:
    """Decode JSON; raise JsonLimitError beyond a limit, and ValueError if it is not JSON.

    `most_values` limits the number of values: one takes some 100 bytes of memory, but can take
    3 bytes in the text.
    """
    if len(text) > LONGEST:
        raise JsonLimitError(f"{len(text)} bytes long")
    if most_values is not None:
        separators = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
        n_values = sum(map(text.count, separators))  # type: ignore[arg-type]  # of the same type
        if n_values > most_values:
            raise JsonLimitError(f"about {n_values} values, more than {most_values}")
    try:
        value = json.loads(text if isinstance(text, str) else text.decode())
    except MemoryError:
        raise JsonLimitError("more than there is memory for") from None
    except RecursionError:
        raise JsonLimitError(_TOO_DEEP) from None
    if _is_deep(value):
        raise JsonLimitError(_TOO_DEEP)
    return value


def _is_deep(value: Any) -> bool:
    """Return whether lists and objects are nested too deeply to be written and read reliably."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        children = [c.values() if isinstance(c, dict) else c for c in level]
        level = [c for group in children for c in group if isinstance(c, dict | list)]
        if not level:
            return False
    return True
