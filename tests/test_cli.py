"""The command line: its output, messages and exit status."""

from __future__ import annotations

import json
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import mrcfile
import numpy as np
import pytest
import xarray as xr
from validating import ATTRIBUTES

import mrc_xarray
from mrc_xarray.cli import main


@pytest.fixture
def tomogram(tmp_path: Path) -> Path:
    path = tmp_path / "tomo.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((3, 4, 5), np.float32))
        mrc.voxel_size = 2.5
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.mrc"
    fields = {"nversion": 0, "cella": (-1, float("inf"), 2), "dmin": 3, "dmax": 4}
    path.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), np.float32), **fields))
    return path


def strictly(text: str) -> Any:
    """Parse JSON, which has no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# info -------------------------------------------------------------------------------------------


def test_info(tomogram: Path, capsys: Any) -> None:
    assert main(["info", str(tomogram)]) == 0
    out, err = capsys.readouterr()
    for text in (
        str(tomogram),
        "3 z × 4 y × 5 x",
        "float32 (MODE 2, little-endian)",
        "z 2.5 Å, y 2.5 Å, x 2.5 Å",
        "volume (5",
        f"{tomogram.stat().st_size} bytes",
        "Created by mrcfile.py",
    ):
        assert text in out
    assert err == ""


def test_info_on_repairs_and_assumptions(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "odd.mrc"
    path.write_bytes(by_hand.mrc(np.zeros((2, 2, 2), np.int8), mapc=0, nversion=0))
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "MAPC, MAPR, MAPS (bytes 64–75) are 0, 2, 3" in out
    assert "int8: assumed" in out


UNREADABLE: dict[str, Any] = {
    "MODE (bytes 12–15) is 77": {"mode": 77},
    "NX, NY, NZ (bytes 0–11) are 0, 0, 0": {"nx": 0, "ny": 0, "nz": 0},
    "NZ (bytes 8–11) is 3; accepted: 2": {"nz": 3},
}


@pytest.mark.parametrize("problem", UNREADABLE)
def test_info_on_a_file_that_can_not_be_opened(
    tmp_path: Path, capsys: Any, monkeypatch: Any, problem: str
) -> None:
    path = tmp_path / "damaged.mrc"
    monkeypatch.chdir(tmp_path)
    fields = {"byteorder": ">", "cella": (2.5, 1, 1), "labels": (b"by hand",)}
    path.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), "f4"), **fields, **UNREADABLE[problem]))
    assert main(["info", path.name]) == 1
    out, err = capsys.readouterr()
    first, *lines = out.splitlines()
    assert first == str(path)
    assert lines[0].startswith(f"  problem   {problem}")
    shown = {line[2:12].strip(): line[12:] for line in lines[1:]}
    assert shown["CELLA"] == "2.5, 1, 1"
    assert shown["MACHST"] == "11 11 00 00"
    assert shown["LABEL 1"] == "by hand"
    assert shown["NX"] == str(UNREADABLE[problem].get("nx", 4))
    assert "VOLTAGE" not in out
    assert len(err.splitlines()) == 1
    assert "accepted: 2" not in problem or "--truncated trim opens" in out + err

    assert main(["info", "--header", str(path)]) == 1
    out, _ = capsys.readouterr()
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert {"EXTRA1", "EXTRA2", "VOLTAGE", "IMOD_STAMP", *by_hand_names()} <= {*names}

    assert main(["info", "--json", str(path)]) == 1
    [described] = strictly(capsys.readouterr().out)
    assert described["file"] == str(path)
    assert described["problems"][0].startswith(problem)
    assert described["header"]["mode"] == UNREADABLE[problem].get("mode", 2)


def by_hand_names() -> set[str]:
    return {name.upper() for name in by_hand.FIELDS}


def test_info_with_the_header_and_statistics(tomogram: Path, capsys: Any) -> None:
    assert main(["info", "--header", str(tomogram)]) == 0
    out = capsys.readouterr().out
    assert "  statistics      DMIN 0, DMAX 0, DMEAN 0, RMS 0\n" in out
    assert "\n  NZ              3\n" in out
    tomogram.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), "f4"), dmin=-0.5, dmax=1.25, rms=0.1))
    main(["info", str(tomogram)])
    tomogram.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), "f4")))
    main(["info", str(tomogram)])
    out = capsys.readouterr().out
    assert "DMIN -0.5, DMAX 1.25, DMEAN -2, RMS 0.1\n" in out
    assert "DMIN 0, DMAX -1, DMEAN -2, RMS -1 (undetermined)\n" in out
    assert "NXSTART" not in out


def test_info_as_json(tomogram: Path, tmp_path: Path, capsys: Any) -> None:
    nan = tmp_path / "nan.mrc"
    nan.write_bytes(by_hand.mrc(np.zeros((1, 2, 2), np.float32), dmean=float("nan")))
    assert main(["info", "--json", str(tomogram), str(nan)]) == 0
    first, second = strictly(capsys.readouterr().out)
    assert first["shape"] == {"z": 3, "y": 4, "x": 5}
    assert first["voxel_size_angstrom"] == {"z": 2.5, "y": 2.5, "x": 2.5}
    assert first["size_on_disk"] == tomogram.stat().st_size
    assert first["header"]["nx"] == 5
    assert second["header"]["dmean"] == "nan"


@pytest.mark.parametrize(
    ("t", "text"), [(["a", "b"], "unknown"), ([1.5, 2], "t 1.5"), ([np.nan, 2], "unknown")]
)
def test_info_on_coordinates_without_units_or_numbers(
    tmp_path: Path, capsys: Any, t: list[Any], text: str
) -> None:
    path = tmp_path / "series.mrcz"
    data = xr.DataArray(np.zeros((2, 3, 4), "f4"), {"t": t}, ("t", "y", "x"))
    mrc_xarray.to_mrc(data, path)
    assert main(["info", str(path)]) == main(["info", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"  first voxel at  {text}\n" in out
    strictly(out[out.index("\n[") :])


def test_info_continues_after_a_bad_file(tomogram: Path, tmp_path: Path, capsys: Any) -> None:
    bad, missing, archive = (tmp_path / name for name in ("bad.mrc", "missing.mrc", "no.zip"))
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    archive.write_bytes(b"not an archive")
    files = [str(bad), str(missing), f"zip://x.mrc::{archive}", str(tomogram)]
    assert main(["info", *files]) == 1
    out, err = capsys.readouterr()
    assert "3 z × 4 y × 5 x" in out
    # one line per error, with the file and the class of another library's error
    first, second, third = err.splitlines()
    assert "Git LFS pointer" in first
    assert "missing.mrc" in second
    assert str(archive) in third
    assert "BadZipFile" in third


def test_info_as_a_table(
    tomogram: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stack = by_hand.mrc(np.zeros((12, 3, 4), "i2"), ispg=0, mz=1, cella=(4, 6, 0), mapc=0)
    (tmp_path / "s_10.mrcs").write_bytes(stack)
    (tmp_path / "s_9.mrcs").write_bytes(stack[:-1])
    data = xr.DataArray(np.zeros((2, 2), "c8"), dims=("y", "x"))
    mrc_xarray.to_mrc(data, tmp_path / "z.mrcz")
    assert main(["info", "--table", "*.mrc*", "none*.mrc"]) == 1
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split("  ")[0] == "file"
    assert err == ""
    # columns are aligned, and numbers in names are in order
    names = ("  layout", "  shape", "  type", "  voxel size", "  size")
    at = [head.index(name) + 2 for name in names]
    cells = [[line[i:].split("  ")[0] for i in (0, *at)] for line in lines]
    assert cells[1] == ["s_10.mrcs", "image stack", "12 × 3 × 4", "int16", "2 × 1 Å", "1.3 KiB"]
    assert lines[1].endswith("  1 repaired or assumed")
    assert cells[2][:3] == ["tomo.mrc", "volume", "3 × 4 × 5"]
    assert cells[3] == ["z.mrcz", "image", "2 × 2", "complex64", "unknown", "1.0 KiB"]
    assert lines[3].endswith("  zstd")
    assert lines[0].startswith("s_9.mrcs   error: the file is truncated: ")
    assert lines[0].endswith("--truncated trim opens the complete sections.")
    assert lines[4].startswith("none*.mrc  error: FileNotFoundError")
    assert len(lines) == 5
    assert main(["info", "--table", "--truncated=trim", "s_*.mrcs"]) == 0
    assert "11 × 3 × 4" in capsys.readouterr().out


def test_info_on_patterns_in_stores(capsys: Any) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/info/a{n}.mrc": by_hand.mrc(np.zeros((n, 3, 4), "f4")) for n in (10, 2)})
    assert main(["info", "--table", "memory://info/*.mrc"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["memory://info/a2.mrc", "memory://info/a10.mrc"]
    assert main(["info", "memory://info/*.mrc"]) == 0
    out = capsys.readouterr().out
    assert out.index("  2 z × 3 y × 4 x") < out.index("  10 z × 3 y × 4 x")
    assert main(["info", "--json", "memory://info/a?.mrc", "memory://info/a*"]) == 1
    assert len(strictly(capsys.readouterr().out)) == 2


def test_only_terminals_have_colours(
    tomogram: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.mrc").write_bytes(b"no header")
    files = [str(tomogram), str(tmp_path / "bad.mrc")]
    plain = {}
    for options in (["info"], ["info", "--table"], ["info", "--json"]):
        main([*options, *files])
        plain[tuple(options)] = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout.__class__, "isatty", lambda self: True)
    monkeypatch.setenv("TERM", "xterm")
    for variable in ("NO_COLOR", None):
        monkeypatch.delenv("NO_COLOR", raising=False)
        if variable:
            monkeypatch.setenv(variable, "1")
        for options, text in plain.items():
            main([*options, *files])
            out = capsys.readouterr().out
            assert ("\x1b[" in out) == (variable is None and "--json" not in options)
            assert re.sub(r"\x1b\[\d+m", "", out) == text


def test_info_with_options_that_exclude_each_other(tomogram: Path, capsys: Any) -> None:
    for options in (["--table", "--json"], ["--table", "--header"]):
        with pytest.raises(SystemExit):
            main(["info", str(tomogram), *options])
        assert "--table" in capsys.readouterr().err


# validate ---------------------------------------------------------------------------------------


def test_validate(tomogram: Path, broken: Path, capsys: Any) -> None:
    assert main(["validate", "--data", str(tomogram)]) == 0
    assert capsys.readouterr() == (f"{tomogram}: valid\n", "")
    for options in ([], ["--data"]):
        assert main(["validate", str(broken), *options]) == 1
        out, err = capsys.readouterr()
        problems = mrc_xarray.validate(broken, data=bool(options))
        assert out == "".join([f"{broken}:\n", *(f"  {problem}\n" for problem in problems)])
        assert ("DMIN" in out) == bool(options)
        assert err == ""


def test_validate_fails_for_a_warning(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "suspicious.mrc"
    path.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), np.float32), mx=0))
    assert main(["validate", str(path)]) == 1
    assert "warning cell: MX" in capsys.readouterr().out


def test_validate_as_json(tomogram: Path, broken: Path, tmp_path: Path, capsys: Any) -> None:
    missing = tmp_path / "none.mrc"
    files = [tomogram, broken, missing, tmp_path]
    assert main(["validate", "--json", "--data", *map(str, files)]) == 1
    out, err = capsys.readouterr()
    valid, invalid, *unreadable = strictly(out)
    assert valid == {"file": str(tomogram), "valid": True, "problems": []}
    assert (invalid["file"], invalid["valid"]) == (str(broken), False)
    assert invalid["problems"] == [
        {name: getattr(problem, name) for name in ATTRIBUTES}
        for problem in mrc_xarray.validate(broken, data=True)
    ]
    for report, path in zip(unreadable, files[2:], strict=True):
        assert (report["file"], report["valid"]) == (str(path), False)
        assert [problem["code"] for problem in report["problems"]] == ["unreadable"]
    assert len(err.splitlines()) == 2


# arguments of the engine ------------------------------------------------------------------------


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """Return a stack of bytes, of which the last two of eight sections are missing."""
    path = tmp_path / "live.mrc"
    pixels = np.arange(-36, 36, dtype="i1").reshape(6, 3, 4)
    path.write_bytes(by_hand.mrc(pixels, nz=8, mz=1, ispg=0))
    (tmp_path / "angles.tlt").write_text("".join(f"{angle}\n" for angle in range(8)))
    return path


READING: dict[str, Any] = {
    "--truncated trim": ("6 image × 3 y × 4 x", "int8"),
    "--truncated trim --layout volume --mode0 uint8": ("6 z × 3 y × 4 x", "uint8"),
    "--truncated trim --scan-shape 2 3": ("2 scan_y × 3 scan_x × 3 y × 4 x", "int8"),
    "--truncated trim --sections-per-frame 2": ("3 image × 2 channel × 3 y × 4 x", "int8"),
    "--truncated=trim --voxel-size 4 3 2 --units nm": ("z 2 Å, y 3 Å, x 4 Å", "x 0 nm"),
    "--truncated trim --voxel-size 1.5": ("y 1.5 Å, x 1.5 Å", "int8"),
}


@pytest.mark.filterwarnings("default::mrc_xarray.MrcWarning")
@pytest.mark.parametrize("options", READING)
def test_arguments_of_the_engine(live: Path, capsys: Any, options: str) -> None:
    assert main(["info", str(live), *options.split()]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in READING[options])
    copy = live.with_name("copy.zarr")
    assert main(["convert", "--quiet", str(live), str(copy), *options.split()]) == 0
    written = xr.open_dataset(copy, engine="zarr", consolidated=False)["data"]
    assert " × ".join(f"{n} {dim}" for dim, n in written.sizes.items()) in out
    assert f"{written.dtype} (" in out
    assert main(["validate", str(live), *options.split()]) == 1
    # of the options of the first file, only these say that sections are missing
    assert "error truncated: NZ (bytes 8–11) is 8" in capsys.readouterr().out


@pytest.mark.filterwarnings("default::mrc_xarray.MrcWarning")
def test_sidecar_on_the_command_line(live: Path, capsys: Any) -> None:
    angles, target = str(live.with_name("angles.tlt")), live.with_name("a.mrcz")
    options = ["--truncated", "trim", "--metadata-file"]
    assert main(["convert", "--quiet", str(live), str(target), *options, angles]) == 0
    assert xr.open_dataset(target, engine="mrc")["tilt_angle"].values.tolist() == [*range(6)]
    assert main(["validate", str(live), *options, "none", "--json"]) == 1
    live.with_name("angles.tlt").write_text("no angle")
    capsys.readouterr()
    assert main(["validate", str(live), *options, angles]) == 1
    assert "angles.tlt" in capsys.readouterr().out


@pytest.mark.filterwarnings("default::mrc_xarray.MrcWarning")
def test_messages_name_options(live: Path, tmp_path: Path, capsys: Any) -> None:
    copy = tmp_path / "copy.mrc"
    for command in (["info", str(live)], ["convert", "--quiet", str(live), str(copy)]):
        assert main(command) == 1
        assert ". --truncated trim opens the complete sections" in capsys.readouterr().err
    assert main(["validate", str(live)]) == 1
    assert ". --truncated trim opens the complete sections" in capsys.readouterr().out
    copy.write_bytes(b"old")
    options = ["--quiet", "--truncated", "trim"]
    assert main(["convert", str(live), str(copy), *options]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["convert", str(live), str(copy), *options, "--overwrite"]) == 0
    assert "because --truncated trim." in capsys.readouterr().err
    assert main(["info", str(live), "--voxel-size", "1", "--truncated", "trim"]) == 0
    assert "truncated=" not in capsys.readouterr().out


@pytest.mark.filterwarnings("default::mrc_xarray.MrcWarning")
def test_arguments_that_can_not_be_used(tomogram: Path, live: Path, capsys: Any) -> None:
    store = tomogram.with_name("a.zarr")
    assert main(["convert", "--quiet", str(tomogram), str(store)]) == 0
    target = str(tomogram.with_name("b.mrc"))
    assert main(["convert", "--quiet", str(store), target, "--layout", "volume"]) == 1
    assert (
        "layout can't be used for a source in Zarr; accepted: a source in MRC"
        in capsys.readouterr().err
    )
    assert main(["info", str(live), "--truncated", "trim", "--scan-shape", "4", "4"]) == 1
    assert "scan_shape (4, 4) has 16 positions" in capsys.readouterr().err
    for wrong in ("--layout stack", "--voxel-size 1 2", "--scan-shape a", "--mmap auto"):
        with pytest.raises(SystemExit):
            main(["info", str(tomogram), *wrong.split()])


# edit -------------------------------------------------------------------------------------------


def test_an_error_without_a_text(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("mrc_xarray.tools.convert.convert", fail)
    assert main(["convert", "a.mrc", "b.mrc"]) == 1
    assert capsys.readouterr().err == "mrc-xarray: MemoryError\n"


def test_edit(tomogram: Path, capsys: Any) -> None:
    pixels = tomogram.read_bytes()[1024:]
    options = ["--origin", "0", "-1.5", "-430", "--ispg", "401", "--mz", "1", "--exttyp", "MRCO"]
    options += ["--voxel-size", "1.35", "--label", "aligned", "by hand", "--machst", "44410000"]
    assert main(["edit", str(tomogram), *options]) == 0
    assert main(["edit", str(tomogram), "--tiltangles", *"123456", "--dmin", "-1e-3"]) == 0
    assert struct.unpack_from("<f", tomogram.read_bytes(), 76) == (np.float32(-1e-3),)
    assert main(["edit", str(tomogram), "--layout", "volume", "--extra1", "0000000012345678"]) == 0
    assert tomogram.read_bytes()[96:104] == bytes.fromhex("0000000012345678")
    assert main(["edit", str(tomogram), "--layout", "volume_stack", "--mz", "1"]) == 0
    assert main(["edit", str(tomogram), "--statistics"]) == 0
    assert capsys.readouterr() == ("", "")
    raw = tomogram.read_bytes()
    assert raw[1024:] == pixels
    assert (raw[104:108], raw[212:216]) == (b"MRCO", b"\x44\x41\0\0")
    assert struct.unpack_from("<3f", raw, 196) == (0, -1.5, -430)
    assert struct.unpack_from("<i", raw, 88) == (401,)
    assert struct.unpack_from("<6f", raw, 172) == (1, 2, 3, 4, 5, 6)
    assert struct.unpack_from("<3f", raw, 76) == (0, 0, 0)
    with mrcfile.open(tomogram) as mrc:
        assert [label.strip() for label in mrc.get_labels()] == ["aligned", "by hand"]
        assert float(mrc.voxel_size.x) == pytest.approx(1.35)


def test_edit_of_three_voxel_sizes_and_several_files(tomogram: Path, capsys: Any) -> None:
    missing, other = tomogram.with_name("none.mrc"), tomogram.with_name("other.mrc")
    other.write_bytes(tomogram.read_bytes())
    files = [str(tomogram), str(missing), str(other)]
    assert main(["edit", *files, "--voxel-size", "1", "2", "4"]) == 1
    assert "none.mrc" in capsys.readouterr().err
    for path in (tomogram, other):
        assert struct.unpack_from("<3f", path.read_bytes(), 40) == (5, 8, 12)


def test_edit_of_records(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "serialem.mrc"
    made: dict[str, Any] = {"exttyp": b"SERI", "nint": 4, "nreal": 0b1001}
    path.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), "f4"), extended=bytes(8), **made))
    values = ["--extended", "tilt_angle=-1.5,3", "magnification=500", "--dmin", "-2"]
    assert main(["edit", str(path), *values]) == 0
    records = struct.pack("<4h", -150, 5, 300, 5)
    assert path.read_bytes()[1024:1032] == records
    assert main(["edit", str(path), "--extended", "tilt_angle=up"]) == 1
    assert "finite numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "nothing to change"),
        (["--voxel-size", "1", "2"], 2, "expected 1 or 3 arguments"),
        (["--voxelsize", "1"], 2, "--voxelsize"),
        (["--origin", "1", "2"], 2, "expected 3 arguments"),
        (["--nz", "9"], 1, "tomo.mrc: "),
        (["--voltage", "300"], 1, "no program would read it"),
        (["--dmin", "nan"], 1, "finite"),
    ],
)
def test_edit_that_fails(
    tomogram: Path, options: list[str], status: int, message: str, capsys: Any
) -> None:
    before = tomogram.read_bytes()
    try:
        found = main(["edit", str(tomogram), *options])
    except SystemExit as stopped:
        found = int(stopped.code or 0)
    assert found == status
    assert message in capsys.readouterr().err
    assert tomogram.read_bytes() == before


# the process ------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mrc_xarray", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_python_m_mrc_xarray(tmp_path: Path) -> None:
    done = run("info", str(tmp_path / "none.mrc"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("mrc-xarray: ")


def test_version_and_usage(capsys: Any) -> None:
    for arguments, status in ((["--version"], 0), (["convert", "one"], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == status
    out, err = capsys.readouterr()
    assert out == f"{mrc_xarray.__version__}\n"
    assert err == (
        "mrc-xarray convert: error: the following arguments are required: DST "
        "(see `mrc-xarray convert --help`)\n"
    )


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    path = tmp_path / "demo.mrc"
    done = run("demo", str(path))
    assert done.returncode == 0
    assert done.stderr == ""
    assert mrcfile.validate(path, print_file=sys.stderr)
    with mrcfile.open(path) as mrc:
        mean = float(mrc.data.mean(dtype=np.float64))
        assert mrc.voxel_size.x == pytest.approx(13.3, rel=1e-6)
        assert mrc.is_volume()
    assert "<xarray.Dataset>" in done.stdout
    _, result = done.stdout.split(">>> ds.data.mean().compute(), on a cluster of 2 processes\n")
    assert float(result.splitlines()[0]) == pytest.approx(mean, abs=2e-6)


def test_demo_overwrites_nothing(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "precious.mrc"
    path.write_bytes(b"precious")
    assert main(["demo", str(path)]) == 1
    assert path.read_bytes() == b"precious"
    assert "File exists" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("mrc-xarray va", {"validate"}),
        ("mrc-xarray info x.mrc --layout volume", {"volume", "volume_stack"}),
        ("mrc-xarray info to", {"tomo.mrc"}),
    ],
)
def test_completion_in_bash(line: str, completed: set[str], tomogram: Path) -> None:
    code = subprocess.run(
        [sys.executable, "-m", "mrc_xarray", "completion", "bash"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # what bash does when the user presses the tabulator
    script = f"""
    mrc-xarray() {{ {shlex.quote(sys.executable)} -m mrc_xarray "$@"; }}
    {code.stdout}
    COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_TYPE=9
    _python_argcomplete mrc-xarray
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=tomogram.parent
    )
    assert {word.strip() for word in done.stdout.splitlines()} == completed


def test_completion_needs_argcomplete(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 1
    assert "completion in a shell needs argcomplete: " in capsys.readouterr().err
