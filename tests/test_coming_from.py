"""The page for those who know RosettaSciIO, mrcz or mrcfile: complete, and right in every row.

A row of a table with code in its second and third cell says that the two do the same. Both are
run here, on files by the library on the left or by hand, and compared: values with values, and
files that were written with each other.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import by_hand
import dask.config
import mrcfile
import mrcfile.command_line
import mrcfile.dtypes
import mrcfile.future_mrcfile
import mrcz
import numpy as np
import pytest
import rsciio.mrc
import rsciio.mrcz
import xarray as xr

from mrc_xarray.cli import main

PAGE = (Path(__file__).parents[1] / "docs/howto/coming_from.md").read_text()


def parts(heading: str) -> dict[str, str]:
    """Return the text under each heading that the pattern matches."""
    found = re.split(rf"^{heading} ", PAGE, flags=re.M)[1:]
    return {title: text for title, _, text in (part.partition("\n") for part in found)}


SECTIONS = parts("##")
SUBSECTIONS = parts("##+")
DE = "20260101_00001"
CUSTOM = "20260101_00002"
IMAGES = "20260101_00003"
REPEATED = "20260101_00004"

Names = dict[str, Any]

# the others' files, which they leave to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def no_file_left_open() -> None:
    """Let the others keep theirs: that this package has none open is tested elsewhere."""


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables' rows, without those of their heads."""
    return [
        [cell.strip() for cell in re.split(r" \|(?= |$)", line[1:])][:-1]
        for line, below in pairwise([*text.splitlines(), ""])
        if line.startswith("| ") and not below.startswith("|-")
    ]


def code(cell: str) -> str | None:
    match = re.fullmatch(r"`([^`]+)`", cell)
    return match[1] if match else None


# --------------------------------------------------------------------------------- the files


def numbers(*shape: int, dtype: str = "int16") -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 100, shape).astype(dtype)


def write_volume(name: str) -> None:
    with mrcfile.new(name, numbers(4, 6, 8, dtype="float32")) as m:
        m.voxel_size = (1.25, 2.5, 5)
        m.header.origin = (10, -20, 30)
        m.add_label("measured on a Sunday")


def write_fei(name: str) -> None:
    records = np.zeros(16, mrcfile.dtypes.get_ext_header_dtype(b"FEI2", "<"))
    random = np.random.default_rng(8)
    for field in records.dtype.names or ():
        kind = records.dtype[field].kind
        if kind == "S":
            records[field] = field.encode()[: records.dtype[field].itemsize]
        elif kind == "b":
            records[field] = random.integers(0, 2, 16)
        else:
            records[field] = random.integers(1, 1000, 16) / (8 if kind == "f" else 1)
    records["Metadata size"], records["Metadata version"] = 888, 2
    for number in range(1, 5):
        records[f"Bitmask {number}"] = 0xFFFFFFFF
    records["Timestamp"] = 44900.5 + np.arange(16) / 8
    records["Pixel size X"] = records["Pixel size Y"] = 2.5e-10
    records["HT"], records["Camera length"] = 300_000, 0.245
    with mrcfile.new(name, numbers(16, 6, 8)) as m:
        m.set_image_stack()
        m.voxel_size = 2.5
        m.set_extended_header(records)
        m.header.exttyp = b"FEI2"


def write_tilt(name: str) -> None:
    """FEI's software from before EXTTYP: 1024 records of 32 floats, whatever the images are."""
    records = np.zeros((1024, 32), "<f4")
    records[:5, :13] = np.random.default_rng(2).uniform(0.1, 0.9, (5, 13))
    records[:5, 0] = np.linspace(-60, 60, 5)
    records[:5, 11], records[:5, 12] = 5e-10, 29_000
    Path(name).write_bytes(
        by_hand.mrc(
            numbers(5, 6, 8),
            extended=records.tobytes(),
            ispg=0,
            mz=1,
            nint=0,
            nreal=32,
            cella=(8 * 5, 6 * 5, 5),
            labels=(b"Fei Company (C) Copyright 2003",),
        )
    )


