"""Files before they are decoded: whether there is something to read."""

import os
import stat
from typing import Any

from mmeff.errors import InputError, spelled


def check_file(path: str | os.PathLike[Any]) -> os.stat_result:
    """Size and times of a regular file that has bytes. InputError for all else: opening a pipe waits for its writer."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{spelled(path)} is not found") from None
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long, NUL in a name
        raise InputError(f"{spelled(path)} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{spelled(path)} is a folder, not a file: give the files in it")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{spelled(path)} is not a regular file but a pipe, a socket or a device: copy it into a file")
    if not found.st_size:
        raise InputError(f"{spelled(path)} is empty: it has no bytes. Replace it or take it out")
    return found


def unreadable(path: str | os.PathLike[Any], kind: str, error: BaseException | str) -> InputError:
    """Says that a file is no image or sound that can be read, and the decoder's reason."""
    if isinstance(error, OSError) and error.strerror:
        error = error.strerror  # without the path
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return InputError(f"{spelled(path)} is not {kind} that can be read: {reason}. Replace it or take it out")
