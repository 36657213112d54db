"""Extended headers and sidecars through the engine: coordinates and attributes of the pixels."""

from __future__ import annotations

import io
import json
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import mrcfile
import numpy as np
import pytest
import servers
import xarray as xr
from records_by_hand import FEI1, FEI2, bits

from mrc_xarray import MrcError, MrcWarning

Array = np.ndarray[Any, Any]
N = 4
PIXELS = np.arange(N * 3 * 5, dtype="i2").reshape(N, 3, 5)
STACK = {"ispg": 0, "mz": 1, "cella": (10, 9, 0)}
TILTS = [-60.0, -20.0, 20.0, 60.0]
# days since 1899-12-30, and what they are
DAYS = 44900.5
TIMES = np.datetime64("2022-12-05T12:00:00", "us") + np.arange(N) * np.timedelta64(6, "h")


def opened(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc", **options)


def of_bytes(raw: bytes, **options: Any) -> xr.Dataset:
    return opened(io.BytesIO(raw), **options)


def fei(dtype: np.dtype[Any] = FEI2, n: int = N, **fields: Any) -> Array:
    """Return blocks with some valid fields, and `fields` with mrcfile's names: Pixel_size_X."""
    table = np.zeros(n, dtype)
    table["Metadata size"] = dtype.itemsize
    table["Metadata version"] = 2 if dtype == FEI2 else 0
    values: dict[str, Any] = {
        "Timestamp": DAYS + np.arange(n) / 4, "HT": 200000.0, "Application": b"Velox",
        "Alpha tilt": np.resize(TILTS, n), "Beta tilt": 0.5, "X-Stage": 1e-6 * np.arange(n),
        "Y-Stage": -2e-6, "Z-Stage": 3e-5, "Defocus": -1.5e-6, "Dose": 2e20,
        "Magnification": 29000.0, "Integration time": 0.25, "Camera name": b"BM-Falcon",
    }  # fmt: skip
    values |= {name.replace("_", " "): value for name, value in fields.items()}
    for field, _, number, bit in bits(dtype):
        if field in values:
            table[field] = values[field]
            table[f"Bitmask {number}"] |= np.uint32(1 << bit)
    return table


def fei_file(table: Array, pixels: Array = PIXELS, **fields: Any) -> bytes:
    exttyp = b"FEI2" if table.dtype == FEI2 else b"FEI1"
    return by_hand.mrc(pixels, extended=table.tobytes(), **(STACK | {"exttyp": exttyp} | fields))


FLOATS = (0.5, 1e-6, 2e-6, 3e-6, 0, 0, -1.5e-6, 0.25, 800, 84.5, 4e-10, 29000, 200000)
# kind → extended header, and fields of the main header
KINDS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "FEI2": (fei(FEI2).tobytes(), {"exttyp": b"FEI2"}),
    # tilt, piece, stage, magnification, intensity
    "SERI": (
        b"".join(
            struct.pack("<h3h2h2h", int(100 * tilt), i, 2 * i, 0, 25 * i, -50, 290, 12500)
            for i, tilt in enumerate(TILTS)
        ),
        {"exttyp": b"SERI", "nint": 16, "nreal": 31},
    ),
    "legacy FEI": (
        b"".join(struct.pack("<14f72x", tilt, *FLOATS) for tilt in TILTS).ljust(2**17, b"\0"),
        {"nint": 0, "nreal": 32},
    ),
}
MDOC_KEYS = {
    "TiltAngle": lambda i: TILTS[i],
    "StagePosition": lambda i: f"{i} -2",
    "StageZ": lambda i: 30,
    "Magnification": lambda i: 29000,
    "ExposureDose": lambda i: 2,
    "Defocus": lambda i: -1.5,
    "ExposureTime": lambda i: 0.25,
    "DateTime": lambda i: f"{5 + (12 + 6 * i) // 24:02}-Dec-22  {(12 + 6 * i) % 24:02}:00:00",
}


