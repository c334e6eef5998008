"""Training a tiny teacher on clips made of numbers."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, Augmentation
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import save_student
from mobile_bilayer.teacher import TeacherConfig, load_teacher
from mobile_bilayer.teacher.landmark import LANDMARK, LandmarkTeacher
from mobile_bilayer.training import teacher as training_teacher
from mobile_bilayer.training.teacher import PAPER_TRAINING, KeepInputs, TeacherTraining, choose_windows, train_teacher

needs_weights = pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / "squeezenet1_1_features.npz").is_file(),
    reason="MOBILE_BILAYER_MODELS names no folder with squeezenet1_1_features.npz",
)
COARSE = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4, paint_width=4)
TINY = replace(LANDMARK, coarse=COARSE, generator_width=2, generator_max_width=16, keypoints_width=8)
PAPER = TeacherConfig(
    embedder_width=4, embedder_max_width=8, texture_width=4, texture_max_width=8,
    generator_width=2, generator_max_width=4, keypoints_width=8, enhancer_steps=0,
)  # fmt: skip
SHORT = TeacherTraining(sources=2, warm_up_steps=1, held_out=1, validation_pairs=2, learning_rate=1e-3)


# A large eps: else the first steps of Adam take the sign of gradients that are nothing but rounding. No LPIPS: in flat
# colours it normalises features that are.
JUDGED = replace(
    SHORT, losses=SHORT.losses | {"lpips": 0.0, "gan": 0.5, "feature_matching": 10.0}, discriminator_width=2,
    learning_rate=1e-2, eps=1e-3,
)  # fmt: skip


def log(out: Path, prefix: str = "loss_") -> list[dict[str, float]]:
    """Rows that have such columns, without the others and without the time."""
    with (out / "log.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v and (k == "step" or k.startswith(prefix))}
                for row in csv.DictReader(file)]  # fmt: skip
    return [row for row in rows if len(row) > 1]


def train(prepared: Path, out: Path, steps: int, config: TeacherConfig = TINY, training=SHORT, **options) -> Path:
    fixed = {"workers": 0, "log_every": 1, "precision": "32-true"}
    return train_teacher(prepared, out, config, training, steps=steps, **fixed | options)


@needs_weights
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(prepared, tmp_path, monkeypatch):
    """With a discriminator, which has spectral norm and an optimizer of its own."""
    training = JUDGED
    whole = train(prepared, tmp_path / "whole", 5, training=training)

    def killed(points, config, step, *rest):
        if step == 3:
            raise SystemExit
        return choose_windows(points, config, step, *rest)

    monkeypatch.setattr(training_teacher, "choose_windows", killed)
    with pytest.raises(SystemExit):
        train(prepared, tmp_path / "killed", 5, training=training, save_every_s=0)
    assert [row["step"] for row in log(tmp_path / "killed")] == [1, 2, 3]
    # A row of a step that came after the last checkpoint is written anew.
    lines = (tmp_path / "killed" / "log.csv").read_text().splitlines()
    with (tmp_path / "killed" / "log.csv").open("a") as file:
        file.write(lines[-1].replace("3,", "4,", 1) + "\n")
    monkeypatch.undo()
    resumed = train(prepared, tmp_path / "killed", 5, training=training)
    assert log(tmp_path / "killed") == log(tmp_path / "whole")
    for (name, a), b in zip(
        load_teacher(whole)[0].named_parameters(), load_teacher(resumed)[0].parameters(), strict=True
    ):
        assert torch.equal(a, b), name
    assert load_teacher(resumed)[1]["steps"] == 5
    # Done: it is not validated once more.
    before = (tmp_path / "killed" / "log.csv").read_text()
    train(prepared, tmp_path / "killed", 5, training=training)
    assert (tmp_path / "killed" / "log.csv").read_text() == before
    with pytest.raises(MobileBilayerError, match="other settings"):
        train(prepared, tmp_path / "killed", 6, training=replace(training, learning_rate=1e-4))


@needs_weights
def test_ctrl_c_lets_the_step_end_and_keeps_it(prepared, tmp_path, monkeypatch):
    whole = train(prepared, tmp_path / "whole", steps=4)

    def interrupted(points, config, step, *rest):
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return choose_windows(points, config, step, *rest)

    monkeypatch.setattr(training_teacher, "choose_windows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, tmp_path / "run", steps=4)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 2
    monkeypatch.undo()
    resumed = train(prepared, tmp_path / "run", steps=4)
    assert log(tmp_path / "run") == log(tmp_path / "whole")
    pairs = zip(load_teacher(whole)[0].parameters(), load_teacher(resumed)[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@needs_weights
def test_two_processes_take_the_steps_of_one(prepared, tmp_path):
    """With everything that looks across a batch: batch norm and the relativistic discriminator."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_train_teacher import JUDGED, train\n"
        "if __name__ == '__main__':\n"
        "    train(Path(sys.argv[1]), Path(sys.argv[2]), steps=3, training=JUDGED)\n"
    )
    for count in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        subprocess.run(
            [*command, script, prepared, tmp_path / str(count)],
            check=True, timeout=300, env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    one, two = (log(tmp_path / str(count)) for count in (1, 2))
    assert [row["step"] for row in one] == [1, 2, 3] and {"loss_gan", "loss_discriminator"} < set(one[0])
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=3e-4, abs=1e-5)  # Adam's first steps make rounding larger
    assert one[0]["loss_l1"] != pytest.approx(one[1]["loss_l1"], rel=1e-3)  # the steps differ, so that is a test