def write_acquisition(
    prefix: str, shape: tuple[int, ...], scan: Mapping[str, object], frames: np.ndarray[Any, Any]
) -> None:
    """A movie as a Direct Electron server writes it, and its info file."""
    signature = {"nversion": 20140, "dmin": 2, "dmax": 1, "dmean": 0, "rms": -1}

    def save(name: str, data: np.ndarray[Any, Any]) -> None:
        ny, nx = data.shape[-2:]
        Path(name).write_bytes(by_hand.mrc(data, cella=(-10 * nx, -10 * ny, 0), **signature))

    save(f"{prefix}_movie.mrc", frames)
    ny, nx = frames.shape[-2:]
    info = {
        "Timestamp (seconds since Epoch)": 1729539410,
        "ADUs Per Electron Bin1x": 8,
        "Camera Model": "DE-16",
        "Diffraction Pixel Size X": 0.25,
        "Diffraction Pixel Size Y": 0.5,
        "Frames Per Second": 700,
        "Image Size X (pixels)": nx,
        "Image Size Y (pixels)": ny,
        "Instrument Project Camera Length (centimeters)": 24.5,
        "Instrument Project Magnification": 1000,
        "Instrument Project TEMorSTEM Mode": 1,
        "Scan - Enable": "Enable",
        "Scan - Repeat Delay (seconds)": 0,
        "Scan - Repeats": 1,
        "Scan - Time (seconds)": 2,
        "Specimen Pixel Size X (nanometers)": 0.5,
        "Specimen Pixel Size Y (nanometers)": 0.25,
    } | scan
    Path(f"{prefix}_info.txt").write_text("".join(f"{k:<50} = {v}\n" for k, v in info.items()))
    if prefix == DE:
        save(f"{prefix}_0_Sum_total.mrc", numbers(1, *shape, dtype="float32"))
        save(f"{prefix}_1_Ring_average.mrc", numbers(1, *shape, dtype="float32") + 1)
        save(f"{prefix}_ext1_HAADF.mrc", numbers(1, *shape, dtype="float32") + 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All files that the page names, made by the libraries that it is about, or by hand."""
    folder = tmp_path_factory.mktemp("coming_from")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_files()
        yield folder


def write_files() -> None:
    write_volume("volume.mrc")
    with mrcfile.new("volume.mrc.gz", numbers(4, 6, 8), compression="gzip"):
        pass
    signed = numbers(4, 6, 8, dtype="int8") - np.int8(50)
    Path("bytes.mrc").write_bytes(by_hand.mrc(signed, nxstart=-2))
    write_fei("fei.mrc")
    write_tilt("tilt.mrc")
    for name, shape in (("patterns.mrc", (12, 6, 8)), ("movie.mrc", (4, 6, 8))):
        with mrcfile.new(name, numbers(*shape, dtype="uint16")) as m:
            m.set_image_stack()
    meta = {"operator": "a colleague", "dose": {"total": 60.5}}
    microscope = {"voltage": 300.0, "C3": 2.7, "gain": 1.5}
    options = {"meta": meta, "pixelsize": [1, 2, 2.5], "quickStats": False} | microscope
    mrcz.writeMRC(numbers(4, 6, 8), "movie.mrcz", compressor="zstd", **options)
    mrcz.writeMRC(numbers(4, 6, 8), "plain.mrc", **options)
    mrcz.writeMRC(numbers(4, 6, 8), "bare.mrc")
    mrcz.writeMRC(numbers(4, 6, 8).astype(">i2"), "big.mrc", endian="be", meta=meta)
    mrcz.writeMRC(list(numbers(3, 2, 6, 8)), "channels.mrcz", compressor="lz4")
    Path("eman2.mrc").write_bytes(by_hand.mrc(numbers(4, 6, 8, dtype="float32"), 7))
    raster = {"Scan - Type": "Raster", "Scan - Size X": 5, "Scan - Size Y": 3}
    write_acquisition(DE, (3, 5), raster, numbers(15, 4, 6, dtype="uint16"))
    images = {
        "Scan - Enable": "Disable",
        "Instrument Project TEMorSTEM Mode": 0,
        "Instrument Project Camera Length (centimeters)": -1,
    }
    write_acquisition(IMAGES, (), images, numbers(5, 4, 6, dtype="uint16"))
    custom = raster | {"Scan - Type": "XY File"}
    places = np.random.default_rng(1).permutation([i for i in range(15) if i not in (3, 8)])
    for prefix, visited in ((CUSTOM, places), (REPEATED, [*places, *places[4:1:-1]])):
        frames = numbers(len(visited), 4, 6, dtype="uint16")
        write_acquisition(prefix, (3, 5), custom, frames)
        Path(f"{prefix}_scan_coordinates.csv").write_text(
            "".join(f"{place % 5},{place // 5}\n" for place in visited)
        )


@pytest.fixture(scope="module")
def namespaces(folder: Path) -> Iterator[dict[str, Names]]:
    """What the blocks of each section define, filled by `names_of`."""
    found: dict[str, Names] = {}
    yield found
    for names in found.values():
        names["pool"].shutdown()
        for value in names.values():
            if isinstance(value, mrcfile.mrcfile.MrcFile):
                value.close()


def names_of(title: str, namespaces: dict[str, Names]) -> Names:
    if title not in namespaces:
        names: Names = {}
        # those before the sections hold for all
        for block in blocks(PAGE.split("\n## ", 1)[0]) + blocks(SECTIONS[title]):
            exec(block, names)
        namespaces[title] = names
    return namespaces[title]


# ------------------------------------------------------------------------------- every row


def run(source: str, names: Names) -> Any:
    """Evaluate an expression, or run statements."""
    try:
        expression = compile(source, source, "eval")
    except SyntaxError:
        exec(source, names)
        return None
    result = eval(expression, names)
    return result.result() if isinstance(result, Future) else result


def assert_same(there: Any, here: Any) -> None:
    if isinstance(there, Mapping):
        assert set(there) == set(here)
        for key in there:
            assert_same(there[key], here[key])
        return
    if isinstance(there, list | tuple):
        assert len(there) == len(here)
        for pair in zip(there, here, strict=True):
            assert_same(*pair)
        return
    there, here = (np.asarray(side) for side in (there, here))
    assert there.shape == here.shape
    if {there.dtype.kind, here.dtype.kind} & set("fc"):
        np.testing.assert_allclose(here, there, rtol=1e-6)
    else:
        np.testing.assert_array_equal(here, there)


def told_by_mrcz(name: str, given: str) -> Names:
    """Pixels and header as mrcz reads them, without what is another default, or by nature so."""
    pixels, meta = mrcz.readMRC(name, slices=0)
    left_out = {"packedBytes", "extendedBytes", "metaId", "mrc_xarray"}
    if "quickStats=False" not in given:
        left_out |= {"minImage", "maxImage", "meanImage"}
    left_out |= {key for key in ("pixelsize", "gain") if "mrcz." in given and key not in given}
    return {"pixels": pixels} | {key: v for key, v in meta.items() if key not in left_out}


def told_by_mrcfile(name: str) -> Names:
    """Pixels and header as mrcfile reads them, without the labels of who wrote the file."""
    with mrcfile.open(name) as m:
        fields = {key: m.header[key].tolist() for key in m.header.dtype.names}
        fields |= {"pixels": m.data.copy(), "extended": m.extended_header.tobytes()}
        by_whom = re.compile(r"mrcfile\.py|mrc_xarray")
        fields["label"] = [text.rstrip() for text in m.get_labels() if not by_whom.search(text)]
    return {key: value for key, value in fields.items() if key != "nlabl"}


CASES = [
    pytest.param(title, code(left), here, id=f"{title}-{name}-{here}")
    for title, text in SECTIONS.items()
    for name, left, right, *_ in rows(text)
    if (here := code(right))
]


@pytest.mark.parametrize(("title", "there", "here"), CASES)
def test_both_sides_of_a_row_do_the_same(
    title: str,
    there: str | None,
    here: str,
    folder: Path,
    namespaces: dict[str, Names],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "blosc2:" in here:
        pytest.importorskip("blosc2")
    # a row sets it for all
    monkeypatch.setitem(dask.config.config, "num_workers", None)
    names = names_of(title, namespaces)
    for old in (*folder.glob("there.*"), *folder.glob("here.*")):
        old.unlink()
    written = re.search(r'"there(\.\w+)"', there or "")
    files = [f"{side}{written[1]}" for side in ("there", "here")] if written else []
    if re.search(r'"r\+"|idx=|overwrite=', f"{there} {here}"):
        for file in files:
            shutil.copy("bare.mrc" if "mrcz." in f"{there}" else "volume.mrc", file)

    result = run(here, names)
    if there is None:
        return
    expected = run(there, names)
    if not files:
        assert expected is not None
        assert_same(expected, result)
    elif title == "mrcfile":
        assert_same(*map(told_by_mrcfile, files))
    else:
        assert_same(*(told_by_mrcz(file, there) for file in files))


def test_the_tables_are_read() -> None:
    compared = [title for title, there, _ in (case.values for case in CASES) if there]
    assert {title: compared.count(title) > 20 for title in SECTIONS} == {
        "What is different on purpose": False,
        "RosettaSciIO: rsciio.mrc": True,
        "RosettaSciIO: rsciio.mrcz": True,
        "mrcz": True,
        "mrcfile": True,
    }


def test_fields_of_fei_have_the_values_that_mrcfile_reads(folder: Path) -> None:
    fields = xr.open_dataset("fei.mrc", engine="mrc").mrc.extended_fields
    with mrcfile.open("fei.mrc") as m:
        records = m.indexed_extended_header.copy()
    table = {
        theirs: ours
        for left, right, *_ in rows(SUBSECTIONS["Fields of FEI1 and FEI2"])
        if (theirs := code(left)) and (ours := code(right))
    }
    assert len(table) == 107
    for theirs, ours in table.items():
        there, here = records[theirs], fields[ours].values
        if here.dtype.kind == "M":
            days = theirs == "Timestamp"
            unit = "M8[s]" if days else "M8[us]"
            since = np.datetime64("1899-12-30" if days else "1970-01-01", "us")
            there = since + (there * (86_400e6 if days else 1)).astype("m8[us]")
            there, here = there.astype(unit), here.astype(unit)
        elif there.dtype.kind == "S":
            there = there.astype(str)
        np.testing.assert_array_equal(np.broadcast_to(here, 16), there, err_msg=theirs)


def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(SECTIONS["mrcfile"], "sh")
    for line in block.splitlines():
        assert line.startswith("mrc-xarray ")
        assert main(line.split()[1:]) == 0
    header = json.loads("[" + capsys.readouterr().out.split("\n[", 1)[1])[0]["header"]
    mrcfile.command_line.print_headers(["volume.mrc"])
    told = re.findall(r"^(\w+) +: ", capsys.readouterr().out, re.M)
    assert set(told) <= set(header)


# ------------------------------------------------------------------------- every name of theirs


def named(text: str) -> set[str]:
    """Return the names in code: in the text, and in the first cells of tables."""
    lines = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).splitlines()
    cells = [line[1:].split(" | ")[0] if line.startswith("| ") else line for line in lines]
    spans = re.findall(r"`([^`]+)`", " ".join(cells))
    return {name for span in spans for name in (span, *re.findall(r"[\w-]+", span))}


def groups(text: str) -> dict[str, set[str]]:
    """Return the names by function, where the first cell of some rows is ``function: names``."""
    found: dict[str, set[str]] = {}
    for first, *_ in rows(text):
        if function := re.match(r"`(\w+)`:", first):
            names = found.setdefault(function[1], set())
        if found:
            names |= named(first)
    return found


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "args", "kwargs", "kwds"}


def public(obj: Any) -> set[str]:
    return {name for name in dir(obj) if not name.startswith("_")}


def keys(found: Any) -> set[str]:
    """Return the keys of dicts within dicts, save those that the data's owner chose."""
    if isinstance(found, list):
        return set().union(*map(keys, found))
    if not isinstance(found, Mapping):
        return set()
    own = {"de_metadata", "navigators", "dose"}
    return set(found).union(*(keys(v) for k, v in found.items() if k not in own))


@pytest.mark.parametrize(
    ("function", "subsection"),
    [
        (rsciio.mrc.file_reader, "Arguments of rsciio.mrc.file_reader"),
        (rsciio.mrcz.file_reader, "Arguments of rsciio.mrcz.file_reader"),
        (rsciio.mrcz.file_writer, "Arguments of rsciio.mrcz.file_writer"),
        (mrcz.readMRC, "Arguments of readMRC"),
        (mrcz.writeMRC, "Arguments of writeMRC"),
        *(
            (function, "The other names in mrcz")
            for name in mrcz.__all__
            if inspect.isfunction(function := getattr(mrcz, name))
            and name not in ("readMRC", "read_mrc", "writeMRC", "write_mrc")
        ),
    ],
)
def test_each_argument_is_there(function: Any, subsection: str) -> None:
    assert parameters(function) <= named(SUBSECTIONS[subsection])


@pytest.mark.parametrize(
    ("owner", "subsection"),
    [(mrcfile, "Functions"), (mrcfile.mrcfile.MrcFile, "What an MrcFile has")],
)
def test_each_argument_in_mrcfile_is_there(owner: Any, subsection: str) -> None:
    found = groups(SUBSECTIONS[subsection])
    functions = [f for name in public(owner) if inspect.isfunction(f := getattr(owner, name))]
    for function in filter(parameters, functions):
        assert parameters(function) <= found[function.__name__]


def test_each_name_in_mrcfile_is_there() -> None:
    functions = {name for name in public(mrcfile) if inspect.isfunction(getattr(mrcfile, name))}
    functions |= public(mrcfile.future_mrcfile.FutureMrcFile)
    functions |= parameters(mrcfile.mrcfile.MrcFile.__init__)
    assert functions <= named(SUBSECTIONS["Functions"])
    members = public(mrcfile.mrcfile.MrcFile) | public(mrcfile.mrcmemmap.MrcMemmap)
    assert members <= named(SUBSECTIONS["What an MrcFile has"])
    header = mrcfile.dtypes.HEADER_DTYPE
    fields = {
        *(header.names or ()),
        *(header["cella"].names or ()),
        *(header["cellb"].names or ()),
    }
    assert fields <= named(SUBSECTIONS["Header fields"])
    records = set(mrcfile.dtypes.get_ext_header_dtype(b"FEI2").names or ())
    assert records <= named(SUBSECTIONS["Fields of FEI1 and FEI2"])
    commands = distribution("mrcfile").entry_points.select(group="console_scripts").names
    assert commands <= named(SUBSECTIONS["Commands"])


def test_each_name_in_mrcz_is_there(folder: Path) -> None:
    assert set(mrcz.__all__) - {"readMRC", "writeMRC"} <= named(
        SUBSECTIONS["The other names in mrcz"]
    )
    found = set().union(*(mrcz.readMRC(name)[1] for name in ("movie.mrcz", "plain.mrc")))
    result = named(SUBSECTIONS["What readMRC returns"])
    assert found - {"operator", "dose"} <= result
    assert set(mrcz.defaultHeader()) <= result | named(SUBSECTIONS["The other names in mrcz"])


def test_each_result_of_rosettasciio_is_there(folder: Path) -> None:
    names = ("volume.mrc", "tilt.mrc", f"{DE}_movie.mrc")
    signals = [rsciio.mrc.file_reader(name)[0] for name in names]
    found = keys(signals)
    assert {"std_header", "fei_header", "de_metadata", "gain_factor", "TILTANGLES"} <= found
    for place in signals[1]["mapping"]:
        found |= set(place.split("."))
        found |= set(signals[1]["mapping"][place][0].split("."))
    section = named(SECTIONS["RosettaSciIO: rsciio.mrc"])
    assert {key for key in found if not key.startswith("fei_header.")} <= section

    signal = rsciio.mrcz.file_reader("movie.mrcz")[0]
    del signal["original_metadata"]["mrcz_header"]["operator"], signal["metadata"]["operator"]
    found = keys(signal) - keys(signal["original_metadata"]["mrcz_header"]) - {"dose"}
    assert found | set(signal["metadata"]) - {"dose"} <= named(
        SECTIONS["RosettaSciIO: rsciio.mrcz"]
    )


# --------------------------------------------------------------- what is different on purpose


def test_navigation_shape_is_refused(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"scan_shape=\(y, x\)"):
        xr.open_dataset("patterns.mrc", engine="mrc", navigation_shape=(4, 3))


def test_the_others_do_what_the_page_says(folder: Path) -> None:
    read = rsciio.mrc.file_reader
    scales = [axis["scale"] for axis in read(f"{DE}_movie.mrc")[0]["axes"]]
    assert scales == [1, 1, 1, 1]
    signal = read("bytes.mrc")[0]
    assert signal["data"].dtype == np.uint8
    assert signal["original_metadata"]["std_header"]["NXSTART"] == 4294967294
    ds = xr.open_dataset("bytes.mrc", engine="mrc")
    assert ds["data"].dtype == np.int8
    assert ds.mrc.header.nxstart == -2
    images, _ = mrcz.readMRC("volume.mrc")
    assert [image.shape for image in images] == [(4, 6, 8)]
    for name in ("channels.mrcz", "bare.mrc"):
        with pytest.raises((AttributeError, KeyError)):
            rsciio.mrcz.file_reader(name)