def mdoc(keys: Any = MDOC_KEYS, head: str = "Voltage = 200\nPixelSpacing = 2\n") -> str:
    entries = "".join(
        f"\n[ZValue = {i}]\n" + "".join(f"{key} = {of(i)}\n" for key, of in keys.items())
        for i in range(N)
    )
    return f"{head}\n[T = SerialEM: by hand, Tilt axis angle = 84.5, binning = 2]\n{entries}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A stack with nothing in its header."""
    path = tmp_path / "series.st"
    path.write_bytes(by_hand.mrc(PIXELS, **STACK))
    return path


@pytest.fixture
def with_mdoc(path: Path) -> Path:
    path.with_name("series.st.mdoc").write_text(mdoc())
    return path


def test_real_file_as_mrcfile_reads_it(real_file: Callable[[str], Path]) -> None:
    path = real_file("fei-extended.mrc")
    ds = opened(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.mmap(path, permissive=True) as mrc:
            oracle = mrc.indexed_extended_header.copy()
            raw = mrc.extended_header.tobytes()
            np.testing.assert_array_equal(ds.data.isel(y=7).values.ravel(), mrc.data[..., 7, :])
    np.testing.assert_allclose(ds.stage_x, oracle["X-Stage"][0] * 1e6, rtol=1e-12)
    assert ds.data.attrs["voltage_kV"] == 300
    assert ds.data.mrc.extended_header == ds.mrc.extended_header == raw
    assert ds.mrc.extended_fields["dose"] == oracle["Dose"][0]


UNITS = {
    "tilt_angle": "degree", "tilt_beta": "degree", "stage_x": "um", "stage_y": "um",
    "stage_z": "um", "defocus": "um", "dose": "e/angstrom^2", "exposure_time": "s",
}  # fmt: skip
VALUES: dict[str, Any] = {
    "tilt_angle": TILTS, "tilt_beta": [0.5] * N, "stage_x": range(N), "stage_y": [-2.0] * N,
    "stage_z": [30.0] * N, "defocus": [-1.5] * N, "dose": [2.0] * N, "exposure_time": [0.25] * N,
}  # fmt: skip
# kind → its coordinates, and those with other values
DESCRIBED: dict[str, tuple[set[str], dict[str, Any]]] = {
    "FEI2": (set(VALUES), {}),
    "SERI": ({"tilt_angle", "stage_x", "stage_y"}, {}),
    "legacy FEI": (
        set(VALUES) - {"dose"},
        {"stage_x": [1.0] * N, "stage_y": [2.0] * N, "stage_z": [3.0] * N},
    ),
    "mdoc": (set(VALUES) - {"tilt_beta"}, {}),
    "rawtlt": ({"tilt_angle"}, {}),
}


def written(folder: Path, kind: str) -> Path:
    """Write a stack that this kind describes."""
    path = folder / "series.st"
    extended, fields = KINDS.get(kind, (b"", {}))
    path.write_bytes(by_hand.mrc(PIXELS, extended=extended, **(STACK | fields)))
    if kind == "mdoc":
        path.with_name("series.st.mdoc").write_text(mdoc())
    elif kind == "rawtlt":
        path.with_name("series.rawtlt").write_text("".join(f"  {tilt}\n" for tilt in TILTS))
    return path


@pytest.mark.parametrize("kind", DESCRIBED)
def test_coordinates(tmp_path: Path, kind: str) -> None:
    data = opened(written(tmp_path, kind))
    names, other = DESCRIBED[kind]
    assert names <= set(data.coords)
    assert not (set(VALUES) - names) & set(data.coords)
    for name in names:
        coord = data.coords[name]
        assert coord.dims == ("image",)
        assert coord.attrs["units"] == UNITS[name]
        np.testing.assert_allclose(coord, other.get(name, VALUES[name]), rtol=2e-7, atol=1e-12)
    assert data.section.values.tolist() == list(range(N))
    np.testing.assert_array_equal(data.data, PIXELS)
    assert not set(names) & set(data.indexes)


@pytest.mark.parametrize("kind", ["FEI2", "legacy FEI", "mdoc"])
def test_single_values_and_times(tmp_path: Path, kind: str) -> None:
    ds = opened(written(tmp_path, kind))
    attrs = ds.data.attrs
    assert attrs["voltage_kV"] == 200
    assert "voltage" not in attrs
    assert attrs["magnification"] == 29000
    assert all(isinstance(value, str | float | int) for value in attrs.values())
    if kind == "FEI2":
        assert (attrs["application"], attrs["camera_name"]) == ("Velox", "BM-Falcon")
    if kind != "legacy FEI":
        assert ds.time.dtype.kind == "M"
        np.testing.assert_array_equal(ds.time, TIMES)
        assert "units" not in ds.time.attrs


def test_what_varies_is_a_coordinate() -> None:
    table = fei(HT=[200000, 200000, 300000, 300000], Magnification=[1, 2, 3, 4])
    ds = of_bytes(fei_file(table))
    assert ds.voltage.attrs["units"] == "kV"
    assert ds.voltage.values.tolist() == [200, 200, 300, 300]
    assert ds.magnification.values.tolist() == [1, 2, 3, 4]
    assert not {"voltage_kV", "voltage", "magnification"} & set(ds.data.attrs)


def test_fields_of_fei_without_a_meaning_are_no_labels() -> None:
    fields = {"Unused range": 1.5, "Camera param reserved 1": [1, 2, 3, 4], "HT": 300000}
    zero = {"Camera length": 0, "Application": b"", "Spot index": 3}
    ds = of_bytes(fei_file(fei(**fields, **zero)))
    names = {"camera_reserved_1", "unused_0", "spot_index", "camera_length", "application"}
    assert not names & {*ds.data.attrs, *ds.coords}
    assert ds.data.attrs["voltage_kV"] == 300
    found = ds.mrc.extended_fields
    assert found.camera_reserved_1.values.tolist() == [1, 2, 3, 4]
    assert names <= {*found}


def test_attributes_of_a_real_file_are_few(real_file: Callable[[str], Path]) -> None:
    ds = opened(real_file("fei-extended.mrc"))
    attrs = dict(ds.data.attrs)
    assert len(attrs) <= 15
    assert sum(len(f"{key}{value}") for key, value in attrs.items()) < 900
    assert (attrs["voltage_kV"], attrs["magnification"]) == (300, 165000)
    assert (attrs["microscope_type"], attrs["camera_name"]) == ("TITAN52336320", "EF-CCD")
    assert attrs["applied_defocus"] == -8e-7
    assert {"unused_0", "stem_gain", "spot_index", "dwell_time"} - {*ds.mrc.extended_fields} == {
        "stem_gain"
    }


@pytest.mark.parametrize("exttyp", [b"MRCO", b"abcd"])
def test_unknown_kind_is_one_warning(tmp_path: Path, exttyp: bytes) -> None:
    raw = bytes(range(250)) * 2
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(PIXELS, extended=raw, exttyp=exttyp))
    with pytest.warns(MrcWarning, match=r"EXTTYP \(bytes 104–107\).*extended_header") as caught:
        ds = opened(path)
    assert len(caught) == 1
    assert ds.mrc.extended_header == raw
    assert not ds.mrc.extended_fields.data_vars
    np.testing.assert_array_equal(ds.data, PIXELS)


