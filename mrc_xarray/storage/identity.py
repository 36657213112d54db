"""The identity of a file, which distinguishes it from another file that has taken its name.

Every file has a size and a modification time. Device and inode also distinguish two files with
the same size and time, but only on one machine, and not on every file system.
"""

from __future__ import annotations

import functools
import os
import re
from typing import NamedTuple

__all__ = ["Node", "is_another", "is_on_local_disk", "node_of"]

#: Local file systems, on which a file has the same device and inode for as long as it exists.
#: Network, FUSE and overlay file systems may renumber them.
_STABLE = frozenset(
    {
        *("apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs"),
        *("jfs", "ramfs", "reiserfs", "tmpfs", "ufs", "xfs", "zfs"),
    }
)
#: File systems whose pages come from a disk of this machine, or from its memory.
_LOCAL = _STABLE | {
    *("erofs", "exfat", "hfs", "hfsplus", "iso9660", "msdos", "nilfs2", "ntfs", "ntfs3"),
    *("overlay", "reiser4", "squashfs", "udf", "vfat"),
}
_MOUNTS = "/proc/self/mountinfo"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Node(NamedTuple):
    """The device and inode of a file, on the host where they were found.

    `host` is the boot id of the machine: it differs between hosts, and after a restart.
    """

    host: str
    device: int
    inode: int


def node_of(found: os.stat_result, path: str) -> Node | None:
    """Return the node of a file with this status and path; None if its numbers are not stable."""
    host = _host()
    if not host or _kind(found.st_dev, path) not in _STABLE:
        return None
    return Node(host, found.st_dev, found.st_ino)


def is_another(before: Node | None, now: Node | None) -> bool:
    """Return whether two nodes are known to be different files; False if that is unknown."""
    return before is not None and now is not None and before.host == now.host and before != now


def is_on_local_disk(path: str) -> bool:
    """Return whether a file is known to be on a disk of this machine; False if that is unknown."""
    try:
        return _kind(os.stat(path).st_dev, path) in _LOCAL
    except OSError:
        return False


@functools.cache
def _host() -> str:
    """Return the boot id, or an empty string if the system has none."""
    try:
        with open(_BOOT_ID) as file:
            return file.read().strip()
    except OSError:
        return ""


_kinds: dict[int, str] = {}


def _kind(device: int, path: str) -> str:
    """Return the type of the file system with a device number, on which a path is."""
    if device not in _kinds:
        _kinds[device] = _file_system(os.path.realpath(path))
    return _kinds[device]


def _file_system(path: str) -> str:
    """Return the type of the file system that a path is on, or an empty string if unknown."""
    try:
        with open(_MOUNTS, "rb") as file:
            lines = [os.fsdecode(line) for line in file]
    except OSError:
        return ""
    longest, kind = -1, ""
    for line in lines:
        # see proc(5): the mount point is the fifth field, the type follows a lone hyphen
        mount, _, file_system = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # a later mount at the same point hides an earlier one
        if inside and len(point) >= longest:
            longest, kind = len(point), file_system.split()[0]
    return kind
