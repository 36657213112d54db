"""The pages for users of other libraries are complete, and each row of their tables is correct.

The second and third cell of a row contain code that does the same. Both are run here, and their
results are compared: values with values, and written files with each other.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import by_hand
import dask.config
import de_by_hand
import mrcfile
import mrcfile.command_line
import mrcfile.dtypes
import mrcz
import numpy as np
import pytest
import rsciio.mrc
import rsciio.mrcz
import xarray as xr
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.future_mrcfile import FutureMrcFile
from mrcfile.mrcfile import MrcFile
from mrcfile.mrcmemmap import MrcMemmap

import mrc_xarray
from mrc_xarray.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "howto/coming_from.md").read_text(encoding="utf-8")
FEI = (DOCS / "reference/fei.md").read_text(encoding="utf-8")


def parts(heading: str) -> dict[str, str]:
    """Return the text under each heading that the pattern matches."""
    found = re.split(rf"^{heading} ", PAGE, flags=re.M)[1:]
    return {title: text for title, _, text in (part.partition("\n") for part in found)}


SECTIONS = parts("##")
SUBSECTIONS = parts("##+")
DE, CUSTOM, IMAGES, REPEATED, SUFFIXED = (f"20260101_0000{number}" for number in range(1, 6))

# a raster of 3 rows and 5 columns, with the keys that RosettaSciIO requires
INFO = {
    "ADUs Per Electron": None, "ADUs Per Electron Bin1x": 8, "Camera Model": "DE-16",
    "Frames Per Second": 700, "Image Size X (pixels)": 6, "Image Size Y (pixels)": 4,
    "Instrument Project Magnification": 1000, "Instrument Project TEMorSTEM Mode": 1,
    "Scan - Repeat Delay (seconds)": 0, "Scan - Size X": 5, "Scan - Time (seconds)": 2,
    "Server Software Version": "2.7.2",
}  # fmt: skip
Names = dict[str, Any]

pytestmark = [
    # the other libraries leave their files to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    # mrcfile reports what it reads permissively
    pytest.mark.filterwarnings("ignore::RuntimeWarning:mrcfile"),
]


@pytest.fixture(autouse=True)
def no_file_left_open() -> None:
    """Allow open files here, since the other libraries leave some."""


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of the tables, without the heads."""
    return [
        [cell.strip() for cell in re.split(r" \|(?= |$)", line[1:])][:-1]
        for line, below in pairwise([*text.splitlines(), ""])
        if line.startswith("| ") and not below.startswith("|-")
    ]


def code(cell: str) -> str | None:
    match = re.fullmatch(r"`([^`]+)`", cell)
    return match[1] if match else None


# --- the files


def numbers(*shape: int, dtype: str = "int16") -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 100, shape).astype(dtype)


PIXELS = numbers(6, 8)


def write_fei(name: str) -> None:
    records = np.zeros(16, mrcfile.dtypes.get_ext_header_dtype(b"FEI2", "<"))
    random = np.random.default_rng(8)
    for field, (dtype, *_) in records.dtype.fields.items():
        values = random.integers(0, 2 if dtype.kind == "b" else 8000, 16)
        records[field] = field.encode()[: dtype.itemsize] if dtype.kind == "S" else values
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
    """Write what FEI's software wrote before EXTTYP: 1024 records of 32 floats for any stack."""
    records = np.zeros((1024, 32), "<f4")
    records[:5, :13] = np.random.default_rng(2).uniform(0.1, 0.9, (5, 13))
    records[:5, 0] = np.linspace(-60, 60, 5)
    records[:5, 11], records[:5, 12] = 5e-10, 29_000
    fields = {"ispg": 0, "mz": 1, "nint": 0, "nreal": 32, "cella": (8 * 5, 6 * 5, 5)}
    labels = (b"Fei Company (C) Copyright 2003",)
    raw = by_hand.mrc(numbers(5, 6, 8), extended=records.tobytes(), labels=labels, **fields)
    Path(name).write_bytes(raw)


def write_dm4(name: str) -> None:
    import dm_by_hand

    axes = [(0, 0.5, "nm"), (0, 0.25, "nm")]
    Path(name).write_bytes(dm_by_hand.dm(dm_by_hand.image(PIXELS, 1, axes=axes)))