def test_pixel_size_of_the_block() -> None:
    table = fei(Pixel_size_X=2.5e-10, Pixel_size_Y=4e-10)
    ds = of_bytes(fei_file(table, cella=(-1, float("nan"), 0)), units="nm")
    for dim, step in (("x", 0.25), ("y", 0.4)):
        np.testing.assert_allclose(ds[dim], np.arange(ds.sizes[dim]) * step)
        assert ds[dim].attrs["units"] == "nm"
        assert ds[dim].attrs["spacing"] == pytest.approx(step)
    assert ds.mrc.voxel_size == pytest.approx({"x": 2.5, "y": 4})
    # the cell overrides the block, axis by axis
    assert of_bytes(fei_file(table)).mrc.voxel_size == {"x": 2, "y": 3}
    ds = of_bytes(fei_file(table, cella=(10, 0, 0)))
    assert ds.mrc.voxel_size == pytest.approx({"x": 2, "y": 4})


def test_pixel_size_in_diffraction() -> None:
    table = fei(Pixel_size_X=2.5e7, Pixel_size_Y=5e7, Projection_mode=1, Instrument_mode=2)
    ds = of_bytes(fei_file(table, cella=(0, 0, 0)), units="nm", scan_shape=(2, 2))
    assert ds.data.dims == ("scan_y", "scan_x", "y", "x")
    for dim, step in (("x", 2.5e7), ("y", 5e7)):
        np.testing.assert_allclose(ds[dim], np.arange(ds.sizes[dim]) * step)
        assert (ds[dim].attrs["units"], ds[dim].attrs["spacing"]) == ("1/m", step)
    assert ds.mrc.voxel_size == {}
    assert ds.tilt_angle.values.tolist() == [TILTS[:2], TILTS[2:]]


