"""STAR tables of RELION built by hand from its documentation, and stacks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import by_hand
import numpy as np

Array = np.ndarray[Any, Any]


def loop(name: str, columns: Mapping[str, Sequence[Any]]) -> str:
    """Return a block with a table, as RELION writes it: labels have numbers."""
    labels = "".join(f"_{label} #{n} \n" for n, label in enumerate(columns, 1))
    rows = "".join(" ".join(map(str, row)) + " \n" for row in zip(*columns.values(), strict=True))
    return f"\n# version 30001\n\ndata_{name}\n\nloop_ \n{labels}{rows} \n"


def names(numbers: Sequence[int], stack: str) -> list[str]:
    return [f"{number:06d}@{stack}" for number in numbers]


def optics(n: int = 1, **columns: Sequence[Any]) -> str:
    """Return the optics of RELION 3.1 and later; all groups have 1.25 Å, 300 kV and 2.7 mm."""
    return loop(
        "optics",
        {
            "rlnOpticsGroupName": [f"opticsGroup{i}" for i in range(1, n + 1)],
            "rlnOpticsGroup": range(1, n + 1),
            "rlnVoltage": ["300.000000"] * n,
            "rlnSphericalAberration": ["2.700000"] * n,
            "rlnAmplitudeContrast": ["0.100000"] * n,
            "rlnImagePixelSize": ["1.250000"] * n,
            "rlnImageSize": [9] * n,
            "rlnImageDimensionality": [2] * n,
        }
        | columns,
    )


def stack(path: Path, n: int, first: int = 0, dtype: str = "f4", **fields: Any) -> Array:
    """Write a stack of images of 5 × 9 pixels, whose values are unique, and return them."""
    pixels = (np.arange(n * 45).reshape(n, 5, 9) + 1000 * first).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(by_hand.mrc(pixels, **({"ispg": 0, "mz": 1} | fields)))
    return pixels
