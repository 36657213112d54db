"""DM3 and DM4 bytes built by hand from public descriptions of the format, without the package."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# DataType → NumPy code of the numbers in the file, code of the elements of its array, their count
TYPES: dict[int, tuple[str, int, int]] = {
    1: ("i2", 2, 1), 2: ("f4", 6, 1), 3: ("c8", 6, 2), 5: ("f4", 6, 1), 6: ("u1", 10, 1),
    7: ("i4", 3, 1), 8: ("u1", 3, 1), 9: ("i1", 9, 1), 10: ("u2", 4, 1), 11: ("u4", 5, 1),
    12: ("f8", 7, 1), 13: ("c16", 7, 2), 14: ("?", 8, 1), 23: ("u1", 3, 1), 27: ("c8", 6, 1),
    28: ("c16", 7, 1), 39: ("i8", 11, 1), 40: ("u8", 12, 1),
}  # fmt: skip
SIZES = {2: 2, 3: 4, 4: 2, 5: 4, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1, 11: 8, 12: 8}
CODES = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 9: "b", 10: "B", 11: "q", 12: "Q"}


class Raw(bytes):
    """The words that describe a type, and the bytes of a value, as they are in the file."""

    words: tuple[int, ...]

    @classmethod
    def of(cls, words: Sequence[int], content: bytes) -> Raw:
        self = cls(content)
        self.words = tuple(words)
        return self


class Writer:
    def __init__(self, version: int = 4, byteorder: str = "<") -> None:
        self.version, self.order = version, byteorder

    def file(self, root: Mapping[str, Any]) -> bytes:
        body = self.group(root)
        length = struct.pack(">I" if self.version == 3 else ">Q", len(body) + 4)
        flag = struct.pack(">I", self.order == "<")
        return struct.pack(">I", self.version) + length + flag + body + bytes(8)

    def group(self, tags: Mapping[str, Any]) -> bytes:
        """Return flags, number of tags, and tags; a name that begins with "#" is left out."""
        return b"\1\0" + self.words(len(tags)) + b"".join(map(self.tag, tags, tags.values()))

    def tag(self, name: str, value: Any) -> bytes:
        text = b"" if name.startswith("#") else name.encode("latin-1")
        kind = 20 if isinstance(value, Mapping) else 21
        content = self.group(value) if isinstance(value, Mapping) else self.data(value)
        length = self.words(len(content)) if self.version == 4 else b""
        return struct.pack(">BH", kind, len(text)) + text + length + content

    def data(self, value: Any) -> bytes:
        raw = value if isinstance(value, Raw) else self.encoded(value)
        return b"%%%%" + self.words(len(raw.words), *raw.words) + raw

    def encoded(self, value: Any) -> Raw:
        if isinstance(value, str):
            text = value.encode("utf-16-le" if self.order == "<" else "utf-16-be")
            return Raw.of((20, 4, len(text) // 2), text)
        if isinstance(value, tuple):
            fields = [word for _ in value for word in (0, 6)]
            return Raw.of((15, 0, len(value), *fields), self.packed(6, *value))
        code = {bool: 8, int: 3, float: 6, np.float64: 7, np.int64: 11}[type(value)]
        return Raw.of((code,), self.packed(code, value))

    def packed(self, code: int, *values: Any) -> bytes:
        return struct.pack(f"{self.order}{len(values)}{CODES[code]}", *values)

    def words(self, *numbers: int) -> bytes:
        return struct.pack(f">{len(numbers)}{'I' if self.version == 3 else 'Q'}", *numbers)


def numbered(values: Sequence[Any]) -> dict[str, Any]:
    """Return a group of unnamed tags."""
    return {f"#{i}": value for i, value in enumerate(values)}


def pixels(data: np.ndarray[Any, Any], data_type: int, byteorder: str = "<") -> Raw:
    """Return the array of pixels of a DataType; `data` are the numbers that are stored."""
    code, element, n = TYPES[data_type]
    stored = data.astype(np.dtype(code).newbyteorder(byteorder)).tobytes()
    count = len(stored) // (SIZES[element] * n)
    if n == 1:
        return Raw.of((20, element, count), stored)
    return Raw.of((20, 15, 0, n, *[0, element] * n, count), stored)


def image(
    data: np.ndarray[Any, Any],
    data_type: int,
    shape: Sequence[int] | None = None,
    *,
    axes: Sequence[tuple[float, float, str]] = (),
    byteorder: str = "<",
    name: str = "an image",
    **tags: Any,
) -> dict[str, Any]:
    """Return an image of `shape`, slowest first; `axes` are Origin, Scale, Units, fastest first.

    `tags` are added to ImageTags.
    """
    sizes = list(reversed(data.shape if shape is None else shape))
    calibrated = [
        {"Origin": float(origin), "Scale": float(scale), "Units": units}
        for origin, scale, units in axes or [(0, 1, "")] * len(sizes)
    ]
    return {
        "ImageData": {
            "Calibrations": {
                "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
                "Dimension": numbered(calibrated),
                "DisplayCalibratedUnits": True,
            },
            "Data": pixels(data, data_type, byteorder),
            "DataType": data_type,
            "Dimensions": numbered(sizes),
            "PixelDepth": 4,
        },
        "ImageTags": tags,
        "Name": name,
        "UniqueID": numbered([1, 2, 3, 4]),
    }


def root(*images: Mapping[str, Any], thumbnails: Sequence[int] = ()) -> dict[str, Any]:
    """Return the tags of a file: images, with the numbers of those that are thumbnails."""
    listed = [{"ImageIndex": n, "SourceSize_Pixels": (64.0, 64.0)} for n in thumbnails]
    return {
        "ApplicationBounds": (0.0, 0.0, 768.0, 1596.0),
        "ImageList": numbered(images),
        "InImageMode": True,
        "Thumbnails": numbered(listed),
    }


def dm(
    *images: Mapping[str, Any],
    thumbnails: Sequence[int] = (),
    version: int = 4,
    byteorder: str = "<",
) -> bytes:
    """Return a complete file."""
    return Writer(version, byteorder).file(root(*images, thumbnails=thumbnails))
