"""What a checkpoint says of its data is what a data module could have said, or an error that names the key."""

import pytest

from mmeff.errors import InputError
from mmeff.signals import DataSpec

IMAGE = {"modality": "image", "classes": ["cat", "dog"], "multilabel": False}
IMAGE["preprocessing"] = {"size": [16, 24], "channels": 3}
AUDIO = {"modality": "audio", "classes": ("a", "b"), "preprocessing": {"sample_rate": 8000, "samples": 100}}


@pytest.mark.parametrize("values", [IMAGE, AUDIO, {"modality": "text", "classes": ["one"]}])
def test_a_spec_survives_its_plain_values(values):
    spec = DataSpec.from_dict(values)
    assert DataSpec.from_dict(spec.to_dict()) == spec and spec.classes == tuple(values["classes"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        *(
            ({"modality": value}, "one.modality: it must be one of audio, image")
            for value in ("video", None, 7, ["image"])
        ),
        *(({"classes": value}, "one.classes: ") for value in (None, "catdog", [], {}, 5, ["cat", "dog", "cat"])),
        *(({"classes": [value, "b"]}, r"one.classes\[0\]: ") for value in (1, None, ["cat"], "x" * 10**6)),
        *(({"multilabel": value}, "one.multilabel: ") for value in ("yes", 1, None)),
        *(({"preprocessing": value}, "one.preprocessing: ") for value in (None, {}, [1], "x", {"size": [8, 8]})),
        ({"preprocessing": {**IMAGE["preprocessing"], "path": "/etc/passwd"}}, "one.preprocessing: "),
        ({"modality": "audio"}, "one.preprocessing: for audio it must be a mapping of sample_rate and samples"),
        ({"modality": "text"}, "one.preprocessing: for text it must be a mapping of no keys"),
        ({"more": 1}, "one: it must be a mapping of modality, classes, multilabel, preprocessing"),
    ],
)
def test_other_values_are_named(change, key):
    with pytest.raises(InputError, match=f"does not say what its data are: {key}") as error:
        DataSpec.from_dict({**IMAGE, **change}, "one")
    assert len(str(error.value)) < 300 and str(error.value).isprintable()


@pytest.mark.parametrize("size", [16, [16], [0, 16], [-1, 16], [16.0, 16], [True, 16], ["16", 16], [10**5] * 2, None])
def test_sizes_that_no_image_has(size):
    with pytest.raises(InputError, match=r"data\.preprocessing\.size: "):
        DataSpec.from_dict({**IMAGE, "preprocessing": {"size": size, "channels": 3}})


@pytest.mark.parametrize(
    ("key", "value"),
    [("sample_rate", v) for v in (0, -1, "8000", 8e3, 10**12, None)] + [("samples", v) for v in (0, -5, 1.5, 10**18)],
)
def test_sounds_that_cannot_be(key, value):
    with pytest.raises(InputError, match=f"data.preprocessing.{key}: "):
        DataSpec.from_dict({**AUDIO, "preprocessing": {**AUDIO["preprocessing"], key: value}})


@pytest.mark.parametrize("name", ["", "../../x", "a.b", "a\\b", "a\nb", "x" * 101, 7, None])
def test_tasks_name_modules_and_files(name):
    with pytest.raises(InputError, match="specs: a task has a name"):
        DataSpec.from_dicts({name: IMAGE})


@pytest.mark.parametrize("values", [None, {}, [IMAGE], "image"])
def test_there_is_a_task(values):
    with pytest.raises(InputError, match="specs: it must be a mapping of tasks"):
        DataSpec.from_dicts(values)
