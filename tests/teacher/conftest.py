"""The public code's small checkpoint, if it is at hand; and checkpoints of other sizes in the same layout."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_bilayer.teacher import Teacher, TeacherConfig
from mobile_bilayer.teacher.importing import ENHANCER, MAIN, public_names

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "official_small"
# Nothing here is as in the paper or in the reference: 3 levels, 2 halvings in the enhancer, other widths.
OTHER = TeacherConfig(
    image_px=32, start_px=4, embedding_px=4, keypoints=5,
    embedder_width=6, embedder_max_width=16, texture_width=6, texture_max_width=16,
    generator_width=3, generator_max_width=8, keypoints_width=7, keypoints_layers=3,
    enhancer_steps=2, enhancer_width=4, enhancer_max_width=6, enhancer_px=8, enhancer_blocks=3,
)  # fmt: skip
ARGS = """\
emb_activation_type: leakyrelu
emb_apply_masks: True
emb_max_channels: 16
emb_no_stickman: False
emb_norm_layer_type: none
emb_num_channels: 6
emb_output_tensor_size: 4
enh_bottleneck_tensor_size: 8
enh_max_channels: 6
enh_num_blocks: 3
enh_num_channels: 4
enh_unrolling_depth: 2
eps: 1e-07
image_size: 32
inf_input_tensor_size: 4
inf_max_channels: 8
inf_num_channels: 3
num_keypoints: 5
pse_in_channels: 10
pse_num_blocks: 3
pse_num_channels: 7
tex_input_tensor_size: 4
tex_max_channels: 16
tex_num_channels: 6
"""
ARGS += "torch_home: \n"  # an empty value, as public files have it


@pytest.fixture(scope="session")
def other() -> TeacherConfig:
    """A teacher of other sizes than the reference's."""
    return OTHER


@pytest.fixture(scope="session")
def args() -> str:
    """Its args.txt."""
    return ARGS


@pytest.fixture(scope="session")
def reference() -> Path:
    """The small checkpoint, with what the public code made of it."""
    if not (REFERENCE / "expected.npz").is_file():
        pytest.skip("../shared/reference/official_small is not here")
    return REFERENCE


@pytest.fixture(scope="session")
def expected(reference) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Inputs of the public code, and its outputs."""
    with np.load(reference / "expected.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return tuple({k.removeprefix(p): v for k, v in arrays.items() if k.startswith(p)} for p in ("in_", "out_"))


@pytest.fixture
def runs(reference, tmp_path) -> Path:
    """A copy of the small checkpoint, to spoil."""
    shutil.copytree(reference / "runs", tmp_path / "runs", copy_function=shutil.copyfile)
    for path in (tmp_path / "runs").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "runs").chmod(0o755)
    return tmp_path / "runs"


def _random_teacher(config: TeacherConfig = OTHER) -> Teacher:
    torch.manual_seed(5)
    teacher = Teacher(config)
    with torch.no_grad():
        for name, value in teacher.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_()
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.endswith("num_batches_tracked"):
                value.fill_(3)
    return teacher.eval()


@pytest.fixture
def random_teacher() -> Callable[..., Teacher]:
    """random_teacher(config=OTHER): with statistics that have seen something."""
    return _random_teacher


@pytest.fixture
def inputs() -> Callable[..., dict[str, torch.Tensor]]:
    """inputs(config, batch, sources, targets): random ones of a teacher."""

    def make(config: TeacherConfig = OTHER, batch: int = 2, sources: int = 1, targets: int = 1) -> dict:
        torch.manual_seed(6)
        side = config.image_px
        return {
            "source_imgs": torch.rand(batch, sources, 3, side, side) * 2 - 1,
            "source_stickmen": torch.rand(batch, sources, 3, side, side) * 2 - 1,
            "source_segs": torch.rand(batch, sources, 1, side, side),
            "source_poses": torch.rand(batch, sources, 2 * config.keypoints) * 2 - 1,
            "target_poses": torch.rand(batch, targets, 2 * config.keypoints) * 2 - 1,
        }

    return make


def _unfolded(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """weight_orig, u and v of which `weight` is the folding: u W v is 1 by construction, and stays so for a multiple."""
    matrix = weight.flatten(1)
    u = torch.nn.functional.normalize(torch.randn(len(matrix)), dim=0)
    v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
    u = u / torch.dot(u, matrix @ v)
    return {"_orig": weight * 1.7, "_u": u, "_v": v}


@pytest.fixture(scope="session")
def write_public(tmp_path_factory) -> Callable[..., Path]:
    """write_public(teacher, args, enhancer=True): the folder of its runs, as the public code writes it."""

    def write(teacher: Teacher, args: str = ARGS, enhancer: bool = True) -> Path:
        own, runs = teacher.state_dict(), tmp_path_factory.mktemp("public")
        for network in (*MAIN, ENHANCER) if enhancer else MAIN:
            folder = runs / ("mine_enhancer" if network == ENHANCER else "mine_main")
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            (folder / "args.txt").write_text(args)
            state = {}
            for mine, public in public_names(teacher.config, own, network).items():
                spectral = public.endswith("weight") and own[mine].ndim > 1
                parts = _unfolded(own[mine]) if spectral else {"": own[mine]}
                state |= {f"{public}{end}": value for end, value in parts.items()}
            if network == "inference_generator":
                state["identity_grid"] = torch.zeros(1)
            torch.save(state, folder / "checkpoints" / f"{7 if network == ENHANCER else 12}_{network}.pth")
        return runs

    return write


@pytest.fixture(scope="session")
def _written(write_public) -> Path:
    return write_public(_random_teacher())


@pytest.fixture
def public(_written, tmp_path) -> Path:
    """Public runs of `random_teacher()`, to spoil."""
    return shutil.copytree(_written, tmp_path / "public")
