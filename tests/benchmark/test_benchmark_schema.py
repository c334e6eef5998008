"""result.schema.json and the reader in Python: what one refuses, the other does."""

import json
import random
import re
from dataclasses import fields
from pathlib import Path

import pytest
from fuzz_bundle import spoilt
from jsonschema import Draft202012Validator, validators

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.benchmark.result import STAGES, Fidelity, Load, Moment, Result, schema
from mobile_bilayer.benchmark.statistics import Statistics

SCHEMA = schema()
FIDELITY = {
    "method": "S int8",
    "made_by": "us",
    "pairs": 4,
    "people": 2,
    "student": {"lpips": 0.1},
    "teacher": None,
}
# What the schema's description names as beyond it.
BEYOND = r"give both or none|must both be there|percentiles that fall|seconds that do not rise|not_measured names"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """An integer has no point, and 53 bits: other validators take 256.0 and more bits, and readers in other languages do not."""
    kinds = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, v: isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**53
    )
    return validators.extend(Draft202012Validator, type_checker=kinds)(SCHEMA)


def refusal(values: dict) -> str | None:
    try:
        Result.from_json(json.dumps(values), "here")
    except MobileBilayerError as error:
        return str(error)
    return None


def test_it_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)


def test_in_the_folder_of_benchmarks_is_the_schema_that_the_package_reads():
    beside = Path(__file__).parents[2] / "benchmarks" / "result.schema.json"
    assert json.loads(beside.read_text("utf-8")) == SCHEMA


def test_it_takes_a_result(validator, values):
    validator.validate(values())


def test_it_has_every_field_and_says_what_it_is(values):
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == {f.name for f in fields(Result)} == set(values())
    parts = {"load": Load, "fidelity": Fidelity}
    for name, kind in parts.items():
        assert set(SCHEMA["properties"][name]["properties"]) == {f.name for f in fields(kind)}
    moment, statistics = SCHEMA["properties"]["over_time"]["items"], SCHEMA["$defs"]["statistics"]
    assert set(moment["required"]) == {f.name for f in fields(Moment)}
    assert set(statistics["required"]) == {f.name for f in fields(Statistics)}
    assert tuple(SCHEMA["properties"]["stages_ms"]["required"]) == STAGES
    for name, about in SCHEMA["properties"].items():
        assert len(about.get("description", "")) > 8, name


def test_no_object_takes_unknown_keys():
    def objects(about):
        if isinstance(about, dict):
            if "properties" in about and "type" in about:
                yield about
            for part in about.values():
                yield from objects(part)

    found = list(objects(SCHEMA))
    assert len(found) == 6 and all(about["additionalProperties"] is False for about in found)


def test_schema_and_reader_refuse_the_same_of_1000_spoilt_results(validator, values):
    whole = values(
        seconds=3,
        fidelity=FIDELITY,
    )
    refused = taken = 0
    for seed in range(1000):
        changed = spoilt(whole, random.Random(seed))
        if re.search(r"NaN|Infinity|\\ud8", json.dumps(changed)):
            continue  # of which a schema says nothing
        words, valid = refusal(changed), validator.is_valid(changed)
        if words is not None and re.search(BEYOND, words):
            continue
        assert valid == (words is None), f"{seed}: {words}, {next(iter(validator.iter_errors(changed)), None)}"
        refused, taken = refused + (words is not None), taken + valid
    assert refused > 300 and taken > 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iterations": 0}, "iterations is 0; it must be at least 1"),
        ({"iterations": 5.0}, "iterations is 5.0; it must be of type integer"),
        ({"duration_s": 0}, "duration_s is 0; it must be above 0"),
        ({"fps": 10**400}, "it must be of type number or null"),
        ({"dropped": 2**60}, "it must be of type integer"),
        ({"fps": "fast"}, 'fps is "fast"; it must be of type number or null'),
        ({"compute_unit": "npu"}, "it must be one of cpu, gpu, neural_engine, all"),
        ({"bundle_sha256": "ab"}, "bundle_sha256 is"),
        ({"device": ""}, "device is empty"),
        ({"speed": 3}, "has unknown speed"),
        ({"load": {"cold_ms": 1.0, "warm_ms": 1.0}}, "load lacks first_ever_ms"),
        ({"undelegated_operators": {"aten.mm": 3}}, "undelegated_operators.aten.mm is 3"),
        ({"operators_by_device": {"npu": 1}}, "operators_by_device has unknown npu; it may have cpu"),
        ({"energy_mj": 3.0, "not_measured": {}}, "energy_mj is 3.0 and energy_method None; give both or none"),
        ({"fps": None}, "fps and stages_ms.frame must both be there"),
        ({"not_measured": {"dropped": "why not"}}, "not_measured names dropped, which is there"),
        ({"not_measured": {"load.speed": "why not"}}, "no place in a result"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_what_to_do(values, change, words):
    said = refusal(values() | change)
    assert said.startswith("here: ") and words in said and said.endswith("Measure again, or copy the file again.")


def test_percentiles_that_fall_and_seconds_that_stand_are_refused(values):
    fallen = values()
    fallen["execute_ms"] |= {"p90": 1.0}
    assert "execute_ms has percentiles that fall" in refusal(fallen)
    still = values()
    still["over_time"][1]["second"] = 0
    assert "seconds that do not rise" in refusal(still)


def test_a_newer_format_asks_for_a_newer_reader_whatever_it_has(values):
    assert "format_version is 2; this mobile_bilayer reads 1. Update mobile_bilayer." in refusal(
        values() | {"format_version": 2, "new": 1}
    )


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', '{"fps": NaN}', "[" * 100_000])
def test_what_is_no_result_is_refused_in_words(text):
    with pytest.raises(MobileBilayerError, match="here"):
        Result.from_json(text, "here")


def test_a_result_comes_back_as_it_was_written(result, tmp_path):
    one = result(
        seconds=130,
        fidelity=FIDELITY,
    )
    one.save(tmp_path / "a.json")
    assert Result.load_file(tmp_path / "a.json") == one
