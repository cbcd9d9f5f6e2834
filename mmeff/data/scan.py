"""The files below a folder: each once, with what was passed over."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mmeff.errors import InputError


@dataclass
class Scan:
    """What lies below a folder.

    start    the folder's real path
    files    paths relative to the folder, with "/", sorted
    empty    folders that hold nothing at all, likewise
    skipped  files that were passed over, by their folder (its first two parts; "" is the first itself) and the
             reason, as ".heic is not read"
    real     of the files that symbolic links lead to, the paths they really have
    """

    start: str
    files: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    real: dict[str, str] = field(default_factory=dict)


def folder(root: str | os.PathLike[str]) -> Path:
    """root as a path. InputError if it is no folder."""
    path = Path(root).expanduser()
    if not path.is_dir():
        raise InputError(
            f"{path.absolute()} is {'not a folder' if path.exists() else 'not found'}: give `root` a folder"
        )
    return path


def scan(root: Path, suffixes: tuple[str, ...]) -> Scan:
    """The files below root that end in one of the suffixes; hidden ones (.name, __MACOSX) are left out.

    Symbolic links are followed, but never back into a folder above. One scan of each folder, no stat of a file.
    InputError if there is none, or if a folder cannot be read.
    """
    start = os.path.realpath(root)
    found = Scan(start)
    seen: set[tuple[str, str]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (start,))]
    while waiting:
        prefix, chain = waiting.pop()
        # A folder that several links lead to is read once for each place that can decide a class or a split.
        real, place = chain[-1], "/".join(prefix.split("/")[:2]).rstrip("/")
        if any(f"{above}/".startswith(f"{real.rstrip('/')}/") for above in chain[:-1]) or (place, real) in seen:
            found.skipped[place, "a link to a folder that is read already"] += 1
            continue
        seen.add((place, real))
        entries = _entries(root / prefix)
        if not entries and prefix:
            found.empty.append(prefix.rstrip("/"))
        linked = real != os.path.normpath(os.path.join(start, prefix))
        inner = []
        for entry, is_folder, is_file in entries:
            name = prefix + entry.name
            if is_folder:
                inner.append((f"{name}/", (*chain, _real(entry, real))))
            elif not entry.name.lower().endswith(suffixes):
                suffix = os.path.splitext(entry.name)[1].lower()
                found.skipped[place, f"{suffix} is not read" if suffix else "a name without a suffix"] += 1
            elif not is_file:
                found.skipped[place, "a link that leads nowhere" if entry.is_symlink() else "not a regular file"] += 1
            else:
                found.files.append(name)
                if linked or entry.is_symlink():
                    found.real[name] = _real(entry, real)
        waiting += reversed(inner)
    if not found.files:
        others = Counter(reason for (_, reason), n in found.skipped.items() for _ in range(n)).most_common(3)
        there = "; ".join(f"{count(n)}: {reason}" for reason, n in others)
        raise InputError(
            f"{root.absolute()} holds no file that ends in {' '.join(suffixes[:5])}"
            f"{' ...' if suffixes[5:] else ''}{f' ({there})' if there else ''}"
        )
    found.files.sort()
    return found


def _entries(path: Path) -> list[tuple[os.DirEntry[str], bool, bool]]:
    """(entry, whether it is a folder, whether it is a file) of what is not hidden, links last."""
    try:
        with os.scandir(path) as scanned:
            entries = [entry for entry in scanned if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give yourself the right, or take it out") from None
    found = []
    for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
        try:
            found.append((entry, entry.is_dir(), entry.is_file()))
        except OSError:  # a link to itself
            found.append((entry, False, False))
    return found


def _real(entry: os.DirEntry[str], real: str) -> str:
    """The real path of an entry of the folder `real`."""
    return os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)


def count(n: int) -> str:
    """ "1 file", "2 files"."""
    return "1 file" if n == 1 else f"{n} files"
