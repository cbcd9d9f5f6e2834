"""metrics.csv outlives a kill while it is rewritten, and rows that are damaged."""

import os

import pytest

from mmeff.cli import curves
from mmeff.cli.curves import Table, rows

HEADER = b"epoch,lr,step,train/loss\n"


def test_a_damaged_row_costs_itself_alone(tmp_path):
    path = tmp_path / "metrics.csv"
    good = [b"0,,%d,0.5\n" % step for step in range(4)]
    bad = [
        b"0,,1\n",  # fields are missing
        b"0,,1,0.5,7\n",
        b"0,\xff,1,0.5\n",
        b"0,\0,1,0.5\n",
        b"0,,one,0.5\n",
        b"0,,,0.5\n",
        b'0,"x,1,0.5\n',  # an open quotation mark takes no other row with it
        b"\xef\xbb\xbf0,,1,0.5\n",
        "0,,1,\u2028\n".encode(),
        b"0,,1,0." + b"9" * 200_000 + b"x\n",
    ]
    path.write_bytes(HEADER + b"".join(g + b for g, b in zip(good, [b"".join(bad), b"\n", b"\r\n", b""], strict=True)))
    found, damaged = rows(path, 3)
    assert [row["step"] for row in found] == ["0", "1", "2"]
    assert found[0] == {"epoch": "0", "step": "0", "train/loss": "0.5"}
    assert damaged == len(bad)
    path.write_bytes(HEADER + good[0] + b"0,,1,0.")  # cut in the last number
    assert (len(rows(path)[0]), rows(path)[1]) == (1, 1)
    for header in (b"", b"\xff,step\n", b"epoch,lr\n", b"step,step\n", b"\0\0\0"):
        path.write_bytes(header + (good[0] if header else b""))
        assert rows(path)[0] == []


def test_the_table_on_disk_is_whole_at_every_moment(tmp_path, monkeypatch, capsys):
    path = tmp_path / "metrics.csv"
    path.write_bytes(HEADER + b"0,,0,0.5\n0,,1,\xff\n0,,2,0.25\n0,,3,0.125\n")
    before = path.read_bytes()
    monkeypatch.setattr(curves, "read_checkpoint", lambda _: {"global_step": 3})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            curves.loggers(tmp_path, "last.ckpt")
    assert path.read_bytes() == before

    table = curves.loggers(tmp_path, "last.ckpt")[0]
    assert "metrics.csv: 1 row is damaged and left out of the curves" in capsys.readouterr().out
    assert isinstance(table, Table)
    assert [row["step"] for row in rows(path)[0]] == ["0", "2"]
    table.log_metrics({"val/loss": 1.0}, step=3)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            table.save()  # a new column
    assert path.read_bytes() == before
    table.save()
    assert [row["step"] for row in rows(path)[0]] == ["0", "2", "3"]
    assert not list(tmp_path.glob("*.part"))
