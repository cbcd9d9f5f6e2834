"""A page of results: the part between the marks is written anew, all else stays."""

import re

import pytest
from rows import run, three_signals, timed

from mmeff.cli import main
from mmeff.compare.publish import BEGIN, END, publish
from mmeff.errors import InputError


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "page/README.md"
    path.parent.mkdir()
    path.write_text(f"# before\n\n{BEGIN}\nstale results\n{END}\n\nafter\n")
    return path


def test_results_are_written_between_the_marks_with_their_pictures(readme, tmp_path, monkeypatch, capsys):
    first = run(tmp_path / "runs/cpu", three_signals(), device="a CPU")
    second = run(tmp_path / "runs/gpu", three_signals(), device="a GPU")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--publish", "page", str(first), str(second)]) == 0
    text = readme.read_text()
    assert text.startswith(f"# before\n\n{BEGIN}\n") and text.endswith(f"{END}\n\nafter\n") and "stale" not in text
    assert text.index("### a CPU") < text.index("### a GPU")
    assert "mmeff compare -c some.yaml" in text and "Failed: deit at 1024 px" in text
    shown = re.findall(r'<img src="(compare_[^"]+)" width="49%" alt="[^"]{5,120}">', text)
    assert len(shown) == 12 and all((readme.parent / path).is_file() for path in shown)
    assert main(["compare", "--publish", "page", str(second)]) == 0
    assert "a CPU" not in readme.read_text() and not list(readme.parent.glob("compare_cpu*"))
    assert main(["compare", "--publish", "page", "nowhere"]) == 2 and "no results" in capsys.readouterr().err


def test_long_tables_are_folded_the_fastest_first(readme, tmp_path):
    few = [timed(f"gla{i}", 4096, float(i + 1)) for i in range(12)]
    publish(readme.parent, [run(tmp_path / "runs/cpu", few)])
    text = readme.read_text()
    assert "<details>" not in text and text.index("| gla11 |") < text.index("| gla0 |")
    publish(readme.parent, [run(tmp_path / "runs/cpu", [*few, timed("vim", 4096, 99.0)])])
    text = readme.read_text()
    assert "<details><summary>All 13 at 4096 tokens, fastest in training first</summary>\n\n| length" in text
    assert text.index("| vim |") < text.index("| gla11 |")


def test_a_readme_without_its_marks_is_left_alone(readme, tmp_path):
    folder = run(tmp_path / "runs/cpu", three_signals())
    readme.write_text(f"{END}\n{BEGIN}\n")
    with pytest.raises(InputError, match=r"README.md needs the line"):
        publish(readme.parent, [folder])
    assert readme.read_text() == f"{END}\n{BEGIN}\n"
    with pytest.raises(InputError, match="one name"):
        readme.write_text(f"{BEGIN}\n{END}\n")
        publish(readme.parent, [folder, folder])
    publish(tmp_path / "new", [folder])
    assert (tmp_path / "new/README.md").read_text().startswith(f"# Results\n\n{BEGIN}\n")