def test_image_has_scalars(path: Path) -> None:
    path.write_bytes(fei_file(fei(FEI1, 1, Alpha_tilt=7.0), PIXELS[:1]))
    ds = opened(path)
    assert ds.data.dims == ("y", "x")
    assert ds.tilt_angle.dims == ()
    assert ds.tilt_angle == 7
    assert ds.tilt_angle.attrs["units"] == "degree"
    assert ds.time == TIMES[0]
    assert ds.mrc.extended_fields.tilt_angle == 7
    np.testing.assert_array_equal(ds.data, PIXELS[0])


def test_values_of_sections_in_any_layout() -> None:
    extended, fields = KINDS["FEI2"]
    raw = by_hand.mrc(PIXELS, extended=extended, **fields)
    for options, dims in (
        ({"layout": "volume"}, ("z",)),
        ({"layout": "image_stack"}, ("image",)),
        ({"layout": "image_stack", "sections_per_frame": 2}, ("image", "channel")),
        ({"layout": "volume_stack", "sections_per_frame": 2}, ("volume", "z")),
        ({"scan_shape": (2, 2)}, ("scan_y", "scan_x")),
        ({"dims": ("angle", "row", "column")}, ("angle",)),
    ):
        ds = of_bytes(raw, **options)
        assert ds.tilt_angle.dims == dims
        assert ds.tilt_angle.values.ravel().tolist() == TILTS
        assert ds.data.isel({dims[0]: -1, dims[-1]: -1}).tilt_angle == TILTS[-1]


def test_volume_ignores_a_list_of_tilts(path: Path) -> None:
    """A reconstruction has no tilt angles."""
    path.with_name("series.rawtlt").write_text("\n".join(map(str, TILTS)))
    for name in ("series.rec", "series.mrc"):
        path.with_name(name).write_bytes(by_hand.mrc(PIXELS))
        ds = opened(path.with_name(name))
        assert ds.data.dims == ("z", "y", "x")
        assert "tilt_angle" not in ds.coords


@pytest.mark.parametrize("kind", ["FEI2", "mdoc", "rawtlt"])
def test_trimmed_file(tmp_path: Path, kind: str) -> None:
    """All NZ sections have metadata; two of them are in the file."""
    path = written(tmp_path, kind)
    path.write_bytes(path.read_bytes()[: -2 * 15 * 2 + 7])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        ds = opened(path, truncated="trim")
    assert ds.data.shape == (2, 3, 5)
    assert ds.tilt_angle.values.tolist() == TILTS[:2]
    np.testing.assert_array_equal(ds.data, PIXELS[:2])
    if kind in KINDS:
        assert ds.mrc.extended_fields.tilt_angle.values.tolist() == TILTS[:2]


