"""The HTML report: read as a browser would, without one."""

import base64
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchmetrics", reason="measuring needs mobile-bilayer[evaluation]")
pytest.importorskip("jinja2", reason="reports need mobile-bilayer[evaluation]")

from mobile_bilayer.capture.images import AI_GENERATED, DIGITAL_SOURCE_TYPE
from mobile_bilayer.evaluation import report
from mobile_bilayer.evaluation.fidelity import evaluate_fidelity
from mobile_bilayer.evaluation.report import Gallery, write_report

NAMES = {"a": "anna", "b <script>alert(1)": "ben"}
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Every element's attributes, and the tables' rows; refuses elements that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self._open[-2:]) and "small" not in self._open:
            self.tables[-1][-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def black(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.full((len(batch["points"]), 3, 256, 256), -1.0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, write_clip):
    """Two clips, and pictures of them."""
    if not os.environ.get("MOBILE_BILAYER_MODELS"):
        pytest.skip("MOBILE_BILAYER_MODELS names no folder with the models")
    folder = tmp_path_factory.mktemp("report")
    for place, (name, identity) in enumerate(NAMES.items()):
        path = write_clip(folder / f"{place}.safetensors", identity, count=4)
        path.rename(folder / f"{name}.safetensors")
    gallery = Gallery()
    result = evaluate_fidelity(folder, {"black & void": black}, targets=2, quick=True, frames=3, on_clip=gallery)
    return result, gallery


@pytest.fixture(scope="module")
def made(tmp_path_factory, measured):
    """The measurement and its report."""
    path = tmp_path_factory.mktemp("made") / "report.html"
    write_report(path, *measured, {"black & void": "made by <nobody>"})
    assert list(path.parent.iterdir()) == [path]  # nothing is left aside
    return measured[0], path.read_text("utf-8")


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/webp;base64,([A-Za-z0-9+/=]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_one_file_holds_everything_and_asks_no_network(made):
    _, html = made
    page = Page(html)
    assert not page.all("link") and not page.all("iframe")
    assert all("src" not in script for script in page.all("script"))
    assert page.all("img") and all(image["src"].startswith("data:image/webp;base64,") for image in page.all("img"))
    assert all(anchor["href"].startswith("#") for anchor in page.all("a"))
    places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {anchor["href"][1:] for anchor in page.all("a")} <= places
    assert "@import" not in html and "url(" not in html


def test_it_says_that_it_is_ai_generated_and_so_does_each_picture(made):
    _, html = made
    meta = {m.get("name") or m.get("property"): m.get("content") for m in Page(html).all("meta")}
    assert meta["description"] == AI_GENERATED and meta["Iptc4xmpExt:DigitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert "<strong>AI-generated.</strong>" in html
    assert len(pictures(html)) == 4
    for image in pictures(html):
        assert image.getexif()[270] == AI_GENERATED and DIGITAL_SOURCE_TYPE.encode() in image.info["xmp"]


def test_the_summary_has_every_number_and_marks_the_best(made):
    result, html = made
    page = Page(html)
    (head, *rows), (steady, *moving), (beside, *differences) = page.tables[:3]
    methods = ["static photo", "landmark warp", "black & void"]
    assert head == ["method", "L1 ↓", "mouth, eyes ↓", "LPIPS ↓", "SSIM ↑", "PSNR dB ↑"]
    assert steady == ["method", "flicker ↓", "clip flicker"]
    assert [row[0] for row in rows] == methods and [row[0] for row in moving] == ["real frames", *methods]
    for row, more, method in zip(rows, moving[1:], methods, strict=True):
        numbers = [float(text) for text in row[1:] + more[1:]]
        assert numbers == pytest.approx([result.table[method][name] for name in result.metrics], abs=6e-3)
    assert moving[0][1] == "–" and float(moving[0][2]) == pytest.approx(result.real["clip_flicker"], abs=6e-3)
    assert beside == [*head, "flicker ↓"] and [row[0] for row in differences] == ["black & void"]
    for text, (name, mean) in zip(differences[0][1:], ((k, d[0]) for k, d in result.beside["landmark warp"]["black & void"].items()), strict=True):
        assert text[0] in "+-" and float(text) == pytest.approx(mean, abs=6e-3), name
    summary = html[html.index('id="summary"') : html.index('id="metrics"')]
    best = [(row.split("<", 1)[0], row.count('class="best"')) for row in summary.split("<tr><td>")[1:]]
    # Of what is compared the warp is the best, and of flicker the one that is always black; none of the clip's own.
    assert best == list(zip(["static photo", "landmark warp", "black &amp; void"], [0, 5, 0], strict=True)) + list(
        zip(["real frames", "static photo", "landmark warp", "black &amp; void", "black &amp; void"], [0, 0, 0, 1, 1], strict=True)
    )


def test_what_the_source_does_not_show_has_a_table_of_its_own(tmp_path, measured):
    result, gallery = measured
    values = {"static photo": 0.5, "landmark warp": 0.25, "black & void": 0.75}
    first, *others = (
        replace(c, values={m: v | {"opened_mouth": np.full(2, np.nan)} for m, v in c.values.items()}) for c in result.clips
    )
    for method, value in values.items():
        first.values[method]["opened_mouth"][1] = value
    write_report(tmp_path / "report.html", replace(result, clips=[first, *others]), gallery)
    table = Page((tmp_path / "report.html").read_text("utf-8")).tables[2]
    assert table[0] == ["method", "opened mouth ↓"]
    assert {row[0]: float(row[1]) for row in table[1:]} == values


def test_names_are_shown_and_never_run(made):
    _, html = made
    assert "<script>alert" not in html and "b &lt;script&gt;alert(1)" in html and "made by &lt;nobody&gt;" in html
    values = json.loads(re.search(r'<script type="application/json" id="values">(.*?)</script>', html, re.S)[1])
    assert len(values) == 2 and any("alert" in name for name in values)


def test_each_clip_is_shown_still_and_moving_the_worst_first(made):
    result, html = made
    page = Page(html)
    order = [article["data-clip"] for article in page.all("article")]
    lpips = {clip.name: clip.mean("black & void", "lpips") for clip in result.clips}
    assert order == sorted(lpips, key=lpips.get, reverse=True)
    still, moving = pictures(html)[:2]
    # Source, driver, warp, black; below how far they are off. Then without the source, in four steps from each to the next.
    assert still.size == (4 * 256, 2 * 256) and getattr(still, "n_frames", 1) == 1
    assert moving.size == (3 * 128, 128) and moving.n_frames == 9
    seen = np.asarray(still.convert("RGB")).astype(int)
    assert seen[:256, 776:].max() < 12  # what the method drew, beside what blurs into it
    target, error = seen[:256, 256:512].mean(2), seen[256:, 768:].mean(2)
    bright = target > 0.3 * 255
    assert error[bright].mean() > error[~bright].mean()  # of a black picture the bright places are off the most


def test_every_metric_is_explained_with_its_worst_clips(made):
    result, html = made
    for name in result.metrics:
        section = html[html.index(f'id="metric-{name}"') :].split("</section>")[0]
        assert "of landmark warp:" in section and "of black &amp; void:" in section and 'href="#clip-' in section
    l1 = html[html.index('id="metric-l1"') :].split("</section>")[0]
    worst = max(result.clips, key=lambda clip: clip.mean("black & void", "l1"))
    assert f"{worst.mean('black & void', 'l1'):.4f}" in l1.split("of black &amp; void:")[1].split("</a>")[1][:8]


def test_of_many_clips_the_worst_are_pictured_and_all_are_in_the_tables(tmp_path, monkeypatch, measured):
    monkeypatch.setattr(report, "MOST_PICTURED", 1)
    result, gallery = measured
    write_report(tmp_path / "report.html", result, gallery)
    page = Page(html := (tmp_path / "report.html").read_text("utf-8"))
    worst = max(result.clips, key=lambda clip: clip.mean("black & void", "lpips"))
    assert [article["data-clip"] for article in page.all("article")] == [worst.name]
    assert "Pictured are the 1 of 2 clips" in html
    assert {row[0] for row in page.tables[3][1:]} == set(NAMES)  # behind the two summaries and the differences
    assert {anchor["href"] for anchor in page.all("a") if "clip-" in anchor["href"]} == {"#clip-0"}
