"""`mobile-bilayer benchmark show`: one result in full, several beside each other, pictures."""

import json
import re

import pytest
from PIL import Image


@pytest.fixture
def show(command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    return lambda *arguments: command_line(["benchmark", "show", *map(str, arguments)])


def test_one_result_is_shown_whole(show, result_file):
    code, out, err = show(result_file("pixel.json", seconds=600))
    assert (code, err) == (0, "")
    for words in (
        "Google Pixel 8, Tensor G3, Android 16",
        "30.0 FPS sustained (last minute of 10)",
        "xnnpack, cpu, 2 threads",
    ):
        assert words in out
    assert re.search(r"whole frame +17\.50 +21\.00 +26\.25", out) and re.search(r"execute\(\) alone +4\.50", out)
    assert re.search(r"load, first ever, ms +900\.0", out) and re.search(r"first frame, ms +120\.0", out)
    assert "not measured: energy_mj (the phone was charged over its cable)" in out and "WARNING" not in out


def test_several_are_compared_with_the_first(show, result_file):
    half = {"first_ever_ms": None, "cold_ms": 40.0, "warm_ms": 10.0}
    code, out, _ = show(result_file("a.json"), result_file("b.json", load=half, device="Galaxy"))
    assert code == 0 and re.search(r"load, cold, ms +80\.0 +40\.0 \(0\.50x\)", out)
    assert re.search(r"load, first ever, ms +900\.0 +–", out) and "Galaxy" in out


def test_files_of_one_name_are_told_apart_by_their_folders(show, result_file, tmp_path):
    other = tmp_path / "deep" / "a.json"
    other.parent.mkdir()
    other.write_bytes(result_file("a.json").read_bytes())
    _, out, _ = show(tmp_path / "a.json", other)
    assert "deep/a.json" in out and f"{tmp_path.name}/a.json" in out


def test_BE1_zero_delegation_is_loud_in_the_table(show, result_file):
    _, out, _ = show(
        result_file(
            "slow.json",
            delegated_operators=0,
            undelegated_operators={"aten::convolution.out": ""},
            undelegated_count=70,
        )
    )
    assert "WARNING NOTHING IS DELEGATED: none of 70 operators" in out
    assert re.search(r"operators delegated, % +0\.0", out)


def test_BE3_frames_over_time_become_a_picture_and_a_page_that_asks_no_network(show, result_file, tmp_path):
    heat = [
        {
            "second": i,
            "frames": 30 - i // 60,
            "thermal_state": "none" if i < 90 else "light",
            "temperature_c": 30 + i / 20,
        }
        for i in range(300)
    ]
    files = [result_file("hot.json", over_time=heat, device="<script>$x_1$"), result_file("short.json", seconds=20)]
    code, out, err = show(*files, "--plot", tmp_path / "fps.png", "--html", tmp_path / "report.html")
    assert (code, err) == (0, "") and "fps.png" in out and "report.html" in out
    picture = Image.open(tmp_path / "fps.png").convert("RGB")
    assert picture.width > 800 and len(set(picture.resize((90, 60)).getdata())) > 10
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "&lt;script&gt;" in page and "<script" not in page and "<svg" in page
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page) == [] and "@import" not in page and "url(http" not in page
    assert "It slows down" in page and "sustained" in page


def test_a_profile_is_in_the_page_as_it_is_in_the_terminal(show, result_file, tmp_path):
    file = result_file("a.json", operators_ms={"Convolution <NHWC>": 3.0, "Add": 1.0})
    code, out, _ = show(file, "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert code == 0 and re.search(r"Convolution <NHWC> +3\.000 +75\.0%", out)
    assert "<h2>Operators: a.json</h2>" in page
    assert "<td>Convolution &lt;NHWC&gt;</td><td>3.000</td><td>75.0%</td>" in page


def test_a_file_that_anybody_may_have_made_moves_no_cursor_and_makes_no_markup(show, result_file):
    _, out, _ = show(result_file("a.json", device="\x1b[2J[red]Phone[/red]", warnings=["\x1b]0;x\x07"]))
    assert "\x1b[2J" not in out and "\x1b]0" not in out and "[red]Phone[/red]" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["none.json"], "none.json does not exist"),
        (["--plot", "fps.txt"], "must end in .png"),
        (["--html", "nowhere/report.html"], "nowhere for report.html does not exist"),
    ],
)
def test_bad_input_is_one_line(show, result_file, monkeypatch, tmp_path, more, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = show(result_file("a.json"), *more)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1


def test_a_bad_file_is_named_with_its_field(show, tmp_path, values):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(values() | {"dropped": -1}))
    code, _, err = show(path)
    assert code == 2 and "bad.json: dropped is -1; it must be at least 0. Measure again" in err


def test_results_shorter_than_a_second_make_no_plot(show, result_file, tmp_path):
    code, _, err = show(result_file("a.json", seconds=0, each=lambda s: 30), "--plot", tmp_path / "fps.png")
    assert code == 2 and "Measure longer" in err and not (tmp_path / "fps.png").exists()
