"""The README's results: the part between the marks is written anew, all else stays."""

import re

import pytest
from rows import run, three_signals, timed

from mmeff.compare.readme import BEGIN, END, main, write_readme
from mmeff.errors import InputError


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# before\n\n{BEGIN}\nstale results\n{END}\n\nafter\n")
    return path


def test_results_are_written_between_the_marks_with_their_pictures(readme, tmp_path, monkeypatch, capsys):
    first = run(tmp_path / "runs/cpu", three_signals(), device="a CPU")
    second = run(tmp_path / "runs/gpu", three_signals(), device="a GPU")
    monkeypatch.chdir(tmp_path)
    assert main([str(first), str(second)]) == 0
    text = readme.read_text()
    assert text.startswith(f"# before\n\n{BEGIN}\n") and text.endswith(f"{END}\n\nafter\n") and "stale" not in text
    assert text.index("### a CPU") < text.index("### a GPU")
    assert "mmeff compare -c some.yaml" in text and "Failed: deit at 1024 px" in text
    shown = re.findall(r'<img src="(assets/compare_[^"]+)" width="49%" alt="[^"]+">', text)
    assert len(shown) == 12 and all((tmp_path / path).is_file() for path in shown)
    assert main([str(second)]) == 0
    assert "a CPU" not in readme.read_text() and not list(tmp_path.glob("assets/compare_cpu*"))
    assert main(["nowhere"]) == 2 and "no results" in capsys.readouterr().err


def test_long_tables_are_folded_the_fastest_first(readme, tmp_path):
    few = [timed(f"gla{i}", 4096, float(i + 1)) for i in range(12)]
    write_readme(readme, [run(tmp_path / "runs/cpu", few)])
    text = readme.read_text()
    assert "<details>" not in text and text.index("| gla11 |") < text.index("| gla0 |")
    write_readme(readme, [run(tmp_path / "runs/cpu", [*few, timed("vim", 4096, 99.0)])])
    text = readme.read_text()
    assert "<details><summary>All 13 at 4096 tokens, fastest in training first</summary>\n\n| length" in text
    assert text.index("| vim |") < text.index("| gla11 |")


def test_a_readme_without_its_marks_is_left_alone(readme, tmp_path):
    folder = run(tmp_path / "runs/cpu", three_signals())
    readme.write_text(f"{END}\n{BEGIN}\n")
    with pytest.raises(InputError, match=r"README.md needs the line"):
        write_readme(readme, [folder])
    assert readme.read_text() == f"{END}\n{BEGIN}\n"
    with pytest.raises(InputError, match="one name"):
        readme.write_text(f"{BEGIN}\n{END}\n")
        write_readme(readme, [folder, folder])
    with pytest.raises(InputError, match="there is no"):
        write_readme(tmp_path / "other.md", [folder])