def write_acquisition(prefix: str, n_frames: int, infix: str = "", **changed: object) -> None:
    """Write a Direct Electron movie and its info file."""
    frames = numbers(n_frames, 4, 6, dtype="uint16")
    Path(f"{prefix}_movie.mrc").write_bytes(de_by_hand.movie(frames))
    Path(f"{prefix}_{infix}info.txt").write_bytes(de_by_hand.info(INFO | changed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All files that the page names, written by the other libraries or by hand."""
    folder = tmp_path_factory.mktemp("coming_from")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_files()
        yield folder


def write_files() -> None:
    with mrcfile.new("volume.mrc", numbers(4, 6, 8, dtype="float32")) as m:
        m.voxel_size = (1.25, 2.5, 5)
        m.header.origin = (10, -20, 30)
        m.add_label("measured on a Sunday")
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
    mrcz.writeMRC(numbers(12, 6, 8), "twelve.mrc")
    mrcz.writeMRC(numbers(4, 6, 8).astype(">i2"), "big.mrc", endian="be", meta=meta)
    mrcz.writeMRC(list(numbers(3, 2, 6, 8)), "channels.mrcz", compressor="lz4")
    Path("eman2.mrc").write_bytes(by_hand.mrc(numbers(4, 6, 8, dtype="float32"), 7))
    write_dm4("image.dm4")
    for name, fields in {
        "unset": {"cella": (0, 0, 0)},
        "permuted": {"mapc": 3, "mapr": 2, "maps": 1},
        "start": {"nxstart": 2, "cella": (20, 6, 4)},
        "swapped": {"byteorder": ">"},
    }.items():
        Path(f"{name}.mrc").write_bytes(by_hand.mrc(numbers(4, 6, 8), **fields))
    Path("single.mrc").write_bytes(by_hand.mrc(numbers(1, 6, 8)))
    mrcfile.new("none.mrc").close()
    Path("unknown.mrc").write_bytes(by_hand.mrc(numbers(4, 6, 8), 9))
    Path("damaged.mrc").write_bytes(by_hand.mrc(numbers(4, 6, 8), map=b"map?"))
    scan = xr.DataArray(numbers(3, 4, 6, 8), dims=("scan_y", "scan_x", "ky", "kx"))
    mrc_xarray.to_mrc(scan, "scan.mrcz")
    write_acquisition(DE, 15)
    write_acquisition(SUFFIXED, 15, "bin2_")
    mode, camera = "Instrument Project TEMorSTEM Mode", "Instrument Project Camera Length"
    images_only = {"Scan - Enable": "Disable", mode: 0, f"{camera} (centimeters)": -1}
    write_acquisition(IMAGES, 5, **images_only)
    for i, image in enumerate(("0_Sum_total", "1_Ring_average", "ext1_HAADF")):
        pixels = numbers(1, 3, 5, dtype="float32") + i
        Path(f"{DE}_{image}.mrc").write_bytes(de_by_hand.movie(pixels))
    for image, pixels in {
        "bin2_0_Line_sum": numbers(1, 1, 15, dtype="float32"),
        "bin2_1_Spot_sum": numbers(1, 3, 5, dtype="float32"),
    }.items():
        Path(f"{SUFFIXED}_{image}.mrc").write_bytes(de_by_hand.movie(pixels))
    places = np.random.default_rng(1).permutation([i for i in range(15) if i not in (3, 8)])
    for prefix, visited in ((CUSTOM, places), (REPEATED, [*places, *places[4:1:-1]])):
        write_acquisition(prefix, len(visited), **de_by_hand.XY_FILE)
        positions = [(place % 5, place // 5) for place in visited]
        Path(f"{prefix}_scan_coordinates.csv").write_bytes(de_by_hand.csv(positions))


@pytest.fixture(scope="module")
def names_of(folder: Path) -> Iterator[Callable[[str], Names]]:
    """A function that returns the names that the code of a section defines."""
    found: dict[str, Names] = {}

    def names_of(title: str) -> Names:
        if title not in found:
            found[title] = {}
            # the code in front of the sections applies to all
            for block in blocks(PAGE.split("\n## ", 1)[0]) + blocks(SECTIONS[title]):
                exec(block, found[title])
        return found[title]

    yield names_of
    for names in found.values():
        names["pool"].shutdown()
        for value in names.values():
            if isinstance(value, MrcFile):
                value.close()


# --- every row


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
        there, here = list(there.values()), [here[key] for key in there]
    if isinstance(there, list | tuple):
        for pair in zip(there, here, strict=True):
            assert_same(*pair)
        return
    there, here = np.asarray(there), np.asarray(here)
    assert there.shape == here.shape
    if {there.dtype.kind, here.dtype.kind} & set("fc"):
        np.testing.assert_allclose(here, there, rtol=1e-6)
    else:
        np.testing.assert_array_equal(here, there)


def read_by_mrcz(name: str, given: str) -> Names:
    """Return what mrcz reads, without fields that have another default or differ by nature."""
    pixels, meta = mrcz.readMRC(name, slices=0)
    left_out = {"packedBytes", "extendedBytes", "metaId", "mrc_xarray"}
    if "quickStats=False" not in given:
        left_out |= {"minImage", "maxImage", "meanImage"}
    left_out |= {key for key in ("pixelsize", "gain") if "mrcz." in given and key not in given}
    return {"pixels": pixels} | {key: v for key, v in meta.items() if key not in left_out}


def read_by_mrcfile(name: str) -> Names:
    """Return what mrcfile reads, without the labels that name the writer."""
    with mrcfile.open(name) as m:
        fields = {key: m.header[key].tolist() for key in m.header.dtype.names if key != "nlabl"}
        fields |= {"pixels": m.data.copy(), "extended": m.extended_header.tobytes()}
        writer = re.compile(r"mrcfile\.py|mrc_xarray")
        fields["label"] = [text.rstrip() for text in m.get_labels() if not writer.search(text)]
    return fields


CASES = [
    pytest.param(title, code(left), here, id=f"{title}-{name}-{here}")
    for title, text in SECTIONS.items()
    for name, left, right, *_ in rows(text)
    if (here := code(right))
]


@pytest.mark.slow
@pytest.mark.parametrize(("title", "there", "here"), CASES)
def test_both_sides_of_a_row_do_the_same(
    title: str,
    there: str | None,
    here: str,
    folder: Path,
    names_of: Callable[[str], Names],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # some rows set it
    monkeypatch.setitem(dask.config.config, "num_workers", None)
    names = names_of(title)
    for old in (*folder.glob("there.*"), *folder.glob("here.*")):
        old.unlink()
    written = re.search(r'"there(\.\w+)"', there or "")
    files = [f"{side}{written[1]}" for side in ("there", "here")] if written else []
    if re.search(r'"r\+"|idx=|overwrite=', f"{there} {here}"):
        old = {"mrcz.": "bare.mrc", "permissive=": "damaged.mrc", "extended_header.": "fei.mrc"}
        default = "volume.mrc.gz" if ".gz" in here else "volume.mrc"
        source = next((name for word, name in old.items() if word in f"{there}"), default)
        for file in files:
            shutil.copy(source, file)

    result = run(here, names)
    if there is None:
        return
    expected = run(there, names)
    if title == "mrcfile" and files:
        expected, result = map(read_by_mrcfile, files)
    elif files:
        expected, result = (read_by_mrcz(file, there) for file in files)
    assert expected is not None
    assert_same(expected, result)


# they have no code to run: what the other library always returns, or another table or test
WITHOUT_CODE = {
    "`endianess`, `distributed`, `mmap_mode`", "`Signal.quantity`", "`Signal.signal_type`",
    "`fei_header`", "`mapping`", "`endianess`", "`test`", "`close`", "`flush`",
}  # fmt: skip


def test_each_row_has_code() -> None:
    others = SECTIONS.keys() - {"Intentional differences"}
    found = [row for title in others for row in rows(SECTIONS[title])]
    assert {name for name, _, here, *_ in found if code(here) is None} == WITHOUT_CODE


def test_the_tables_are_read() -> None:
    compared = Counter(title for title, there, _ in (case.values for case in CASES) if there)
    assert set(compared) == set(SECTIONS) - {"Intentional differences"}
    assert min(compared.values()) > 20


def test_fields_of_fei_have_the_values_that_mrcfile_reads(folder: Path) -> None:
    fields = xr.open_dataset("fei.mrc", engine="mrc").mrc.extended_fields
    with mrcfile.open("fei.mrc") as m:
        records = m.indexed_extended_header.copy()
    table = {
        theirs: ours
        for left, right, *_ in rows(FEI)
        if (theirs := code(left)) and (ours := code(right))
    }
    assert len(table) == 107
    for theirs, ours in table.items():
        there, here = records[theirs], fields[ours].values
        if theirs == "Timestamp":
            there = np.datetime64("1899-12-30", "s") + (there * 86_400).astype("m8[s]")
            here = here.astype("M8[s]")
        elif here.dtype.kind == "M":
            there, here = there.astype("M8[us]"), here.astype("M8[us]")
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
    assert set(re.findall(r"^(\w+) +: ", capsys.readouterr().out, re.M)) <= set(header)


# --- every name of the other libraries


def named(text: str) -> set[str]:
    """Return the names in inline code: in the text, and in the first cells of tables."""
    lines = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).splitlines()
    cells = [line[1:].split(" | ")[0] if line.startswith("| ") else line for line in lines]
    spans = re.findall(r"`([^`]+)`", " ".join(cells))
    return {name for span in spans for name in (span, *re.findall(r"[\w-]+", span))}


def public(obj: Any) -> set[str]:
    return {name for name in dir(obj) if not name.startswith("_")}


def functions(obj: Any) -> dict[str, Any]:
    found = inspect.getmembers(obj, inspect.isfunction)
    return {name: value for name, value in found if not name.startswith("_")}


def parameters(*found: Any) -> set[str]:
    names = set().union(*(inspect.signature(function).parameters for function in found))
    return names - {"self", "args", "kwargs", "kwds"}


def keys(found: Any) -> set[str]:
    """Return the keys of nested dicts, except those that the owner of the data chose."""
    if isinstance(found, list):
        return set().union(*map(keys, found))
    if not isinstance(found, Mapping):
        return set()
    own = {"de_metadata", "navigators", "dose"}
    return set(found).union(*(keys(v) for k, v in found.items() if k not in own))


def from_rsciio() -> set[str]:
    files = ("volume.mrc", "tilt.mrc", f"{DE}_movie.mrc")
    signals = [rsciio.mrc.file_reader(name)[0] for name in files]
    found = {key for key in keys(signals) if not key.startswith("fei_header.")}
    assert {"std_header", "fei_header", "de_metadata", "gain_factor", "TILTANGLES"} <= found
    for source, (target, *_) in signals[1]["mapping"].items():
        found |= {*source.split("."), *target.split(".")}
    return found


def from_rsciio_mrcz() -> set[str]:
    signal = rsciio.mrcz.file_reader("movie.mrcz")[0]
    header = keys(signal["original_metadata"]["mrcz_header"])
    return keys(signal) - header | set(signal["metadata"]) - {"operator", "dose"}


MRC_FUNCTIONS, CELLB = functions(MrcFile).values(), HEADER_DTYPE["cellb"]
LISTED: dict[str, Callable[[], Iterable[str]]] = {
    "RosettaSciIO: rsciio.mrc": from_rsciio,
    "Arguments of rsciio.mrc.file_reader": lambda: parameters(rsciio.mrc.file_reader),
    "RosettaSciIO: rsciio.mrcz": from_rsciio_mrcz,
    "Arguments of rsciio.mrcz.file_reader": lambda: parameters(rsciio.mrcz.file_reader),
    "Arguments of rsciio.mrcz.file_writer": lambda: parameters(rsciio.mrcz.file_writer),
    "mrcz": lambda: {*parameters(*functions(mrcz).values()), *mrcz.__all__, *mrcz.defaultHeader()},
    "Arguments of readMRC": lambda: parameters(mrcz.readMRC),
    "What readMRC returns": lambda: mrcz.readMRC("bare.mrc")[1],
    "Arguments of writeMRC": lambda: parameters(mrcz.writeMRC),
    "Functions": lambda: (
        functions(mrcfile).keys()
        | parameters(MrcFile, *functions(mrcfile).values())
        | public(FutureMrcFile)
    ),
    "What an MrcFile has": lambda: (
        public(MrcFile) | public(MrcMemmap) | parameters(*MRC_FUNCTIONS)
    ),
    "Header fields": lambda: [*HEADER_DTYPE.names, *HEADER_DTYPE["cella"].names, *CELLB.names],
    "FEI": lambda: mrcfile.dtypes.get_ext_header_dtype(b"FEI2").names,
    "Commands": lambda: distribution("mrcfile").entry_points.select(group="console_scripts").names,
}


@pytest.mark.parametrize("title", LISTED)
def test_each_name_is_listed(title: str, folder: Path) -> None:
    names = set(LISTED[title]())
    assert names
    assert names <= named((SUBSECTIONS | SECTIONS | {"FEI": FEI})[title])


# --- intentional differences


def raised(source: str) -> str:
    """Return the name of the exception that code raises; empty if it raises none."""
    try:
        run(source, globals() | {"to_mrc": mrc_xarray.to_mrc})
    except Exception as error:
        return type(error).__name__
    return ""


def voxel_sizes_as_volume(*, there: bool) -> list[float]:
    """Make a volume of a stack with sections of 2 Å; return the voxel sizes along z and y."""
    shutil.copy("movie.mrc", "stack.mrc")
    with mrcfile.open("stack.mrc", "r+") as m:
        m.voxel_size = 2
        if there:
            m.set_volume()
    if not there:
        mrc_xarray.edit_header("stack.mrc", layout="volume")
    with mrcfile.open("stack.mrc") as m:
        return [float(m.voxel_size.z), float(m.voxel_size.y)]


def images_there(movie: str) -> list[np.ndarray[Any, Any]]:
    """Return the virtual images that RosettaSciIO reads, in any order."""
    (signal,) = rsciio.mrc.file_reader(movie)
    return [image["data"] for image in signal["metadata"]["_HyperSpy"]["navigators"].values()]


# topic of the page → code and its result, there and here
DIFFERENCES: dict[str, list[tuple[str, Any]]] = {
    "scan shape": [
        ('read("patterns.mrc", navigation_shape=(4, 3))[0]["data"].shape', (3, 4, 6, 8)),
        ('open_mrc("patterns.mrc", scan_shape=(4, 3))["data"].shape', (4, 3, 6, 8)),
    ],
    "units": [
        ('read("volume.mrc")[0]["axes"][2]["scale"]', 0.125),
        ('open_mrc("volume.mrc")["x"].attrs["spacing"]', 1.25),
    ],
    "unknown voxel size": [
        ('[axis["scale"] for axis in read("unset.mrc")[0]["axes"]]', [1, 0, 0]),
        ('list(open_mrc("unset.mrc").coords)', []),
    ],
    "Direct Electron's pixel sizes": [
        ('[axis["scale"] for axis in read(movie)[0]["axes"]]', [1, 1, 1, 1]),
        (
            '[open_mrc(movie, units="nm")[dim].attrs["spacing"] for dim in ("scan_y", "ky")]',
            [3, 0.5],
        ),
    ],
    "range of sections": [
        ('len(mrcz.readMRC("plain.mrc", idx=(1, 2))[0])', 2),
        ('open_mrc("plain.mrc").isel(image=slice(1, 2)).sizes["image"]', 1),
    ],
    "8-bit data, MODE 0": [
        ('read("bytes.mrc")[0]["data"].dtype.kind', "u"),
        ('open_mrc("bytes.mrc")["data"].dtype.kind', "i"),
    ],
    "MAPC, MAPR, MAPS": [
        ('[axis["name"] for axis in read("permuted.mrc")[0]["axes"]]', ["z", "y", "x"]),
        ('list(open_mrc("permuted.mrc")["data"].dims)', ["x", "y", "z"]),
    ],
    "frames of several sections": [
        ('[image.shape for image in mrcz.readMRC("channels.mrcz")[0]]', [(2, 6, 8)] * 3),
        ('list(open_mrc("channels.mrcz")["data"].dims)', ["image", "channel", "y", "x"]),
    ],
    "a file by another program, read by mrcz": [
        ('[image.shape for image in mrcz.readMRC("volume.mrc")[0]]', [(4, 6, 8)]),
        ('open_mrc("volume.mrc")["data"].shape', (4, 6, 8)),
    ],
    "position of the first voxel": [
        ('read("start.mrc")[0]["axes"][2]["offset"]', 0),
        ('open_mrc("start.mrc")["x"].values[0]', 5),
    ],
    "byte order": [
        ('mrcfile.read("swapped.mrc").dtype.byteorder', ">"),
        ('open_mrc("swapped.mrc")["data"].dtype.isnative', True),
    ],
    "dimensions of length 1": [
        ('read("single.mrc")[0]["data"].shape', (6, 8)),
        ('open_mrc("single.mrc")["data"].shape', (1, 6, 8)),
    ],
    "a file that exists": [
        ('raised(\'mrcz.writeMRC(np.ones((2, 4, 4), "f4"), "stack.mrc")\')', ""),
        ('raised(\'to_mrc(np.ones((2, 4, 4), "f4"), "stack.mrc")\')', "FileExistsError"),
    ],
    "float64, complex128": [
        ("raised('mrcz.writeMRC(np.ones((2, 4, 4)), \"there.mrc\")')", ""),
        ("raised('to_mrc(np.ones((2, 4, 4)), \"here.mrc\")')", "MrcError"),
    ],
    "an image stack that becomes a volume": [
        ("voxel_sizes_as_volume(there=True)", [0.5, 2]),
        ("voxel_sizes_as_volume(there=False)", [2, 2]),
    ],
    "rows of DM4 files": [
        ('mrcz.readDM4("image.dm4").im[0].imageData[:, ::-1]', PIXELS),
        ('xr.open_dataset("image.dm4", engine="dm")["data"]', PIXELS),
    ],
    "a virtual image of another shape than the scan": [
        ("[image.shape for image in images_there(suffixed)]", [(3, 5)] * 2),
        ('xr.open_datatree(suffixed, engine="mrc")["virtual/Line"]["data"].shape', (1, 15)),
    ],
    "a file without pixels": [
        ('mrcfile.open("none.mrc").header.nx', 0),
        ('mrc_xarray.read_header("none.mrc").nx', 0),
    ],
    "arguments of other libraries": [
        ("raised('mrcz.readMRC(\"bare.mrc\", lazy=True)')", "TypeError"),
        ('raised(\'xr.open_dataset("bare.mrc", engine="mrc", lazy=True)\')', "TypeError"),
    ],
}


@pytest.mark.parametrize("topic", DIFFERENCES)
def test_intentional_differences(
    topic: str,
    folder: Path,
    names_of: Callable[[str], Names],
) -> None:
    names = names_of("RosettaSciIO: rsciio.mrc") | globals()
    for source, expected in DIFFERENCES[topic]:
        assert_same(expected, run(source, names))


def test_each_intentional_difference_is_tested() -> None:
    topics = {topic for topic, *_ in rows(SECTIONS["Intentional differences"])}
    assert topics == DIFFERENCES.keys()


def test_the_others_fail_as_the_page_says(folder: Path) -> None:
    h = rsciio.mrc.file_reader("bytes.mrc")[0]["original_metadata"]["std_header"]
    assert h["NXSTART"] == 4294967294
    assert xr.open_dataset("bytes.mrc", engine="mrc").mrc.header.nxstart == -2
    for name in ("channels.mrcz", "bare.mrc"):
        with pytest.raises((AttributeError, KeyError)):
            rsciio.mrcz.file_reader(name)


# --- the cheat sheet

SHEET = (DOCS / "howto/cheat_sheet.md").read_text(encoding="utf-8")
LIBRARIES = ("mrcfile", "RosettaSciIO", "mrcz")
# the file that the sheet calls tomogram.mrc, by row or library
OPENED = {
    "mrcfile": "volume.mrc", "RosettaSciIO": "volume.mrc", "mrcz": "plain.mrc",
    "tilt angles of mrcfile": "fei.mrc", "tilt angles of RosettaSciIO": "tilt.mrc",
    "4D scan of mrcfile": "patterns.mrc", "4D scan of RosettaSciIO": "patterns.mrc",
    "4D scan of mrcz": "twelve.mrc",
}  # fmt: skip
SHEET_CASES = [
    pytest.param(library, f"{task} of {library}", there, here, id=f"{task}-{library}")
    for task, *cells, right in rows(SHEET)
    for library, cell in zip(LIBRARIES, cells, strict=True)
    if (there := code(cell)) and (here := code(right))
]


@pytest.mark.slow
@pytest.mark.parametrize(("library", "row", "there", "here"), SHEET_CASES)
def test_the_columns_of_the_cheat_sheet_do_the_same(
    library: str,
    row: str,
    there: str,
    here: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (block,) = blocks(SHEET)
    results, files = [], []
    for side, source in (("there", there), ("here", here)):
        (tmp_path / side).mkdir()
        monkeypatch.chdir(tmp_path / side)
        shutil.copy(folder / OPENED.get(row, OPENED[library]), "tomogram.mrc")
        names: Names = {}
        exec(block, names)
        results.append(run(source, names))
        given = f"mrcz. {here}".replace("voxel_size", "pixelsize")
        read = read_by_mrcfile if library == "mrcfile" else partial(read_by_mrcz, given=given)
        files.append({path.name: read(path.name) for path in (tmp_path / side).iterdir()})
        for value in names.values():
            if isinstance(value, MrcFile):
                value.close()
    if not files[0].keys() - {"tomogram.mrc"} and '"r+"' not in there:
        assert_same(*results)
    assert_same(*files)


def test_each_cell_of_the_cheat_sheet_is_compared() -> None:
    cells = [cell for _, *cells, _ in rows(SHEET) for cell in cells if cell]
    assert len(SHEET_CASES) == len(cells) >= 30
