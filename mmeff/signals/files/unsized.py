"""Sound files that do not say how long they are, since their writer could not go back to the header."""

import io
import os
import zlib
from typing import Any


def mp3_counts(path: str | os.PathLike[Any]) -> bool:
    """Whether the first frame of an MP3 counts its frames (Xing, Info or VBRI). Where none does, decoders guess."""
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            file.seek(10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:10])))
        else:
            file.seek(0)
        head = file.read(4096)
    for tag, place in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
        if (at := head.find(tag)) >= 0:
            return any(head[at + place : at + place + 4]) and (tag == b"VBRI" or bool(head[at + 7] & 1))
    return False


def sized(data: bytes) -> io.BytesIO:
    """The file, made to say that it goes on to its end: libsndfile reads no further than a header says."""
    if data[:4] == b".snd":  # AU
        data = data[:8] + b"\xff" * 4 + data[12:]
    elif data[:4] in (b"RIFF", b"RF64", b"RIFX") and data[8:12] == b"WAVE":
        name = data[:4].replace(b"RF64", b"RIFF")
        data = _with_data_size(name + data[4:], 12, 4, "big" if name == b"RIFX" else "little")
    elif data[:4] == b"caff":
        data = _with_data_size(data, 8, 8, "big")
    elif data[:4] == b"OggS":
        data += _end_of_ogg(data)
    elif data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0"):  # MP3
        return _OpenEnded(data)
    return io.BytesIO(data)


def _with_data_size(data: bytes, at: int, width: int, order: Any) -> bytes:
    """Chunks of a name of 4 bytes and a size of `width` bytes: that of "data" is set to all that follows."""
    sound = None
    while at + 4 + width <= len(data):
        name, body = data[at : at + 4], at + 4 + width
        if sound is None and name == b"data":
            sound = body
        elif not name.isascii() or not name.decode("ascii").isprintable():
            break
        size = int.from_bytes(data[body - width : body], order)
        at = body + size + (size % 2 if width == 4 else 0)
    # Where the chunks fill the file, the header is right.
    if sound is None or at == len(data):
        return data
    return data[: sound - width] + (len(data) - sound).to_bytes(width, order) + data[sound:]


def _end_of_ogg(data: bytes) -> bytes:
    """A last page without sound, which says that 2^40 samples came before it (RFC 3533, section 6)."""
    last = data.rfind(b"OggS")
    stream, number = data[last + 14 : last + 18], int.from_bytes(data[last + 18 : last + 22], "little")
    head = b"OggS\0\4" + (2**40).to_bytes(8, "little") + stream + ((number + 1) % 2**32).to_bytes(4, "little")
    # Ogg's checksum is zlib's with the bits of all bytes in the opposite order, and nothing inverted.
    mirrored = bytes(_mirrored(byte, 8) for byte in head + bytes(5))
    checksum = _mirrored(zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF, 32)
    return head + checksum.to_bytes(4, "little") + b"\0"


def _mirrored(number: int, bits: int) -> int:
    return int(f"{number:0{bits}b}"[::-1], 2)


class _OpenEnded(io.BytesIO):
    """Bytes that claim 32 times their number: a guess by the first frame's rate falls short where later ones are rich.

    Zeros stand at the claimed end, where decoders look for tags, and nothing before.
    """

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(offset + 32 * self.getbuffer().nbytes) if whence == 2 else super().seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        if self.tell() < 31 * self.getbuffer().nbytes:
            return super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        super().seek(len(view), os.SEEK_CUR)
        return len(view)