@pytest.mark.slow
def test_netcdf_and_zarr(tmp_path: Path) -> None:
    path = written(tmp_path, "FEI2")
    path.with_name("series.st.mdoc").write_text(mdoc())
    ds = opened(path, chunks={})
    ds.to_netcdf(tmp_path / "stack.nc")
    ds.to_zarr(tmp_path / "stack.zarr", consolidated=False)
    for name, options in (
        ("stack.nc", {}), ("stack.zarr", {"engine": "zarr", "consolidated": False}),
    ):  # fmt: skip
        with xr.open_dataset(tmp_path / name, **options) as again:
            xr.testing.assert_equal(again, ds)
            assert again.data.attrs == ds.data.attrs
            assert set(again.coords) == set(ds.coords)
            assert again.tilt_angle.attrs["units"] == "degree"
            with pytest.raises(MrcError, match="is not stored with the data"):
                _ = again.mrc.extended_header


def test_sidecar_overrides_the_records_that_it_agrees_with(tmp_path: Path) -> None:
    path = written(tmp_path, "FEI2")
    tilts = {"TiltAngle": lambda i: TILTS[i] + 0.05, "Defocus": lambda i: -3 - i}
    path.with_name("series.st.mdoc").write_text(mdoc(keys=tilts, head="Voltage = 120\n"))
    ds = opened(path)
    assert ds.tilt_angle.values.tolist() == [tilt + 0.05 for tilt in TILTS]
    assert ds.defocus.values.tolist() == [-3, -4, -5, -6]
    assert ds.data.attrs["voltage_kV"] == 120
    # the records complete it
    np.testing.assert_allclose(ds.dose, 2)
    np.testing.assert_allclose(ds.mrc.extended_fields.tilt_angle, TILTS)
    assert opened(path, metadata_file=None).tilt_angle.values.tolist() == TILTS


@pytest.mark.parametrize("kind", KINDS)
def test_records_override_a_sidecar_in_another_order(tmp_path: Path, kind: str) -> None:
    path, order = written(tmp_path, kind), [2, 1, 3, 0]
    keys = {
        "TiltAngle": lambda i: TILTS[order[i]] + 0.004,
        "Defocus": lambda i: -3 - i,
        "ExposureDose": lambda i: i,
        "PriorRecordDose": lambda i: 10 * i,
    }
    path.with_name("series.mrc.mdoc").write_text(
        mdoc(keys, head="Voltage = 120\nImageFile = series.mrc\n")
    )
    recorded = opened(path, metadata_file=None)
    ds = opened(path)
    assert ds.tilt_angle.values.tolist() == TILTS
    assert ds.prior_record_dose.values.tolist() == [30, 10, 0, 20]
    assert ds.data.attrs["voltage_kV"] == 120
    for name, values in (("defocus", [-6, -4, -3, -5]), ("dose", [3, 1, 0, 2])):
        expected = recorded[name] if name in recorded.coords else values
        np.testing.assert_array_equal(ds[name], expected)


# image → its sidecar, if there is one, and what it contains
MDOC = mdoc(head="ImageFile = a.mrc\n").encode()
ANGLES = "\n".join(map(str, TILTS)).encode()
IN_STORES: list[tuple[str, str, bytes, bool]] = [
    ("a.mrc", "a.mrc.mdoc", MDOC, True),
    ("a.mrc", "a.mdoc", MDOC, True),
    ("a.mrc", "a.mdoc", MDOC.replace(b"a.mrc", b"b.mrc"), False),
    ("a.st", "a.st.mdoc", MDOC, True),
    ("a.st", "a.rawtlt", ANGLES, True),
    ("a.ali", "a.tlt", ANGLES, True),
    ("a.rec", "a.mrc.mdoc", MDOC, False),
]


