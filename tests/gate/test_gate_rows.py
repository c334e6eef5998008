"""benchmarks/gates.toml: what a row may say, and that gates only tighten."""

from dataclasses import replace

import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.gates import rows
from mobile_bilayer.gates.rows import GATES, HELD_OUT, HOW, Gate, read_gates, tighten

ROWS = """# A comment that stays.

[[gate]]
name = "first.lpips" # its name
what = "how far"
unit = "LPIPS"
better = "lower"
value = 0.05 # today
best = 0.05
margin = 0.001
set = "2026-01-02, abc"
how = "public set"

# Between the rows.
[[gate]]
name = "second.psnr_db"
what = "how near"
unit = "dB"
better = "higher"
value = 30
best = 31.5
margin = 0.5
set = "2026-01-02, abc"
how = "public set"
reason = "a smaller network"

[[gate]]
name = "third.ratio"
what = "how fast"
unit = "times"
better = "higher"
value = 40.0
best = 40.0
margin = 10.0
set = "2026-01-02, abc"
how = "speed"
by_hand = true
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text(ROWS)
    return path


def gate(**changes) -> Gate:
    of = Gate("a", "b", "c", "lower", 1.0, 1.0, 0.1, "2026-01-02, abc", "public set")
    return replace(of, **changes)


@pytest.mark.parametrize(
    ("better", "measured", "holds", "may_tighten"),
    [
        ("lower", 1.0, True, False),
        ("lower", 1.09, True, False),
        ("lower", 1.11, False, False),
        ("lower", 0.91, True, False),
        ("lower", 0.89, True, True),
        ("higher", 1.11, True, True),
        ("higher", 0.91, True, False),
        ("higher", 0.89, False, False),
        ("lower", float("nan"), False, False),
        ("higher", float("nan"), False, False),
    ],
)
def test_a_gate_holds_within_its_margin_and_tightens_beyond_it(better, measured, holds, may_tighten):
    assert gate(better=better).holds(measured) == holds
    assert gate(better=better).may_tighten(measured) == may_tighten


def test_what_is_moved_by_hand_does_not_tighten_by_itself():
    assert not gate(by_hand=True).may_tighten(0.1)


def test_rows_are_read_as_they_are_written(path):
    first, second, third = read_gates(path)
    assert (first.name, first.value, first.margin, first.short) == ("first.lpips", 0.05, 0.001, True)
    assert (second.better, second.value, second.reason) == ("higher", 30, "a smaller network")
    assert third.by_hand


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'reason = "a smaller network"',
            "",
            "second.psnr_db: its value 30 is worse than its best, 31.5. Gates only tighten",
        ),
        ('reason = "a smaller network"', 'reason = " "', "Gates only tighten"),
        ("value = 0.05", "value = 0.06", "first.lpips: its value 0.06 is worse than its best, 0.05"),
        ("value = 0.05", "value = 0.04", "is better than its best"),
        ("value = 0.05", 'value = "small"', "value is 'small'"),
        ("value = 0.05", "value = true", "value is True"),
        ("value = 0.05", "value = nan", "must be numbers"),
        ("margin = 0.001", "margin = -1", "not below 0"),
        ("margin = 0.001\n", "", "first.lpips: margin is missing"),
        ("margin = 0.001", "margin = 0.001\nslack = 2", "there is no slack in a gate"),
        ('better = "lower"', 'better = "smaller"', "it must be lower or higher"),
        ('how = "speed"', 'how = "a guess"', "it must be one of public set"),
        ("third.ratio", "first.lpips", "first.lpips is there twice"),
        ("by_hand = true", "by_hand = 1", "by_hand is 1"),
        ("[[gate]]", "[gate]", "is no TOML"),
    ],
)
def test_a_row_that_can_not_be_right_is_refused(path, old, new, words):
    assert old in ROWS
    path.write_text(ROWS.replace(old, new))
    with pytest.raises(MobileBilayerError) as refused:
        read_gates(path)
    assert words in str(refused.value) and str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["", "gate = 3", "[gate]\nvalue = 1", "title = 'x'"])
def test_a_file_without_rows_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(MobileBilayerError, match=r"gates\.toml"):
        read_gates(path)


def test_without_the_repository_the_error_says_where_gates_are(monkeypatch, tmp_path):
    monkeypatch.setattr(rows, "GATES", tmp_path / "gates.toml")
    with pytest.raises(MobileBilayerError, match=r"gates come with the project's repository"):
        read_gates(rows.GATES)


def test_tightening_moves_only_what_is_better_and_keeps_all_else_as_it_is_written(path):
    moved = tighten(path, {"first.lpips": 0.0412345, "second.psnr_db": 30.2, "third.ratio": 90.0}, "2026-02-03, def")
    assert moved == ["first.lpips"]
    wanted = ROWS.replace("value = 0.05 # today\nbest = 0.05", "value = 0.04123 # today\nbest = 0.04123")
    wanted = wanted.replace('set = "2026-01-02, abc"', 'set = "2026-02-03, def"', 1)
    assert path.read_text() == wanted


def test_tightening_never_loosens(path):
    assert tighten(path, {"first.lpips": 0.9, "second.psnr_db": 1.0}, "2026-02-03, def") == []
    assert path.read_text() == ROWS


def test_a_gate_that_was_loosened_keeps_its_best_until_it_is_beaten(path):
    assert tighten(path, {"second.psnr_db": 31.0}, "2026-02-03, def") == ["second.psnr_db"]
    assert [(g.value, g.best) for g in read_gates(path)][1] == (31.0, 31.5)
    assert tighten(path, {"second.psnr_db": 32.25}, "2026-02-04, fed") == ["second.psnr_db"]
    assert [(g.value, g.best) for g in read_gates(path)][1] == (32.25, 32.25)


def test_what_is_written_in_another_way_is_left_alone(path):
    path.write_text(ROWS.replace("value = 0.05", "value=0.05"))
    before = path.read_text()
    with pytest.raises(MobileBilayerError, match="has no line `value"):
        tighten(path, {"first.lpips": 0.01}, "2026-02-03, def")
    assert path.read_text() == before


def test_every_promised_figure_says_when_it_was_set_and_by_which_measurement():
    gates = read_gates(GATES)
    assert {gate.how for gate in gates} == set(HOW)
    assert all(gate.what and gate.unit and len(gate.set.split(", ")) == 2 for gate in gates)
    assert sum(gate.how == HELD_OUT for gate in gates) == 6
