"""An export is run by the runtime before it is written: what that lacks is named, and nothing is written."""

from dataclasses import replace

import pytest
from mobile_bilayer.export import bundle as export_bundle_module

from mobile_bilayer import Bundle, MobileBilayerError


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        (b"XnnpackBackend", b"AbacusBackends", "made for AbacusBackends; it must be XnnpackBackend"),
        (b"ET12", b"ET13", "file format ET13; the runtime here, executorch .*, reads ET12"),
    ],
)
def test_EX1_what_the_runtime_lacks_is_named_at_export(exported, tmp_path, monkeypatch, was, becomes, words):
    foreign = replace(exported.lowered, data=exported.lowered.data.replace(was, becomes))
    monkeypatch.setattr(export_bundle_module, "lower", lambda *_: foreign)
    with pytest.raises(MobileBilayerError, match=words):
        export_bundle_module.export_bundle(exported.weights, exported.prepared, tmp_path / "out", "int8", calibration=1)
    assert not list(tmp_path.iterdir())


def test_EX1_the_oldest_runtime_is_on_record(exported):
    assert Bundle.open(exported.bundle.where).manifest.minimum_runtime == "executorch 1.5.1"
