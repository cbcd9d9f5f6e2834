"""Split rules: what lands where, and what cannot be split."""

from collections import Counter

import pytest

from mmeff.data import AsGiven, ByGroup, ByRatio, Examples
from mmeff.data.splits import class_names
from mmeff.errors import InputError


def examples(labels, split=None, group=None):
    return Examples(list(range(len(labels))), labels, [f"#{i}" for i in range(len(labels))], split, group)


def covers(division, n):
    return sorted(i for rows in division.values() for i in rows) == list(range(n))


def test_by_ratio_keeps_the_share_of_each_class():
    data = examples(["a"] * 80 + ["b"] * 20)
    division = ByRatio(val=0.1, test=0.2, seed=1).divide(data)
    assert covers(division, 100)
    counts = {name: Counter(data.labels[i] for i in rows) for name, rows in division.items()}
    assert counts == {"train": {"a": 56, "b": 14}, "val": {"a": 8, "b": 2}, "test": {"a": 16, "b": 4}}
    assert division == ByRatio(val=0.1, test=0.2, seed=1).divide(data)
    assert division != ByRatio(val=0.1, test=0.2, seed=2).divide(data)


def test_by_ratio_gives_a_small_class_to_test_and_keeps_one_to_train():
    data = examples(["a"] * 10 + ["b"] * 2)
    division = ByRatio(val=0.1, test=0.1).divide(data)
    assert Counter(data.labels[i] for i in division["test"])["b"] == 1
    assert Counter(data.labels[i] for i in division["train"])["b"] == 1


def test_as_given_cuts_val_from_train_alone():
    data = examples(["a", "b"] * 20, split=["train"] * 30 + ["test"] * 10)
    division = AsGiven(val=0.2).divide(data)
    assert covers(division, 40)
    assert division["test"] == list(range(30, 40))
    assert len(division["val"]) == 6 and max(division["val"]) < 30


def test_as_given_takes_all_three_and_ignores_groups():
    data = examples(["a", "b"] * 3, ["train", "train", "val", "val", "test", "test"], ["x"] * 6)
    assert AsGiven().divide(data) == {"train": [0, 1], "val": [2, 3], "test": [4, 5]}


def test_as_given_without_a_split_is_by_ratio():
    data = examples(["a", "b"] * 20)
    assert AsGiven(val=0.2, seed=4).divide(data) == ByRatio(val=0.2, seed=4).divide(data)


def test_by_group_divides_no_group():
    groups = [f"speaker {i % 7}" for i in range(70)]
    division = ByGroup(val=0.15, test=0.3, seed=0).divide(examples(["a", "b"] * 35, group=groups))
    assert covers(division, 70)
    assert {name: len(rows) for name, rows in division.items()} == {"train": 40, "val": 10, "test": 20}
    of = {name: {groups[i] for i in rows} for name, rows in division.items()}
    assert not (of["train"] & of["val"] or of["train"] & of["test"] or of["val"] & of["test"])


def test_by_group_gives_each_split_a_group_however_large():
    groups = ["x"] * 10 + ["y"] * 10 + ["z"] * 10
    division = ByGroup(val=0.01, test=0.01).divide(examples(["a", "b"] * 15, group=groups))
    assert [len(rows) for rows in division.values()] == [10, 10, 10]


def test_every_label_of_a_multilabel_split_is_trained():
    labels = [("a", "b"), ("a",), ("b",), ("a",), (), ("b", "rare"), ("a", "c"), ("c",), ("a", "b")] * 2 + [("once",)]
    data = examples(labels)
    for seed in range(20):
        division = ByRatio(0.2, 0.2, seed).divide(data)
        assert covers(division, len(labels))
        assert class_names(data, division) == ("a", "b", "c", "once", "rare")
        assert division["val"] and division["test"]


def test_classes_are_in_natural_order():
    data = examples(["10", "9", "b", "a"] * 2)
    assert class_names(data, {"train": list(range(8)), "val": [], "test": []}) == ("9", "10", "a", "b")
    large = examples(["1" + "0" * 5000, "9" * 5000, "01", "1", "0", "a"])
    assert class_names(large, {"train": list(range(6)), "val": [], "test": []}) == (
        *("0", "01", "1", "9" * 5000, "1" + "0" * 5000, "a"),
    )


@pytest.mark.parametrize(
    ("rule", "data", "message"),
    [
        (ByRatio(), examples(["a"] * 5 + ["b"]), r"class 'b' has one example \(#5\).*leave the class out"),
        (ByGroup(), examples(["a", "b"]), "needs a group"),
        (ByGroup(), examples(["a", "b"] * 4, group=["x", "y"] * 4), "2 group.*3 groups at least"),
        (AsGiven(), examples(["a", "b"], split=["test", "test"]), "train split is empty"),
        (AsGiven(), examples(["a", "b"], split=["train", "train"]), "val split is empty"),
        (ByRatio(val=0.1, test=0.1), examples(["a", "a", "b", "b"]), "val split is empty"),
    ],
)
def test_what_cannot_be_split(rule, data, message):
    with pytest.raises(InputError, match=message):
        rule.divide(data)


@pytest.mark.parametrize("arguments", [{"val": -0.1}, {"val": 0.5, "test": 0.5}])
def test_fractions_must_leave_something(arguments):
    with pytest.raises(InputError, match="fraction"):
        ByRatio(**arguments)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_that_training_never_has(split):
    data = examples(["a", "b", "new"], ["train", "train", split])
    with pytest.raises(InputError, match=f"label 'new' of #2 is in the {split} split and never in train"):
        class_names(data, AsGiven(val=0).divide(data))


def test_labels_that_differ_in_capitals_alone_are_doubted():
    data = examples(["Cat", "dog", "cat", "dog"], ["train", "train", "test", "test"])
    with pytest.raises(
        InputError, match="label 'cat' of #2 is in the test split and never in train, where it is 'Cat'"
    ):
        class_names(data, AsGiven(val=0).divide(data))
    with pytest.warns(UserWarning, match="classes 'Cat' and 'cat' differ in capitals alone"):
        class_names(examples(["Cat", "dog", "cat"]), {"train": [0, 1, 2], "val": [], "test": []})


def test_one_class_cannot_be_told_apart():
    with pytest.raises(InputError, match=r"1 class\(es\) \['a'\]"):
        class_names(examples(["a", "a"]), {"train": [0, 1], "val": [], "test": []})
