"""What the gate measures, piece by piece."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")

from mobile_bilayer import Bundle
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.gates import measure
from mobile_bilayer.gates.measure import Measured, frame_macs, measure_sizes
from mobile_bilayer.gates.rows import read_gates
from mobile_bilayer.gates.speed import slow_over_quick
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.network import SIZES, FrameNetwork, Upsample


def work(rounds: int):
    def run() -> None:
        total = 0
        for i in range(rounds):
            total ^= i  # not a sum: integers that outgrow a machine word take longer

    return run


def test_a_ratio_is_of_processor_time_and_does_not_see_who_waits():
    """Pieces of some 10 ms: shorter ones follow the processor's own ups and downs."""
    slow = work(2_000_000)
    assert slow_over_quick(slow, work(200_000)).ratio == pytest.approx(10, rel=0.2)

    def waits() -> None:
        work(200_000)()
        time.sleep(0.03)

    assert slow_over_quick(slow, waits).ratio == pytest.approx(10, rel=0.3)  # in time on the clock it would be 3


@pytest.mark.parametrize("size", SIZES)
def test_multiplications_are_those_of_the_exported_frame(size, monkeypatch):
    counted = frame_macs(size)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)  # bilinear upsampling is an operator there
    frame, points = FrameNetwork(SIZES[size]), torch.zeros(1, POINTS, 2)
    for module in frame.modules():
        if isinstance(module, Upsample):
            module.exported_as_products = False
    features, maps = torch.zeros(1, POINTS, 27), torch.zeros(1, frame.config.frame_widths[1], 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        frame(features, maps, points, points)
    assert counted == counter.get_total_flops() // 2


def test_sizes_are_of_the_files_and_each_has_its_gate():
    bundle, measured = Bundle.open(), Measured()
    measure_sizes(measured, bundle)
    assert measured.values["size.program"] == len(bundle.contents[bundle.manifest.program])
    assert measured.values["size.bundle"] > measured.values["size.program"]
    assert measured.values["size.outside"] == 0
    gates = {gate.name: gate for gate in read_gates()}
    assert all(gates[name].holds(number) for name, number in measured.values.items())


def test_another_students_bundle_is_not_held_against_our_float_weights():
    avatar = SimpleNamespace(bundle=SimpleNamespace(manifest=SimpleNamespace(student="0123")))
    measured, names = Measured(), ("bundle.float.psnr_db", "bundle.float.flow_px")
    measured.add(names, lambda: measure._int8_against_float([SimpleNamespace(avatar=avatar)], "4567"))
    assert measured.values == {} and set(measured.why_not) == set(names)
    assert "0123" in measured.why_not[names[0]] and "4567" in measured.why_not[names[0]]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'dlib'", name="dlib"), "dlib"),
        (MobileBilayerError("It is not here."), "not here"),
    ],
)
def test_what_is_missing_here_is_told_and_nothing_else_is_hidden(error, words):
    def fail() -> tuple[float, ...]:
        raise error

    measured = Measured()
    measured.add(("bundle.identity",), fail)
    assert words in measured.why_not["bundle.identity"] and not measured.values
    with pytest.raises(ZeroDivisionError):
        measured.add(("bundle.identity",), lambda: (1 / 0,))


def test_a_bundle_for_another_runtime_is_refused(monkeypatch):
    other = SimpleNamespace(manifest=SimpleNamespace(backend="coreml"), where="mine")
    monkeypatch.setattr(measure.Bundle, "open", lambda _: other)
    monkeypatch.setattr(measure, "one_core", nullcontext)
    with pytest.raises(MobileBilayerError, match="mine is for coreml; the gate measures bundles for xnnpack"):
        measure.measure()