@pytest.mark.parametrize(("image", "sidecar", "content", "is_used"), IN_STORES)
def test_store_has_the_labels_of_a_disk(
    tmp_path: Path, image: str, sidecar: str, content: bytes, is_used: bool
) -> None:
    files = {sidecar: content, image: by_hand.mrc(PIXELS)}
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/sidecars/{name}": raw for name, raw in files.items()})
    expected, found = opened(tmp_path / image), opened(f"memory://sidecars/{image}")
    assert found.data.attrs["mrc_layout_rule"] == expected.data.attrs["mrc_layout_rule"]
    xr.testing.assert_equal(found, expected)
    assert ("tilt_angle" in found.coords) == is_used
    fs.rm("/sidecars", recursive=True)


@pytest.mark.slow
def test_server_that_refuses_to_say_whether_there_is_a_sidecar(tmp_path: Path) -> None:
    """As S3 does for a file that is not there, without the permission to list the bucket."""
    (tmp_path / "a.mrc").write_bytes(by_hand.mrc(PIXELS))
    with servers.http_server(tmp_path) as server:
        server.alter = lambda method, path, answer: answer if answer[0] < 400 else (403, {}, b"")
        message = r"a\.mrc\.mdoc: the file is unreadable: .*403 Forbidden.*metadata_file=None"
        with pytest.warns(MrcWarning, match=message) as caught:
            opened(server.url("a.mrc"))
        assert len(caught) == 1
        opened(server.url("a.mrc"), metadata_file=None)


def test_keys_of_an_mdoc(with_mdoc: Path) -> None:
    ds = opened(with_mdoc)
    keys = ds.mrc.metadata
    assert (keys["Voltage"], keys["PixelSpacing"]) == ("200", "2")
    assert "Tilt axis angle = 84.5" in keys["titles"][0]
    assert json.loads(ds.data.attrs["mrc_metadata"]) == keys
    assert ds.data.attrs["tilt_axis_angle"] == 84.5
    assert ds.data.attrs["tilt_axis_angle_units"] == "degree"


def test_warning_of_a_sidecar(path: Path) -> None:
    text = mdoc().replace("Defocus = -1.5", "Defocus = up", 1)
    path.with_name("series.st.mdoc").write_text(text)
    with pytest.warns(MrcWarning, match=r"series\.st\.mdoc, line \d+: Defocus is 'up'") as caught:
        ds = opened(path)
    assert str(path) in str(caught[0].message)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(ds.data, PIXELS)
    np.testing.assert_array_equal(ds.defocus, [np.nan, -1.5, -1.5, -1.5])
    with pytest.warns(MrcWarning, match="Defocus"):
        xr.testing.assert_identical(opened(path, strict=True), ds)


def test_metadata_file_by_path_and_object(with_mdoc: Path) -> None:
    expected = opened(with_mdoc)
    sidecar = with_mdoc.with_name("series.st.mdoc")
    other = sidecar.with_name("elsewhere.mdoc")
    sidecar.rename(other)
    for ds in (opened(with_mdoc), opened(with_mdoc, metadata_file=None)):
        assert sorted(ds.coords) == ["section", "x", "y"]
        assert not {"mrc_metadata", "voltage_kV"} & set(ds.data.attrs)
    for target in (other, str(other), f"file://{other}", io.BytesIO(other.read_bytes())):
        xr.testing.assert_identical(opened(with_mdoc, metadata_file=target), expected)
    with other.open("rb") as file:
        xr.testing.assert_identical(opened(with_mdoc, metadata_file=file), expected)
    # bytes have no files next to them
    raw = io.BytesIO(with_mdoc.read_bytes())
    xr.testing.assert_equal(opened(raw, metadata_file=other, layout="image_stack"), expected)
    with pytest.raises(FileNotFoundError):
        opened(with_mdoc, metadata_file=sidecar)
    with pytest.raises(TypeError):
        opened(with_mdoc, metadata_file=3)


