"""Classes and splits as folders spell them: <class>/**/file, or <split>/<class>/**/file."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mmeff.data.scan import Scan, count
from mmeff.data.split_names import split_names, split_words
from mmeff.errors import InputError

CLASSES = "(?P<label>[^/]+)/.*"


class Placed(NamedTuple):
    """A file, with the label and the split ("" where there is none) that its folders give it."""

    name: str
    label: str
    split: str
    group: str = ""


def by_folder(root: Path, found: Scan) -> list[Placed]:
    """Label and split of each file by its folders.

    The top folders are splits if all have usual names for one (`split_names`), or if train and another do and hold
    the same class folders; else they are classes. InputError, with both readings, where it could be either; a warning
    of what is left out.
    """
    parts = [name.split("/") for name in found.files]
    heads = list(dict.fromkeys(p[0] for p in parts if p[1:]))
    if not heads:
        raise InputError(f"{root.absolute()} has no class folders: put files into <class>/, or give a pattern")
    inner: dict[str, list[str]] = {head: [] for head in heads}
    for head, name in dict.fromkeys((p[0], p[1]) for p in parts if p[2:]):
        inner[head].append(name)
    flat = Counter(p[0] for p in parts if len(p) == 2)
    tops = {name.split("/")[0] for name in (*found.empty, *(place for place, _ in found.skipped))} - {""}
    splits = split_names(heads)
    said = passed_over(found, 1)
    if _are_splits(root, heads, inner, flat, splits):
        bare = [name for name in split_names(sorted(tops)) if name not in heads]
        if len(splits) == len(heads) and bare:
            raise InputError(f"{root.absolute() / bare[0]} has no files in class folders: fill it or remove it")
        _refuse_one_folder_each(root, inner, splits, parts)
        placed = [Placed("/".join(p), p[1], splits[p[0]]) for p in parts if p[0] in splits and p[2:]]
        beside = Counter(p[0] for p in parts if p[1:] and p[0] not in splits)
        said = [f"{count(n)} in {name}/, which is no split" for name, n in beside.items()]
        said += [f"{count(flat[name])} in {name}/, in no class folder" for name in splits if flat[name]]
        said += passed_over(found, 2) + [f"{name}/, which is empty" for name in found.empty if name.count("/") == 1]
        for split in ("train", "val", "test"):
            names = [f"{name}/" for name in splits if splits[name] == split]
            if len({name.casefold() for name in names}) > 1:
                warnings.warn(f"{root}: {' and '.join(names)} make up the {split} split together", stacklevel=2)
    else:
        _refuse_other_levels(root, heads, inner, flat, found.files)
        placed = [Placed("/".join(p), p[0], "") for p in parts if p[1:]]
        lost = sorted(tops.difference(heads))
        said = [f"{name}/, which gives no class: it has no file that is read" for name in lost] + said
        if like := split_words(heads):
            warnings.warn(f"{root}: read as classes, not as splits: {_listed(like)}", stacklevel=2)
    if loose := sum(len(p) == 1 for p in parts):
        said.append(f"{count(loose)} at the top, in no class folder")
    warn_of_left_out(root, said)
    return placed


def by_pattern(root: Path, found: Scan, pattern: str) -> list[Placed]:
    """Label, split and group of each file by the named groups of a regular expression."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"pattern {pattern!r} is no regular expression: {error}") from None
    if "label" not in compiled.groupindex:
        raise InputError(f"pattern {pattern!r} has no named group (?P<label>...)")
    files = found.files
    matches = [(name, match) for name in files if (match := compiled.fullmatch(name))]
    if not matches:
        raise InputError(f"pattern {pattern!r} matches none of the {len(files)} files of {root}, such as {files[0]!r}")
    said = passed_over(found, 1)
    if missed := len(files) - len(matches):
        said.insert(0, f"{missed} of {len(files)} files, which do not match the pattern")
    warn_of_left_out(root, said)
    splits = [name for name in ("val", "test", "train") if name in compiled.groupindex]
    grouped = "group" in compiled.groupindex
    placed = []
    for name, match in matches:
        if not (match["label"] or "").strip():
            raise InputError(f"{root / name}: the pattern {pattern!r} reads an empty label")
        split = next((split for split in splits if match[split] is not None), "train") if splits else ""
        placed.append(Placed(name, match["label"], split, (match["group"] or "") if grouped else ""))
    return placed


def warn_of_left_out(root: Path, said: list[str]) -> None:
    if said:
        more = [f"and {len(said) - 8} more such"] if len(said) > 8 else []
        warnings.warn(f"{root}: left out: {'; '.join([*said[:8], *more])}", stacklevel=2)


def passed_over(found: Scan, depth: int) -> list[str]:
    """What the scan passed over, by folders of one depth."""
    counts: Counter[tuple[str, str]] = Counter()
    for (place, reason), n in found.skipped.items():
        if place:  # a README or a list at the top is no example that is lost
            counts["/".join(place.split("/")[:depth]), reason] += n
    return [f"{count(n)} in {place}/: {reason}" for (place, reason), n in sorted(counts.items())]