@needs_weights
def test_a_few_steps_bring_the_losses_down(tmp_path, write_clip):
    """One pair, seen again and again; batch norm stands still, so that validation sees what training does."""
    (tmp_path / "prepared").mkdir()
    write_clip(tmp_path / "prepared" / "anna.safetensors", count=2)
    training = replace(SHORT, learning_rate=5e-3, coarse_rate=5e-3, ema=0.5, frozen_norm=1.0, at_face=1.0)
    train(tmp_path / "prepared", tmp_path / "run", 60, training=training, augmentation=NO_AUGMENTATION)
    rows = log(tmp_path / "run", "validation_")
    assert rows[-1]["validation_l1"] < 0.7 * rows[0]["validation_l1"]
    assert rows[-1]["validation_lpips"] < 0.8 * rows[0]["validation_lpips"]


@needs_weights
def test_the_papers_networks_train_with_its_losses(prepared, tmp_path):
    training = replace(PAPER_TRAINING, sources=2, held_out=1, validation_pairs=2, discriminator_width=2)
    weights = train(prepared, tmp_path / "run", 2, PAPER, training)
    rows = log(tmp_path / "run")
    assert set(rows[0]) == {"step"} | {
        f"loss_{name}" for name in ("gan", "feature_matching", "lpips", "lf", "mask", "discriminator")
    }
    loaded, _ = load_teacher(weights)
    # What is saved has its spectral norm folded: no singular value is much above 1.
    norms = [torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2) for m in loaded.modules()
             if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]  # fmt: skip
    assert max(norms) < 1.5
    # And it resumes with it: the rate follows the run's length, so the same length again.
    assert log(train(prepared, tmp_path / "again", 2, PAPER, training).parent) == rows
    train(prepared, tmp_path / "run", 3, PAPER, training)
    assert [row["step"] for row in log(tmp_path / "run")] == [1, 2, 3]


@needs_weights
def test_training_starts_from_a_teacher_or_from_a_student(prepared, tmp_path):
    torch.manual_seed(5)
    student = Student(COARSE)
    torch.nn.init.normal_(student.frame.heads.weight, std=1.0)
    save_student(student, tmp_path / "student.safetensors", {})
    first = train(prepared, tmp_path / "first", 1, start=tmp_path / "student.safetensors")
    plain = log(train(prepared, tmp_path / "plain", 1).parent, "validation_")
    begun = log(tmp_path / "first", "validation_")
    assert begun[0]["validation_l1"] != pytest.approx(plain[0]["validation_l1"], rel=1e-3)
    train(prepared, tmp_path / "second", 1, start=first)
    assert log(tmp_path / "second", "validation_")[0]["validation_l1"] == pytest.approx(begun[1]["validation_l1"], abs=2e-4)
    with pytest.raises(MobileBilayerError, match="another shape"):
        train(prepared, tmp_path / "third", 1, replace(TINY, keypoints_width=9), start=first)
    with pytest.raises(MobileBilayerError, match="another shape"):
        train(prepared, tmp_path / "first", 2, replace(TINY, keypoints_width=9))
    (tmp_path / "broken").write_bytes(b"no weights")
    with pytest.raises(MobileBilayerError, match="broken can't be read"):
        train(prepared, tmp_path / "fourth", 1, start=tmp_path / "broken")


