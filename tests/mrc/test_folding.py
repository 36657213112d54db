"""Frames of a stack as a scan: by an argument, a sidecar or records, and with gaps.

The scan is 3 × 4, and a beam goes through it line by line: `recorded` says what the camera sees.
"""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand as de
import mrcz
import numpy as np
import pytest
import xarray as xr
from mrcfile.dtypes import fei2_dtype_big_endian

from mrc_xarray import MrcError, MrcWarning, open_many, to_mrc
from mrc_xarray.mrc.extended.fei import FEI2 as OF_VELOX
from mrc_xarray.mrc.header import Header

Array = np.ndarray[Any, Any]
SCAN = (3, 4)
FEI2 = fei2_dtype_big_endian.newbyteorder("<")
OPTIONS: dict[str, Any] = {"scan_shape": SCAN, "scan_offset": 2, "scan_flyback": 1}
# two blank frames, and one after each line
INDEX = np.array([[2, 3, 4, 5], [7, 8, 9, 10], [12, 13, 14, 15]])


def opened(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc", **options)


def write_plain(path: Path, pixels: Array, byteorder: str = "<") -> Path:
    path.write_bytes(by_hand.mrc(pixels, byteorder=byteorder))
    return path


def write_gzip(path: Path, pixels: Array) -> Path:
    zipped = path.with_name("file.mrc.gz")
    zipped.write_bytes(gzip.compress(by_hand.mrc(pixels)))
    return zipped


def write_mrcz(path: Path, pixels: Array) -> Path:
    mrcz.writeMRC(pixels, str(path), compressor="zstd")
    return path


FILES: dict[str, Callable[[Path, Array], Path]] = {
    "little": write_plain,
    "big": lambda path, pixels: write_plain(path, pixels, ">"),
    "gzip": write_gzip,
    "MRCZ": write_mrcz,
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("n_frames", [17, 16, 13, 20])
def test_frames_without_a_position(tmp_path: Path, kind: str, n_frames: int) -> None:
    """17 frames fit, and 16 without the last flyback; 13 are too few, and 20 too many."""
    pixels = de.frames(n_frames, "i2")
    path = FILES[kind](tmp_path / "file.mrc", pixels)
    index = np.where(n_frames > INDEX, INDEX, -1)
    expected = de.dense(pixels, index)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MrcWarning)
        ds = opened(path, **OPTIONS)
    messages = [str(warning.message) for warning in caught]
    assert [m.partition("is ")[2][:22] for m in messages] == {
        13: ["13; accepted: 16 for 3"], 20: ["20; accepted: 16 for 3"],
    }.get(n_frames, [])  # fmt: skip
    assert ("have no frame" in str(messages)) == (n_frames == 13)
    assert ("The last frames (3) are left out" in str(messages)) == (n_frames == 20)
    assert ds.data.dims == ("scan_y", "scan_x", "y", "x")
    np.testing.assert_array_equal(ds.frame_index, index)
    np.testing.assert_array_equal(ds.data, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chunked = opened(path, chunks={"scan_x": 3}, **OPTIONS)
    np.testing.assert_array_equal(chunked.data[1:, ::2, 2], expected[1:, ::2, 2])


@pytest.mark.parametrize(
    ("options", "index"),
    [
        ({"scan_shape": (2, 3), "scan_offset": -2}, [[-1, -1, 0], [1, 2, 3]]),
        ({"scan_shape": (2, 3), "scan_offset": -4, "scan_flyback": 9}, [[-1] * 3, [-1, 0, 1]]),
        ({"scan_shape": 3, "scan_offset": 1}, [1, 2, 3]),
        ({"scan_shape": (2, 1, 1), "scan_flyback": 2}, [[[0]], [[3]]]),
        ({"scan_shape": (2, 2, 1), "scan_offset": np.int64(0)}, [[[0], [1]], [[2], [3]]]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_shapes_and_gaps(options: dict[str, Any], index: Any) -> None:
    n_frames = max(int(np.max(index)) + 1, 2)
    pixels = de.frames(n_frames, "f4")
    ds = opened(io.BytesIO(by_hand.mrc(pixels)), **options)
    np.testing.assert_array_equal(ds.data, de.dense(pixels, np.array(index)))
    if options.get("scan_offset") != 0:
        np.testing.assert_array_equal(ds.frame_index, index)


def test_other_numbers_of_frames_are_errors() -> None:
    raw = by_hand.mrc(de.frames(14))
    message = r"\(3, 4\) has 12 positions, and the file has 14 frames.*scan_offset=.*scan_flyback="
    for options in ({}, {"chunks": {}}, {"truncated": "trim"}):
        with pytest.raises(MrcError, match=message):
            opened(io.BytesIO(raw), scan_shape=SCAN, **options)
    for offset in (14, -12):
        with pytest.raises(MrcError, match=rf"scan_offset is {offset}; accepted: -11 to 13"):
            opened(io.BytesIO(raw), scan_shape=SCAN, scan_offset=offset)


def test_trimmed_file() -> None:
    raw = by_hand.mrc(de.frames(17, "f4"))[:-700]
    with pytest.warns(MrcWarning) as caught:
        ds = opened(io.BytesIO(raw), truncated="trim", **OPTIONS)
    assert "truncated='trim'" in str(caught[0].message)
    assert "positions (3) have no frame" in str(caught[1].message)
    assert np.isnan(ds.data[-1, 1:]).all()
    assert ds.frame_index[-1].values.tolist() == [12, -1, -1, -1]
    np.testing.assert_array_equal(ds.data[0], de.frames(17, "f4")[2:6])


def test_only_frames_of_the_selection_are_read(tmp_path: Path, ranges_read: Any) -> None:
    path = write_plain(tmp_path / "file.mrc", de.frames(17))
    data = opened(path, **OPTIONS).data
    ranges_read.clear()
    data[1].load()
    assert ranges_read == [(1024 + 7 * 90, 4 * 90)]


# --- sidecars


REPEATED = {"Scan - Repeats": 2, "Scan - Point Repeats": 2}


def test_scan_of_a_sidecar(tmp_path: Path) -> None:
    """Each line has four positions of two frames; the first frame is blank."""
    pixels = de.frames(2 * 3 * 9 + 1)
    path = de.write(tmp_path, pixels, REPEATED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = opened(path, scan_offset=1, scan_flyback=1)
    assert ds.data.dims == ("repeat", "scan_y", "scan_x", "point_repeat", "ky", "kx")
    expected = pixels[1:].reshape(2, 3, 9, 5, 9)[:, :, :8].reshape(2, 3, 4, 2, 5, 9)
    np.testing.assert_array_equal(ds.data, expected)
    assert ds.scan_x.attrs["spacing"] == 20
    # the argument has another size
    ds = opened(path, scan_shape=(6, 8), scan_offset=1, scan_flyback=1)
    np.testing.assert_array_equal(ds.data, expected.reshape(6, 8, 5, 9))
    with pytest.warns(MrcWarning, match=r"in the movie, 55\. .*scan_offset= and scan_flyback="):
        assert opened(path).data.dims == ("image", "ky", "kx")
    with pytest.raises(MrcError, match="scan_offset is 55; accepted"):
        opened(path, scan_offset=55)


def test_summed_frames_with_gaps(tmp_path: Path) -> None:
    """The server sums the frames of a point, so that a point has one frame in the file."""
    changed = {"Scan - Camera Frames Per Point": 4, "Autosave Movie Sum Count": 4}
    path = de.write(tmp_path, de.frames(15), changed)
    ds = opened(path, scan_flyback=1)
    np.testing.assert_array_equal(ds.frame_index, [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13]])


def test_custom_scan_with_an_offset(tmp_path: Path) -> None:
    path = de.write(tmp_path, de.frames(9), de.XY_FILE, de.POSITIONS)
    ds = opened(path, scan_offset=1)
    index = np.where(de.FRAME_INDEX < 0, -1, de.FRAME_INDEX + 1)
    np.testing.assert_array_equal(ds.frame_index, index)
    np.testing.assert_array_equal(ds.data, de.dense(de.frames(9), index))
    with pytest.raises(MrcError, match="scan_flyback is 1; accepted: 0, as a list of positions"):
        opened(path, scan_flyback=1)


@pytest.mark.filterwarnings("ignore:.*can't store everything")
def test_positions_win_over_labels_in_the_file(tmp_path: Path) -> None:
    path = de.write(tmp_path, de.frames(8), de.XY_FILE, de.POSITIONS)
    to_mrc(opened(path, layout="image_stack").load(), tmp_path / "stack.mrcz")
    (tmp_path / "stack.mrcz").replace(path)
    np.testing.assert_array_equal(opened(path).data, de.dense(de.frames(8)))


def test_a_line_has_no_step_of_a_scan_with_several_lines(tmp_path: Path) -> None:
    path = de.write(tmp_path, de.frames(12))
    assert "scan_x" not in opened(path, scan_shape=12).coords
    assert opened(path, scan_shape=12, voxel_size={"scan_x": (1, "nm")}).scan_x[-1] == 110


def test_virtual_images_of_a_scan_with_gaps(tmp_path: Path) -> None:
    de.write(tmp_path, de.frames(17))
    raw = de.movie(de.frames(1, "f4", SCAN))
    (tmp_path / f"{de.STEM}_0_BF_sum.mrc").write_bytes(raw)
    path = tmp_path / f"{de.STEM}_movie.mrc"
    tree = xr.open_datatree(path, engine="mrc", **OPTIONS)
    assert tree["virtual/BF/data"].dims == ("scan_y", "scan_x")
    assert tree["frame_index"].values.tolist() == INDEX.tolist()


def test_many_scans(tmp_path: Path) -> None:
    for name in ("a.mrc", "b.mrc"):
        write_plain(tmp_path / name, de.frames(17))
    ds = open_many(str(tmp_path / "*.mrc"), dim="movie", **OPTIONS)
    np.testing.assert_array_equal(ds.data[1], de.frames(17)[INDEX])
    np.testing.assert_array_equal(ds.frame_index, INDEX)


# --- records


def records(n: int, **fields: Any) -> bytes:
    """Return FEI2 blocks with a scan area of 3 rows and 4 columns, and other fields."""
    table = np.zeros(n, FEI2)
    table["Metadata size"], table["Metadata version"] = FEI2.itemsize, 2
    table["Alpha tilt"] = np.arange(n)
    area = {"Scan size left": 2, "Scan size right": 6, "Scan size top": 1, "Scan size bottom": 4}
    for name, value in (area | fields).items():
        table[name] = value
    # tilt angle of mask 1; scan area and field of view of mask 3
    table["Bitmask 1"], table["Bitmask 3"] = 1 << 7, 0b111111 << 17
    return table.tobytes()


def velox(n: int, **fields: Any) -> io.BytesIO:
    of_header = {"exttyp": b"FEI2", "ispg": 0, "mz": n, "cella": (0, 0, 0)}
    return io.BytesIO(by_hand.mrc(de.frames(n), extended=records(n, **fields), **of_header))


def test_scan_size_in_the_records() -> None:
    ds = opened(velox(12, **{"Full scan FOV X": 8e-9, "Full scan FOV Y": 9e-9}), units="nm")
    assert ds.data.dims == ("scan_y", "scan_x", "y", "x")
    assert "records" in ds.data.attrs["mrc_layout_rule"]
    np.testing.assert_array_equal(ds.data, de.frames(12).reshape(3, 4, 5, 9))
    np.testing.assert_array_equal(ds.tilt_angle, np.arange(12).reshape(SCAN))
    assert ds.scan_y.attrs["spacing"] == pytest.approx(3)
    assert ds.scan_x.attrs["spacing"] == pytest.approx(2)


def test_more_records_than_are_decoded() -> None:
    """The first one has the size of the scan."""
    raw = velox(12).getvalue()
    header, source = Header.parse(raw, "<"), by_hand.Claimed(raw, len(raw))
    kind = replace(OF_VELOX, most_decoded=2000)
    found = kind.read_from(source, header, raw[:5000], header.nsymbt, 12)
    assert (found.scan_size, found.columns) == (SCAN, ())


def test_records_and_gaps() -> None:
    """The values of a section follow its frame."""
    ds = opened(velox(17), scan_offset=2, scan_flyback=1)
    np.testing.assert_array_equal(ds.data, de.frames(17)[INDEX])
    np.testing.assert_array_equal(ds.tilt_angle, INDEX)
    ds = opened(velox(11), scan_offset=-1)
    assert np.isnan(ds.tilt_angle[0, 0])
    assert ds.tilt_angle[0, 1] == 0


@pytest.mark.parametrize(
    ("options", "dims"),
    [
        ({"layout": "image_stack"}, ("image",)),
        ({"scan_shape": (4, 3)}, ("scan_y", "scan_x")),
        ({"sections_per_frame": 3}, ("image", "channel")),
        ({"scan_file": io.BytesIO(de.csv([(i, 0) for i in range(12)]))}, ("scan_x",)),
    ],
)
def test_what_wins_over_the_records(options: dict[str, Any], dims: tuple[str, ...]) -> None:
    assert opened(velox(12), **options).data.dims == (*dims, "y", "x")


@pytest.mark.parametrize(
    ("n", "fields"),
    [
        (11, {}),
        (12, {"Scan size right": 256}),
        (12, {"Scan size right": np.arange(12)}),
        (12, {"Scan size left": 6}),
        (1, {"Scan size right": 3, "Scan size bottom": 2}),
    ],
)
def test_records_of_another_size_are_silent(n: int, fields: dict[str, Any]) -> None:
    """The scan area of a STEM image is often that of the image itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = opened(velox(n, **fields))
    assert not {"scan_y", "scan_x"} & set(ds.data.dims)
