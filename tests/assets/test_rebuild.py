"""assets/rebuild.py: how it reads its sources and divides them, on samples of a few lines."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="module")
def rebuild():
    path = Path(__file__).parents[2] / "assets" / "rebuild.py"
    spec = importlib.util.spec_from_file_location("rebuild", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("ㄇㄚ", ("ㄇㄚ", 1, "m")),
        ("ㄓㄨㄤ4", ("ㄓㄨㄤ", 4, "zh")),
        ("ㄙ3", ("ㄙ", 3, "s")),
        ("ㄩㄢ2", ("ㄩㄢ", 2, "none")),
        ("ㄉㄜ1", None),
    ],
)
def test_syllable(rebuild, folder, expected):
    assert rebuild.syllable(folder) == expected


def test_every_initial_is_in_every_split(rebuild):
    initials = {f"{initial}{i}": initial for initial in "abc" for i in range(10)}
    split = rebuild.split_syllables(initials)
    assert split.keys() == initials.keys()
    for initial in "abc":
        splits = sorted(split[base] for base in initials if initials[base] == initial)
        assert splits == ["test"] * 2 + ["train"] * 7 + ["val"]


def noun(offset: int, domain: str, gloss: str) -> str:
    return f"{offset:08d} {domain} n 01 word 0 001 @ 00001740 n 0000 | {gloss}  "


def test_parse_nouns(rebuild):
    lines = [
        "  1 This software and database is being provided to you | the licensee",
        noun(1, "05", 'a small animal that barks; "the dog barked"; "a lap dog"'),
        noun(2, "05", "a small animal that barks"),
        noun(3, "20", "a tall plant; used as timber"),
        noun(4, "20", "too short"),
        noun(5, "03", "that which is perceived to exist"),
        noun(6, "04", "the same words in two domains"),
        noun(7, "26", "the same words in two domains"),
    ]
    assert rebuild.parse_nouns(lines) == {
        "a small animal that barks": ("animal", "00000001"),
        "a tall plant; used as timber": ("plant", "00000003"),
    }


def test_sample_glosses(rebuild):
    nouns = {f"{domain} {i}": (domain, f"{i:08d}") for domain in ("act", "food") for i in range(30)}
    rows = rebuild.sample_glosses(nouns, each=20)
    assert len({text for *_, text in rows}) == len(rows) == 40
    for domain in ("act", "food"):
        splits = [split for split, d, *_ in rows if d == domain]
        assert [splits.count(s) for s in ("train", "val", "test")] == [16, 2, 2]
    assert all(nouns[text] == (domain, offset) for _, domain, offset, text in rows)


def test_mosaic_keeps_every_image_in_the_rows_of_its_digit(rebuild):
    labels = np.arange(5000) % 10
    images = np.zeros((5000, 28, 28), np.uint8)
    images[:, 3, 5] = labels + 1
    images[:, 0, 0], images[:, 0, 1] = np.arange(5000) // 250, np.arange(5000) % 250
    mosaic = rebuild.mosaic(images, labels)
    assert mosaic.shape == (2800, 1400)
    assert (mosaic[3::28, 5::28] == np.repeat(np.arange(1, 11), 10)[:, None]).all()
    assert set((mosaic[::28, ::28].astype(int) * 250 + mosaic[::28, 1::28]).flat) == set(range(5000))


def test_encoded_clips_are_found_again_where_they_were_put(rebuild):
    time = np.arange(4000) / rebuild.RATE
    clips = [(9000 * np.hanning(4000) * np.sin(2 * np.pi * f * time)).astype(np.int16) for f in (220, 330, 550, 880)]
    wave = np.concatenate(clips)
    ogg = rebuild.encode(wave)
    assert ogg == rebuild.encode(wave)
    assert rebuild.check_sound(ogg, clips) > 0.98
    with pytest.raises(SystemExit, match="correlates only"):
        rebuild.check_sound(ogg, clips[::-1])
    with pytest.raises(SystemExit, match="decodes to 16000 samples, not 12000"):
        rebuild.check_sound(ogg, clips[:3])


def test_renumber_writes_the_checksums_that_the_encoder_would(rebuild):
    ogg = io.BytesIO()
    soundfile.write(ogg, np.zeros(4000), rebuild.RATE, format="OGG", subtype="VORBIS")
    serial = int.from_bytes(ogg.getvalue()[14:18], "little")
    assert rebuild.renumber(ogg.getvalue(), serial) == ogg.getvalue()
    assert rebuild.renumber(ogg.getvalue(), serial ^ 1) != ogg.getvalue()


@pytest.mark.parametrize("tone", [1, 3])
def test_clip_length_does_not_tell_the_tone(rebuild, tone):
    seconds = 0.324 if tone == 3 else 0.294
    ogg = io.BytesIO()
    soundfile.write(ogg, np.full(round(44100 * seconds), 0.5), 44100, format="OGG", subtype="VORBIS")
    wave = rebuild.clip(ogg.getvalue(), tone)
    assert wave.dtype == np.int16
    assert abs(len(wave) / rebuild.RATE - 0.264) < 1e-3
    assert abs(wave[2000] / 32767 - 0.5) < 0.05
    assert wave[-1] == 0


def test_fetch_names_what_is_missing_or_damaged(rebuild, tmp_path):
    package = next(iter(rebuild.PACKAGES))
    with pytest.raises(SystemExit, match="is missing"):
        rebuild.fetch(package, tmp_path, download=False)
    (tmp_path / package).write_bytes(b"damaged")
    with pytest.raises(SystemExit, match="download it again"):
        rebuild.fetch(package, tmp_path, download=False)
