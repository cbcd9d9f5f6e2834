"""The HTML page: whole without a network, every row in it, and sorting, tried in a browser where there is one."""

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from rows import row, run, three_signals, timed

from mmeff.compare.report import write_report

VOID = {"meta", "link", "img", "br"}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(not BROWSER, reason="tries the page in a browser: apt-get install chromium")


class Page(HTMLParser):
    """Every element with its attributes and its text; `loads` is what a browser would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[dict] = []
        self.elements: list[dict] = []
        self.loads = re.findall(r"(?:url\(|@import|fetch\(|import\()[^;)]*", text)
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "inside": [each["tag"] for each in self.open], **dict(attrs)}
        self.elements.append(element)
        self.loads += [element[key] for key in ("src", "href", "srcset") if key in element]
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for each in self.open:
            each["text"] += data

    def all(self, tag: str, **attributes: str) -> list[dict]:
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in attributes.items())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = run(tmp_path_factory.mktemp("compared"), three_signals())
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def test_nothing_is_loaded_from_elsewhere(page):
    assert page.loads and all(each.startswith("data:") for each in page.loads)
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1


def test_it_says_where_when_and_how(page):
    facts = [element["text"] for element in page.all("dd")]
    for fact in ("a test's device", "2026-11-24T05:00:00", "torch 2.11.0, mmeff 0.1.0", "mmeff compare -c some.yaml"):
        assert fact in facts


def test_every_row_stands_in_a_table_of_its_modality(page):
    assert [each["data-signal"] for each in page.all("section") if "class" not in each] == ["image", "audio", "text"]
    names = [each["text"].split()[0] for each in page.all("th", scope="row")]
    assert len(names) == len(three_signals()) and names.count("deit") == 6
    errors = [each["text"] for each in page.all("td", **{"class": "error"})]
    assert errors.count("out of memory: 3 GiB | <all> of 2 GiB") == 3


def test_headings_are_buttons_that_say_how_they_sort(page):
    headings = page.all("th", scope="col")
    assert headings and all(each["aria-sort"] == "none" for each in headings)
    first = {each["text"]: each["data-first"] for each in headings}
    assert first["training throughputtokens/s"] == "descending"
    assert first["training memoryMiB"] == "ascending"
    assert len([e for e in page.all("button", type="button") if "th" in e["inside"]]) == len(headings)


def test_numbers_sort_by_their_value_and_missing_ones_have_none(page):
    numbers = [each for each in page.all("td") if each.get("class") not in ("missing", "error")]
    assert numbers and all(float(each["data-value"]) > 0 for each in numbers)
    missing = page.all("td", **{"class": "missing"})
    assert missing and not any("data-value" in each for each in missing)


def test_best_and_worst_are_both_marked(page):
    signs = [each["aria-label"] for each in page.all("span", role="img")]
    assert signs.count("best") == signs.count("worst") > 6


def test_plots_have_words(page, folder):
    images = page.all("img")
    assert len(images) == len(list((folder / "plots").glob("*.png"))) == 6
    assert all(each["alt"].startswith(("Accuracy against", "Training ")) for each in images)
    assert any("vim at" in each["alt"] for each in images), "a crossing is told"


def test_what_a_run_says_is_no_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    rows = [timed(evil, 512, 1.0, recipe=evil), row(evil, 1024, recipe=evil, error=evil)]
    write_report(run(tmp_path, rows, device=evil, command=evil))
    text = (tmp_path / "report.html").read_text()
    assert len(Page(text).all("script")) == 1
    assert html.escape(evil) in text


def in_browser(folder, script: str, width: int = 1280):
    """What a script returns that runs in the page at a width, as JSON."""
    show = f"""<iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe><pre></pre><script>
    document.querySelector("iframe").onload = event => {{
      const document_ = event.target.contentDocument;
      const found = (document => {{ {script} }})(document_);
      document.querySelector("pre").textContent = JSON.stringify(found);
    }};</script>"""
    (folder / "frame.html").write_text(show)
    assert BROWSER
    words = [BROWSER, "--headless", "--disable-gpu", "--allow-file-access-from-files", "--virtual-time-budget=5000"]
    words += ["--no-sandbox"] if os.geteuid() == 0 else []
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [*words, profile, "--dump-dom", (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=60
    )
    found = re.search(r"<pre>(.+?)</pre>", done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


SORT = """
const table = document.querySelector('section[data-signal="text"]:not(.card) table');
const headings = [...table.tHead.rows[0].cells];
const column = headings.findIndex(each => each.textContent.startsWith("TITLE"));
const read = () => [headings[column].getAttribute("aria-sort"),
  [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value ?? row.cells[column].textContent)];
const click = () => headings[column].querySelector("button").click();
click(); const first = read(); click(); return [first, read(), headings.filter(h => h.ariaSort !== "none").length];
"""


@needs_browser
def test_headings_sort_numbers_as_numbers_with_missing_ones_last(folder):
    (order, values), (other, reverse), marked = in_browser(folder, SORT.replace("TITLE", "training throughput"))
    assert (order, other, marked) == ("descending", "ascending", 1)
    numbers = [float(value) for value in values[:-1]]
    assert values[-1] == "-" and numbers == sorted(numbers, reverse=True) and len(numbers) == 5
    assert [float(value) for value in reverse[:-1]] == sorted(numbers) and reverse[-1] == "-"
    (order, names), _, _ = in_browser(folder, SORT.replace("TITLE", "backbone"))
    assert order == "ascending" and names == sorted(names)


@needs_browser
def test_a_filter_leaves_one_modality(folder):
    script = """document.querySelector('button[value="audio"]').click();
    return [...document.querySelectorAll("[data-signal]")].filter(e => !e.hidden).map(e => e.dataset.signal);"""
    assert in_browser(folder, script) == ["audio", "audio"]


@needs_browser
@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_page(folder, width):
    assert in_browser(folder, "return document.documentElement.scrollWidth;", width) <= width
