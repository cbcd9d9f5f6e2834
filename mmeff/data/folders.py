"""Folders of files: a folder a class, or names that a pattern reads."""

import os
import re
import warnings
from pathlib import Path

from mmeff.data.examples import Examples, Source
from mmeff.data.splits import SPLITS
from mmeff.errors import InputError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aif", ".aiff", ".au")


class ImageFolder(Source):
    """Images under `root`: `<class>/**/x.png`, or `train/<class>/...` beside `val/` (`valid/`) and `test/`.

    Args:
        root: The folder. Hidden files, and files outside a class folder, are left out.
        pattern: Regular expression that the path of a file relative to `root` must match in full, instead of class
            folders. Named groups: `label` (required), `group`, and `train`, `val` or `test`, of which the one that
            takes part in the match gives the split (none does: train).
    """

    def __init__(self, root: str, pattern: str | None = None):
        self.root, self.pattern = root, pattern

    def examples(self) -> Examples:
        return _examples(self.root, IMAGES, self.pattern)


class AudioFolder(Source):
    r"""Sounds under `root`: `<class>/**/x.wav`, or `train/<class>/...` beside `val/` (`valid/`) and `test/`.

    Args:
        root: The folder. Hidden files, and files outside a class folder, are left out.
        pattern: Regular expression that the path of a file relative to `root` must match in full, instead of class
            folders. Named groups: `label` (required), `group`, and `train`, `val` or `test`, of which the one that
            takes part in the match gives the split (none does: train). `<digit>_<speaker>_<take>.flac`, tested on
            takes 0 to 4: `(?P<label>\d)_(?P<group>[a-z]+)_((?P<test>[0-4])|\d+)\.flac`.
    """

    def __init__(self, root: str, pattern: str | None = None):
        self.root, self.pattern = root, pattern

    def examples(self) -> Examples:
        return _examples(self.root, SOUNDS, self.pattern)


def folder(root: str) -> Path:
    """root as a path. InputError if it is no folder."""
    path = Path(root).expanduser()
    if not path.is_dir():
        raise InputError(
            f"{path.absolute()} is {'not a folder' if path.exists() else 'not found'}: give `root` a folder"
        )
    return path


def list_files(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Paths relative to root, with "/", sorted. One scan of each folder, no stat of a file. InputError if none."""
    found = []
    for path, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(path, root).replace(os.sep, "/")
        prefix = "" if relative == "." else relative + "/"
        found += [prefix + name for name in files if name.lower().endswith(suffixes) and not name.startswith(".")]
    if not found:
        raise InputError(f"{root.absolute()} holds no file that ends in {' '.join(suffixes)}")
    return sorted(found)


def _examples(root: str, suffixes: tuple[str, ...], pattern: str | None) -> Examples:
    base = folder(root)
    files = list_files(base, suffixes)
    found = _by_folder(base, files) if pattern is None else _by_pattern(base, files, pattern)
    found.items = [f"{base}/{name}" for name in found.ids]
    return found


def _by_folder(root: Path, files: list[str]) -> Examples:
    parts = [name.split("/") for name in files]
    heads = {head for head, *rest in parts if len(rest) > 1}
    empty = [name for name in SPLITS if name not in heads and (root / name).is_dir()]
    if empty and heads and heads <= set(SPLITS):
        raise InputError(f"{root.absolute() / empty[0]} has no files in class folders: fill it or remove it")
    named = {SPLITS[head] for head in heads if head in SPLITS}
    # A class may be called "train" (among "bus" and "car"); with a sister split or nothing beside it, it is a split.
    has_splits = "train" in named and (len(named) > 1 or len(heads) == 1)
    if has_splits:
        kept = [(name, SPLITS[p[0]], p[1]) for name, p in zip(files, parts, strict=True) if p[0] in SPLITS and p[2:]]
    else:
        kept = [(name, "", p[0]) for name, p in zip(files, parts, strict=True) if p[1:]]
    if not kept:
        raise InputError(f"{root.absolute()} has no class folders: put files into <class>/, or give a pattern")
    return Examples(
        items=[],
        ids=[name for name, _, _ in kept],
        labels=[label for _, _, label in kept],
        split=[split for _, split, _ in kept] if has_splits else None,
    )


def _by_pattern(root: Path, files: list[str], pattern: str) -> Examples:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"pattern {pattern!r} is no regular expression: {error}") from None
    if "label" not in compiled.groupindex:
        raise InputError(f"pattern {pattern!r} has no named group (?P<label>...)")
    matches = [(name, match) for name in files if (match := compiled.fullmatch(name))]
    if not matches:
        raise InputError(f"pattern {pattern!r} matches none of the {len(files)} files of {root}, such as {files[0]!r}")
    if len(matches) < len(files):
        missed = len(files) - len(matches)
        warnings.warn(f"{missed} of {len(files)} files of {root} do not match the pattern: left out", stacklevel=2)
    splits = [name for name in ("val", "test", "train") if name in compiled.groupindex]
    grouped = "group" in compiled.groupindex
    for name, match in matches:
        if not match["label"]:
            raise InputError(f"{root / name}: the pattern {pattern!r} reads an empty label")
    return Examples(
        items=[],
        ids=[name for name, _ in matches],
        labels=[match["label"] for _, match in matches],
        split=[next((s for s in splits if match[s] is not None), "train") for _, match in matches] if splits else None,
        group=[match["group"] or "" for _, match in matches] if grouped else None,
    )