def _are_splits(
    root: Path, heads: list[str], inner: dict[str, list[str]], flat: Counter[str], splits: dict[str, str]
) -> bool:
    if not splits:
        return False
    others = [head for head in heads if head not in splits]
    train = {name for head in splits if splits[head] == "train" for name in inner[head]}
    held_out = {name for head in splits if splits[head] != "train" for name in inner[head]}
    if not others:
        if not train | held_out:
            raise InputError(
                f"{root.absolute()}: {_listed(splits)} {'have' if len(splits) > 1 else 'has'} no class folders: put "
                f"files into {heads[0]}/<class>/; or, if the classes are so named, give pattern: '{CLASSES}'"
            )
        return True
    if train & held_out:
        return True
    below = {name for head in others for name in inner[head]}
    # Folders of classes in train/ beside something else, or a split among the classes that it holds itself.
    whole = any(len(inner[head]) > 1 and not flat[head] for head in splits if splits[head] == "train")
    if (train and held_out) or whole or (train | held_out) & ({*others} | below):
        raise InputError(
            f"{root.absolute()} can be read in two ways: {_listed(splits)} as splits, beside {_listed(others)}; or all "
            f"as classes. Say which: pattern: '{_split_pattern(splits)}', or pattern: '{CLASSES}'"
        )
    return False


def _refuse_one_folder_each(
    root: Path, inner: dict[str, list[str]], splits: dict[str, str], parts: list[list[str]]
) -> None:
    """train/train/<class>/..., train/images/<class>/..."""
    held = [inner[head] for head in splits if inner[head]]
    if all(len(names) == 1 for names in held) and any(p[0] in splits and p[3:] for p in parts):
        raise InputError(
            f"{root.absolute()}: {_listed(splits)} hold one folder each, {held[0][0]}/: there is one class. If the "
            f"classes lie below it, give pattern: '{_split_pattern(splits, '[^/]+/')}'"
        )


def _refuse_other_levels(
    root: Path, heads: list[str], inner: dict[str, list[str]], flat: Counter[str], files: list[str]
) -> None:
    """Splits or classes that lie below the top folders."""
    if len(heads) == 1:
        inside, names = "", heads
        while len(names) == 1:
            inside += f"{names[0]}/"
            rest = [name.removeprefix(inside).split("/") for name in files if name.startswith(inside)]
            names = list(dict.fromkeys(p[0] for p in rest if p[1:]))
        if names:
            raise InputError(
                f"{root.absolute()} holds one folder, {heads[0]}/, so there is one class. If the classes or splits are "
                f"{_listed(names)}, give root: {root.absolute() / inside}"
            )
    elif all(inner[head] and not flat[head] for head in heads):
        below = {name for head in heads for name in inner[head]}
        splits = split_names(sorted(below))
        if len(splits) == len(below) and "train" in splits.values():
            raise InputError(
                f"{root.absolute()}: the class folders {_listed(heads)} hold splits, {_listed(splits)}: "
                f"give pattern: '(?P<label>[^/]+)/{_alternatives(splits)}/.*'; or put splits above classes"
            )
        common = set(inner[heads[0]]).intersection(*(inner[head] for head in heads))
        deeper = all(len(names) == 1 for names in inner.values()) and any(name.count("/") > 2 for name in files)
        between = "[^/]+/" if deeper else ""
        like = split_words(heads)
        if len({*like.values()}) > 1 and "train" in like.values():
            raise InputError(
                f"{root.absolute()}: {_listed(like)} can be read as splits or as classes. Say which: "
                f"pattern: '{_split_pattern(like, between)}', or pattern: '{CLASSES}'"
            )
        if len(common) > 1 or deeper:
            held = _listed(sorted(common)) if len(common) > 1 else "one folder"
            warnings.warn(
                f"{root}: read as classes: {_listed(heads)}, yet each holds {held}: if the classes lie there, give "
                f"pattern: '[^/]+/{between}{CLASSES}'",
                stacklevel=2,
            )


def _split_pattern(splits: dict[str, str], between: str = "") -> str:
    if "train" in splits.values():
        return f"{_alternatives(splits)}/{between}{CLASSES}"
    return f"({_alternatives(splits)}/)?{between}{CLASSES}"  # what is beside the splits is train


def _alternatives(splits: dict[str, str]) -> str:
    groups = []
    for split in ("train", "val", "test"):
        if words := [re.escape(name) for name in splits if splits[name] == split]:
            groups.append(f"(?P<{split}>{'|'.join(words)})")
    return f"({'|'.join(groups)})"


def _listed(names: Iterable[str]) -> str:
    """ "a/, b/ and c/"; of many the first four."""
    shown = [f"{name}/" for name in names]
    if len(shown) > 5:
        shown = [*shown[:4], f"{len(shown) - 4} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
