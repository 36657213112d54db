"""A file as it opens before and after a change of its header, and whether the change does harm."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.mrc.checks import check
from mrc_xarray.mrc.header import IMOD_STAMP, Header
from mrc_xarray.mrc.reading import MrcFile, inspect, problems_of
from mrc_xarray.mrc.recognition import refuse_foreign
from mrc_xarray.writing.live import LiveFile

__all__ = ["Examined"]

# fields that are changed to change the layout
_OF_LAYOUT = {"nx", "ny", "nz", "mx", "my", "mz", "ispg"}
# fields that are not changed to change what a pixel is
_NOT_OF_PIXELS = {"label", "nlabl", "dmin", "dmax", "dmean", "rms"}
# fields that say where the pixels are
_OF_SIZE = {"nx", "ny", "nz", "mode", "nsymbt"}


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A file with some header: how it opens, or why it does not."""

    name: str
    header: Header
    file: MrcFile | None
    error: MrcError | None
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, live: LiveFile) -> Examined:
        """Read everything but the pixels; raise MrcError if the file certainly isn't MRC."""
        refuse_foreign(live.name, live.head)
        header, file, error = live.header, None, None
        try:
            file = inspect(live)
        except MrcError as found:
            error = found
        problems = problems_of(live, live.head, header) if file is None else file.problems
        return cls(name=live.name, header=header, file=file, error=error, problems=tuple(problems))

    def opened(self) -> MrcFile:
        """Return how the file opens; raise MrcError if it does not."""
        if self.error is not None:
            raise self.error
        assert self.file is not None
        return self.file

    def check_no_worse(self, after: Examined, names: Set[str]) -> None:
        """Raise MrcError if a change of the fields `names` does harm.

        It does if the file no longer opens, or with a new problem, or with another layout or other
        pixels though none of the fields says what they are. A file that does not open may be
        repaired in several steps, but those that say where its pixels are have to be the last one.
        """
        if after.file is None:
            if self.file is not None or names & _OF_SIZE or not _is_marked(after.header):
                after.opened()
        elif self.file is None:
            return
        known = self._found(*self.problems, *check(self.header))
        if new := after._found(*after.problems) - known:
            raise MrcError("; ".join(sorted(new)))
        if self.file is not None and after.file is not None:
            _check_layout(self.file, after.file, names)
            _check_pixels(self.file, after.file, names)

    def _found(self, *problems: Problem) -> set[str]:
        """Return what is wrong with a file, without what to do about it."""
        return {p.message(self.name).removesuffix(p.action).rstrip() for p in problems}


def _is_marked(header: Header) -> bool:
    """Return whether anything in a header says that it is one."""
    has_axes = sorted((header.mapc, header.mapr, header.maps)) == [1, 2, 3]
    return has_axes or not header.is_old_style


def _check_layout(before: MrcFile, after: MrcFile, names: Set[str]) -> None:
    """Raise MrcError if the layout changes unintentionally."""
    old, new = before.layout, after.layout
    # CELLA.z says what a single section is
    if old.kind != new.kind and not names & _OF_LAYOUT and after.header.nz > 1:
        raise MrcError(
            f"{after.name}: the file would open as {new.kind} ({new.rule}) instead of "
            f"{old.kind} ({old.rule}). layout= in the same call says what it is"
        )


def _check_pixels(before: MrcFile, after: MrcFile, names: Set[str]) -> None:
    """Raise MrcError if the type of the pixels changes unintentionally."""
    if before.sections.mode != after.sections.mode and names <= _NOT_OF_PIXELS:
        raise MrcError(
            f"{after.name}: the pixels would open as {after.sections.mode.decoded_name} "
            f"({after.arranged.mode0}) instead of {before.sections.mode.decoded_name} "
            f"({before.arranged.mode0}). imod_stamp={IMOD_STAMP} in the same call says what they "
            "are, with imod_flags=4 for unsigned bytes, 5 for signed ones, and 20 for two pixels "
            "in each byte"
        )
