"""What every training run here has: clips of two people, and no trace left."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def denormal_numbers_on_again():
    """Training turns them off."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def prepared(tmp_path, write_clip) -> Path:
    folder = tmp_path / "prepared"
    folder.mkdir()
    for name in ("anna", "ben"):
        write_clip(folder / f"{name}.safetensors", identity=name)
    return folder
