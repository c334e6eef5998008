"""What every training run has."""

import subprocess
import sys

import pytest

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.training.run import Log

HOLDS = """
import sys
from pathlib import Path
from mobile_bilayer.training.run import Log
log = Log(Path(sys.argv[1]), 0)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_do_not_train_into_one_folder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        (tmp_path / "log.csv").write_text("step,loss\n5,1.0\n")
        with pytest.raises(MobileBilayerError, match=f"Another run writes to {tmp_path}. Wait"):
            Log(tmp_path, 2)
        assert (tmp_path / "log.csv").read_text() == "step,loss\n5,1.0\n"
        other.kill()  # as a machine that goes down would: nothing is left to clean up
    first = Log(tmp_path, 5)
    second = Log(tmp_path, 5)  # of this process, as when a script goes on
    second.write({"step": 6, "loss": 0.5})
    assert first.path.read_text().splitlines() == ["step,loss", "5,1.0", "6,0.5"]
