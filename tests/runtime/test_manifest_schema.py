"""manifest.schema.json and the reader in Python: what one refuses, the other does."""

import copy
import json
import random
import re
from dataclasses import fields
from importlib.resources import files

import pytest
from fuzz_bundle import spoilt
from jsonschema import Draft202012Validator, validators

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.runtime.bundle import shipped_bundle
from mobile_bilayer.runtime.manifest import METHODS, Manifest

SCHEMA = json.loads((files("mobile_bilayer.runtime") / "manifest.schema.json").read_text("utf-8"))
# What the schema's description names as beyond it.
BEYOND = r"sha256 does not list the program|is no plain file name|adds up to"


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """An integer has no point: other validators take 256.0 for one, and readers in other languages do not."""
    kinds = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, v: isinstance(v, int) and not isinstance(v, bool)
    )
    return validators.extend(Draft202012Validator, type_checker=kinds)(SCHEMA)


@pytest.fixture(scope="module")
def whole() -> dict:
    """With few points: of long lists all items are alike."""
    values = json.loads((shipped_bundle() / "manifest.json").read_text("utf-8"))
    return values | {key: values[key][:4] for key in ("mesh", "rigid", "head_points", "template_points")}


def refusal(values: dict) -> str | None:
    try:
        Manifest.from_json(json.dumps(values), "here")
    except MobileBilayerError as error:
        return str(error)
    return None


def test_it_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)


def test_it_takes_the_shipped_manifest(schema):
    schema.validate(json.loads((shipped_bundle() / "manifest.json").read_text("utf-8")))


def test_it_has_every_field_and_says_what_it_is(whole):
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == {f.name for f in fields(Manifest)} == set(whole)
    for name, about in SCHEMA["properties"].items():
        assert len(about["description"]) > 10, name


def test_it_has_the_methods_names_in_their_order():
    for name, sides in METHODS.items():
        for side, wanted in zip(("inputs", "outputs"), sides, strict=True):
            places = SCHEMA["properties"]["methods"]["properties"][name]["properties"][side]
            assert tuple(place["properties"]["name"]["const"] for place in places["prefixItems"]) == wanted
            assert places["minItems"] == places["maxItems"] == len(wanted)


def is_json(text: str) -> bool:
    """Without NaN and halves of surrogate pairs, which Python's has, and of which a schema says nothing."""
    return not re.search(r"NaN|Infinity|\\ud8", text)


def test_schema_and_reader_refuse_the_same_of_1000_spoilt_manifests(schema, whole):
    refused = taken = 0
    for seed in range(1000):
        values = spoilt(whole, random.Random(seed))
        if not is_json(json.dumps(values)):
            continue
        if type(values.get("format_version")) is int and values["format_version"] == 1:
            continue  # which the reader alone knows
        words, valid = refusal(values), schema.is_valid(values)
        if words is not None and re.search(BEYOND, words):
            continue
        assert valid == (words is None), f"{seed}: {words}, {next(iter(schema.iter_errors(values)), None)}"
        refused, taken = refused + (words is not None), taken + valid
    assert refused > 300 and taken > 30


@pytest.mark.parametrize(
    "change",
    [
        {"image_px": 256.0},
        {"image_px": 255},
        {"format_version": 3},
        {"mesh": [1, 1]},
        {"mesh": [True]},
        {"crop_up": 1e6},
        {"crop_up": -1e6},
        {"sha256": {"a": "F" * 64}},
        {"torso_points": []},
        {"head_points": [[0, 0, 0, 0]]},
        {"rigid": [478]},
    ],
)
def test_both_refuse_what_is_just_beyond(schema, whole, change):
    values = copy.deepcopy(whole) | change
    assert refusal(values) is not None and not schema.is_valid(values)


@pytest.mark.parametrize(
    ("shape", "fine"), [([1], True), ([4096] * 4, True), ([], False), ([0], False), ([4097], False), ([1] * 5, False)]
)
def test_both_have_the_same_limits_of_a_shape(schema, whole, shape, fine):
    values = copy.deepcopy(whole)
    values["methods"]["encode_avatar"]["inputs"][0]["shape"] = shape
    assert (refusal(values) is None) is schema.is_valid(values) is fine


@pytest.mark.parametrize(
    "change",
    [{"crop_up": 999_999.5}, {"mesh": [477, 0]}, {"torso_points": [[-1, 0]]}, {"name": ""}, {"backend": "abacus"}],
)
def test_both_take_what_is_just_within(schema, whole, change):
    values = copy.deepcopy(whole) | change
    assert refusal(values) is None and schema.is_valid(values)
