"""The arguments of `to_mrc` and `create`, as one checked object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.recognition import BYTE_ORDERS
from mrc_xarray.storage.codecs import WRITABLE
from mrc_xarray.suffixes import stem_and_suffix
from mrc_xarray.voxel_size import VoxelSize, VoxelSizeArgument

__all__ = ["WriteOptions"]

# arguments that can be combined with a change in place; those of a store lead to its own error
_IN_PLACE = {"mode", "statistics", "region", "append_dim", "storage_options"}


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How data are written; see `mrc_xarray.to_mrc` for each argument, and for the errors."""

    mode: int | None = None
    compressor: str | None = "auto"
    clevel: int = 1
    compression: str | None = "auto"
    metadata: Mapping[str, Any] | None = None
    extended_header: bytes | tuple[str, bytes] | None = None
    like: bool = False  # whether the labels are those of a file or of other data
    labels: Sequence[str] = ()
    statistics: bool | Literal["quick"] = True
    voltage: float | None = None
    c3: float | None = None
    gain: float | None = None
    byteorder: str = "little"
    voxel_size: VoxelSizeArgument = None
    region: Mapping[str, Any] | None = None
    append_dim: str | None = None
    overwrite: bool = False
    storage_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.clevel, int) or not 0 <= self.clevel <= 9:
            raise ValueError(f"clevel is {self.clevel!r}; accepted: 0 to 9")
        if self.statistics not in (True, False, "quick"):
            raise ValueError(f"statistics is {self.statistics!r}; accepted: True, False, 'quick'")
        self._check_compression()
        if self.byteorder not in BYTE_ORDERS:
            raise ValueError(f"byteorder is {self.byteorder!r}; accepted: 'little', 'big'")
        if self.metadata is not None and self.extended_header is not None:
            raise ValueError(
                "metadata= and extended_header= exclude each other: metadata are written to the "
                "extended header"
            )
        if self.region is not None and not isinstance(self.region, Mapping):
            raise TypeError(
                f"region is {self.region!r}; accepted: a mapping of dimension to an integer, a "
                "slice, a boolean mask or a list of integers"
            )
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata is {self.metadata!r}; accepted: a dictionary")
        if self.voxel_size is not None:
            object.__setattr__(self, "voxel_size", VoxelSize.of(self.voxel_size))
        for name, value in self.instrument.items():
            if value is not None:
                _check_number(name, value)
        self._check_labels()
        if self.is_in_place:
            self._check_in_place()

    @property
    def is_in_place(self) -> bool:
        """Whether an existing file is changed, instead of a new one written."""
        return self.region is not None or self.append_dim is not None

    @property
    def instrument(self) -> dict[str, float | None]:
        """Voltage, C3 and gain by the names of their header fields."""
        return {"voltage": self.voltage, "c3": self.c3, "gain": self.gain}

    def compressor_for(self, name: str, *, codec: str | None) -> str | None:
        """Return the compressor for a file of this name; None for a plain MRC file.

        `codec` is that of the stream that the file is written into.
        """
        compressor = self.compressor
        if compressor == "auto":
            compressor = "zstd" if stem_and_suffix(name)[1] == ".mrcz" else None
        if compressor is not None and codec is not None:
            raise MrcError(
                f"{name}: an MRCZ file is already compressed, and would be written into a {codec} "
                "stream. Leave out the suffix or compression= that says so, or write a plain MRC "
                "file into the stream with compressor=None"
            )
        return compressor

    def _check_compression(self) -> None:
        accepted = ("auto", None, *WRITABLE)
        if self.compression not in accepted:
            raise ValueError(
                f"compression is {self.compression!r}; accepted: "
                f"{', '.join(map(repr, accepted))}. compressor= is the codec of an MRCZ"
            )
        if self.compression not in ("auto", None) and self.compressor not in ("auto", None):
            raise ValueError(
                f"compression={self.compression!r} and compressor={self.compressor!r} exclude "
                "each other: compression= compresses a plain MRC file, and compressor= the "
                "sections of an MRCZ"
            )

    def _check_labels(self) -> None:
        if isinstance(self.labels, str):
            raise TypeError(f"labels is the text {self.labels!r}; accepted: a list of texts")
        for label in self.labels:
            if not (label.isascii() and label.isprintable() and len(label) <= 80):
                raise MrcError(
                    f"the label {label!r} can't be stored; accepted: up to 80 printable ASCII "
                    "characters"
                )

    def _check_in_place(self) -> None:
        if self.region is not None and self.append_dim is not None:
            raise ValueError("region= and append_dim= exclude each other")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in _IN_PLACE and value not in (field.default, None, []):
                raise ValueError(
                    f"{field.name}= can't be combined with region= or append_dim=, which change "
                    "an existing file; accepted: mode, statistics and compute"
                )


def _check_number(argument: str, value: float) -> None:
    """Raise TypeError unless an argument is a number."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument} is {value!r}; accepted: a number") from None