@needs_weights
def test_bf16_trains_too(prepared, tmp_path):
    weights = train(prepared, tmp_path / "run", 1, precision="bf16-mixed")
    assert load_teacher(weights)[1]["steps"] == 1
    for precision in ("16-mixed", "bf17"):
        with pytest.raises(MobileBilayerError, match="32-true or bf16-mixed"):
            train(prepared, tmp_path / "other", 1, precision=precision)


def test_bf16_moves_no_pixel():
    """Inputs stay float32: bf16 has 8 bits, and would be half a pixel off at the frame's edge."""
    torch.manual_seed(0)
    teacher = LandmarkTeacher(TINY).eval()
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(1, POINTS, 2, generator=generator) * 1.6 - 0.8
    driving = points + 0.1 * torch.rand(1, POINTS, 2, generator=generator)
    given = (torch.rand(1, 3, 256, 256, generator=generator), points, driving, torch.zeros(1, 3, 256, 256))
    plugin = KeepInputs("bf16-mixed", "cpu")
    with torch.no_grad():
        exact = teacher(*given)[1].layers.a[:, :2]
        with plugin.forward_context():
            rough = teacher(*plugin.convert_input(given))[1].layers.a[:, :2]
    assert exact.abs().max() > 0.05
    assert ((rough - exact).abs().max() * 128).item() < 0.25  # pixels


@needs_weights
def test_a_run_whose_gradients_stay_broken_says_so(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(training_teacher, "MOST_LOST", 2)
    monkeypatch.setattr(training_teacher, "mask_bce", lambda mask, *_: mask.mean() * float("nan"))
    with pytest.raises(MobileBilayerError, match="2 steps on end are not finite.*--rate"):
        train(prepared, tmp_path / "run", 5)


@needs_weights
def test_features_are_matched_with_a_discriminator_that_learns(prepared, tmp_path):
    training = replace(SHORT, losses={"l1": 10.0, "feature_matching": 10.0}, discriminator_width=2)
    train(prepared, tmp_path / "run", 2, training=training)
    moments = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["critic_optimizer"]["state"]
    assert any(moment["exp_avg"].any() for moment in moments.values())


def test_windows_depend_on_seed_step_and_number_alone():
    points = torch.rand(4, 144, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    whole = choose_windows(points, SHORT, 7, 0, 4)
    halves = [choose_windows(points[i : i + 2], SHORT, 7, i, 2) for i in (0, 2)]
    assert whole.corners == halves[0].corners + halves[1].corners
    assert whole.corners != choose_windows(points, SHORT, 8, 0, 4).corners
    at_face = replace(SHORT, at_face=1.0)
    middles = [torch.tensor(choose_windows(points, at_face, s, 0, 4).corners).float() + 20 for s in range(60)]
    wanted = ((points[:, :128].mean(1) + 1) * 32).flip(1)
    torch.testing.assert_close(torch.stack(middles).mean(0), wanted, atol=1.5, rtol=0)
    assert choose_windows(points, replace(SHORT, window=64), 7, 0, 4) is None


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"losses": {"l2": 1.0}}, "no loss 'l2'.*Choose of l1"),
        ({"losses": {"mask": 1.0}}, "No loss looks at the result"),
        ({"losses": {"l1": -1.0}}, "weight of l1 is -1.0"),
        ({"sources": 0}, "sources"),
        ({"window": 65}, "window"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, match):
    with pytest.raises(MobileBilayerError, match=match):
        TeacherTraining(**wrong)


def test_losses_that_need_a_file_and_files_that_need_a_loss_are_told(prepared, tmp_path):
    with pytest.raises(MobileBilayerError, match="--vgg19 FILE"):
        train(prepared, tmp_path / "run", 1, training=replace(SHORT, losses={"l1": 1.0, "vgg19": 10.0}))
    with pytest.raises(MobileBilayerError, match="--loss vggface=WEIGHT"):
        train(prepared, tmp_path / "run", 1, vggface=tmp_path / "vggface.pth")
    with pytest.raises(MobileBilayerError, match="--steps"):
        train_teacher(prepared, tmp_path / "run", TINY, SHORT, Augmentation())
    for wrong, match in (
        ({"devices": 0}, "0 devices"), ({"sheet_every": 0}, "sheet_every"), ({"workers": -1}, "workers"),
        ({"config": TeacherConfig()}, "enhancer_steps"),
    ):  # fmt: skip
        with pytest.raises(MobileBilayerError, match=match):
            train(prepared, tmp_path / "run", 1, **wrong)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(MobileBilayerError, match="file can't be made"):
        train(prepared, tmp_path / "file", 1)
