"""Broken on purpose: the gate fails, and at the row that says what is wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")

from mobile_bilayer import Bundle
from mobile_bilayer.gates.measure import Measured, draw_all, measure_renderings, student_id
from mobile_bilayer.gates.public_set import read_reference
from mobile_bilayer.gates.report import Verdict, judge
from mobile_bilayer.gates.rows import read_gates
from mobile_bilayer.pose import head
from mobile_bilayer.pose.landmarks import MESH
from mobile_bilayer.runtime import avatar
from mobile_bilayer.runtime.compositor import identity_grid
from mobile_bilayer.student.weights import load_student

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verdicts() -> Callable[..., dict[str, Verdict]]:
    """verdicts(bundle): of the rows that are measured on renderings, by name."""
    student, reference = load_student()[0], read_reference()

    def measured(bundle: Bundle | None = None) -> dict[str, Verdict]:
        found = Measured()
        measure_renderings(found, draw_all(bundle or Bundle.open(), student), reference, student_id())
        gates = [gate for gate in read_gates() if gate.name in found.values | found.why_not]
        return {verdict.gate.name: verdict for verdict in judge(gates, found, short=True)}

    return measured


def worse(found: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in found.items() if verdict.word == "worse"}


def test_what_ships_is_worse_nowhere(verdicts):
    found = verdicts()
    assert len(found) == 20 and worse(found) == set()


def test_a_flow_head_in_int8_fails_at_the_flow(verdicts):
    class Rounding:
        """A program whose flow has 256 values over half of the frame, as an int8 head's would."""

        def __init__(self, program) -> None:
            self.program = program

        def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
            out = self.program.run(method, *arrays)
            if method == "render_layers":
                out[0][:, :2] = np.rint(out[0][:, :2] * 256) / 256
            return out

    bundle = Bundle.open()
    bundle.__dict__["program"] = Rounding(bundle.program)
    found = worse(verdicts(bundle))
    assert "bundle.float.flow_px" in found and not any(name.startswith("float.") for name in found)


def test_a_swapped_landmark_pair_fails_against_the_teacher_in_mouth_and_eyes(verdicts, monkeypatch):
    swapped, eyes = np.array(MESH), [MESH.index(33), MESH.index(263)]  # their outer corners
    swapped[eyes] = swapped[eyes[::-1]]
    monkeypatch.setattr(head, "_MESH", swapped)
    found = worse(verdicts())
    assert {"bundle.teacher.mouth_and_eyes", "float.teacher.mouth_and_eyes"} <= found
    assert "compositor.difference" not in found


def test_a_wrong_corner_rule_fails_at_the_compositor(verdicts, monkeypatch):
    def composite(texture: np.ndarray, background: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """As if the frame's corners were pixels' centres (align_corners)."""
        side = texture.shape[0]
        a, b = (cv2.resize(np.ascontiguousarray(x.transpose(1, 2, 0)), (side, side)) for x in (a, b))
        where = a[..., :2] * np.float32((side - 1) / 2) + identity_grid(side)
        head = cv2.remap(texture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * a[..., 2:3] + b
        return a[..., 3:4] * (head - background) + background

    monkeypatch.setattr(avatar, "composite", composite)
    found = worse(verdicts())
    assert "compositor.difference" in found and "bundle.float.flow_px" not in found


# In a process of its own: threads are counted anew in it. A frame that runs twice is what a layer that takes twice as long comes
# near to, when it is most of the frame, as the trunk is.
SPEED = """
import json
from mobile_bilayer import Bundle
from mobile_bilayer.gates import measure
from mobile_bilayer.gates.measure import Measured, measure_speed
from mobile_bilayer.gates.speed import one_core
from mobile_bilayer.runtime.program import Program

class Slow(Program):
    def run(self, method, *arrays):
        super().run(method, *arrays)
        return super().run(method, *arrays)

found, lower, lowered = {"as it is": [], "slow": []}, measure.lower_teacher, []
measure.lower_teacher = lambda seen: lowered[0] if lowered else lowered.append(lower(seen)) or lowered[0]
with one_core():
    for name in ("as it is", "slow") * 3:  # the median of three: a frame of a millisecond is easily disturbed
        bundle, measured = Bundle.open(), Measured()
        if name == "slow":
            bundle.program.__class__ = Slow
        measure_speed(measured, bundle, short=True)
        found[name].append((measured.values | measured.why_not)["speed.teacher_over_bundle"])
print(json.dumps({name: sorted(ratios)[1] for name, ratios in found.items()}))
"""


def test_a_layer_twice_as_slow_fails_at_the_speed():
    done = subprocess.run(
        [sys.executable, "-c", SPEED], capture_output=True, text=True, env=os.environ, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    (gate,) = (gate for gate in read_gates() if gate.name == "speed.teacher_over_bundle")
    assert gate.holds(found["as it is"])
    assert not gate.holds(found["slow"])
    # The same command again: ratios within 10 %, and a half is seen.
    assert found["slow"] == pytest.approx(0.5 * found["as it is"], rel=0.1)