def test_extended_fields_follow_the_sections(tmp_path: Path) -> None:
    path = written(tmp_path, "FEI2")
    ds = opened(path)
    raw = KINDS["FEI2"][0]
    chosen = ds.isel(image=[3, 1])
    for obj in (chosen, chosen.data, chosen.data * 2, chosen.data.mean(("y", "x"))):
        fields = obj.mrc.extended_fields
        assert fields.tilt_angle.dims == ("image",)
        assert fields.tilt_angle.values.tolist() == [60, -20]
        assert fields.section.values.tolist() == [3, 1]
        assert obj.mrc.extended_header == raw
    # as in the file
    assert fields.dose.attrs["units"] == "e/m^2"
    assert fields.dose.values.tolist() == [2e20, 2e20]
    assert (fields.voltage, fields.voltage.attrs["units"]) == (200000, "V")
    assert fields.application == "Velox"
    assert ds.isel(image=2).mrc.extended_fields.tilt_angle == 20
    pairs = opened(path, sections_per_frame=2).isel(channel=1).mrc.extended_fields
    assert pairs.tilt_angle.values.tolist() == [-20, 60]
    volume = opened(path, layout="volume").mrc.extended_fields
    assert volume.tilt_angle.values.tolist() == TILTS


def test_file_that_changed(tmp_path: Path) -> None:
    path = written(tmp_path, "FEI2")
    ds = opened(path)
    path.write_bytes(b"")
    with pytest.raises(MrcError, match=r"series\.st: the file changed since it was opened"):
        _ = ds.mrc.extended_header
    path.unlink()
    with pytest.raises(FileNotFoundError):
        _ = ds.mrc.extended_fields
    # the coordinates that were read at opening are still there
    assert ds.tilt_angle.values.tolist() == TILTS


HEAD = (0, 64 * 1024)
# extended header, its fields, sections → reads
READS: dict[str, tuple[bytes, dict[str, Any], int, list[tuple[int, int]]]] = {
    "few": (fei(FEI1, 3).tobytes().ljust(1024 * 768, b"\0"), {"exttyp": b"FEI1"}, 3, [HEAD]),
    "many, padded": (
        fei(FEI2, 200).tobytes() + bytes(8 * 1024**2), {"exttyp": b"FEI2"}, 200,
        [HEAD, (1024, 200 * 888)],
    ),
    "symmetry": (b"X,Y,Z".ljust(80), {"exttyp": b"CCP4"}, 3, [HEAD]),
}  # fmt: skip


@pytest.mark.parametrize("case", READS)
def test_opening_reads_the_records_of_its_sections(
    tmp_path: Path, ranges_read: list[tuple[int, int]], case: str
) -> None:
    extended, fields, n, expected = READS[case]
    path = tmp_path / "file.mrc"
    pixels = np.zeros((n, 40, 40), "i2")
    path.write_bytes(by_hand.mrc(pixels, extended=extended, **(STACK | fields)))
    size = path.stat().st_size
    ds = opened(path, chunks={})
    assert ranges_read == [(offset, min(nbytes, size - offset)) for offset, nbytes in expected]
    if case != "symmetry":
        assert ds.tilt_angle.values.tolist() == np.resize(TILTS, n).tolist()


@pytest.mark.slow
def test_a_million_sections(tmp_path: Path) -> None:
    n = 1_000_000
    extended = np.tile(100 * np.array(TILTS), n // 4).astype("<i2").tobytes()
    fields: dict[str, Any] = {"exttyp": b"SERI", "nint": 2, "nreal": 1}
    path = tmp_path / "file.mrc"
    raw = by_hand.mrc(np.zeros((1, 8, 8), "i1"), extended=extended, **(STACK | fields | {"nz": n}))
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + 64 * (n - 1))
    opened(path)
    before = time.perf_counter()
    ds = opened(path, chunks={})
    assert time.perf_counter() - before < 1
    assert ds.tilt_angle[-2:].values.tolist() == TILTS[-2:]
    np.testing.assert_array_equal(ds.mrc.extended_fields.tilt_angle[5:9], np.roll(TILTS, -1))
