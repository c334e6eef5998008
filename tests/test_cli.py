"""The command line: what people see when all goes well, and one line when it does not."""

import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mobile_bilayer import cli
from mobile_bilayer.pose.track import Track
from mobile_bilayer.samples import sample_photo, sample_track

needs_model = pytest.mark.skipif(
    "MOBILE_BILAYER_MODELS" not in os.environ, reason="MOBILE_BILAYER_MODELS names no folder with face_landmarker.task"
)
COMMANDS = (
    "animate", "grid", "avatar", "track", "prepare", "distill", "export", "quantize", "train student",
    "train mouth", "train lean", "train teacher", "evaluate fidelity", "evaluate pose", "evaluate groups", "gate", "golden", "inspect", "teacher import",
    "benchmark run", "benchmark show",
)  # fmt: skip
ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(monkeypatch, command_line, tmp_path):
    """run("animate x.jpg"): exit code, stdout and stderr of the command line, called in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return command_line


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Inputs, most of them bad."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "folder").mkdir()
    (folder / "empty.jpg").touch()
    (folder / "empty.mp4").touch()
    (folder / "empty.track").touch()
    (folder / "text.jpg").write_text("This is no photo.\n" * 20)
    (folder / "text.mp4").write_text("This is no video.\n" * 20)
    (folder / "text.track").write_text("This is no track.\n" * 20)
    (folder / "text.avatar").write_text("This is no avatar.\n" * 20)
    rgb, _ = sample_photo("astronaut")
    Image.fromarray(rgb).save(folder / "me.png")
    Image.fromarray(np.full((200, 200, 3), 128, np.uint8)).save(folder / "nobody.png")
    for name, count in (("nobody.mp4", 3), ("me.mp4", 3)):
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
            for i in range(count):
                picture = rgb[:320, 60 + 4 * i : 380 + 4 * i] if name == "me.mp4" else 0 * rgb[:320, :320] + 100
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
            out.mux(stream.encode(None))
    sample_track().save(folder / "talk.track")
    return folder


def only_line(text: str) -> str:
    """The text, when it is exactly one line that begins with "error: "."""
    assert text.startswith("error: ") and text.endswith("\n") and text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_ends_well_and_shows_an_example(run, command):
    code, out, err = run(f"{command} --help")
    assert code == 0 and err == ""
    assert re.search(rf"Examples?:\s+mobile-bilayer {command}", " ".join(out.split()))


def test_every_command_is_in_the_list_above():
    import typer.main

    def leaves(group, names=()):
        for name, command in group.commands.items():
            yield from leaves(command, (*names, name)) if hasattr(command, "commands") else [" ".join((*names, name))]

    assert sorted(leaves(typer.main.get_command(cli.app))) == sorted(COMMANDS)


def test_without_a_command_the_help_is_shown(run):
    for line in ("", "--help", "-h", "train", "evaluate"):
        code, out, err = run(line)
        assert code == (0 if "-h" in line else 2)
        assert "Usage" in out + err and "Traceback" not in out + err


def test_PO4_animate_says_how_often_the_face_was_lost(run, tmp_path):
    whole = sample_track()
    found = np.array([True, True, False])
    Track(whole.landmarks[:3], whole.times_s[:3], found, whole.rate, whole.width, whole.height).save(tmp_path / "a.track")
    code, out, _ = run("animate --driving a.track -o out.mp4")
    assert code == 0 and "No face was seen in 1 of 3 frames" in out


@needs_model
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("animate {}/nobody.png -o out.mp4", "No face found"),
        ("animate {}/text.jpg -o out.mp4", "text.jpg is not a photo"),
        ("animate {}/none.jpg -o out.mp4", "none.jpg does not exist"),
        ("animate {}/folder -o out.mp4", "is a folder"),
        ("animate {}/empty.jpg -o out.mp4", "empty"),
        ("animate {}/me.mp4 -o out.mp4", "a photo is needed"),
        ("animate {}/text.avatar -o out.mp4", "not an avatar"),
        ("animate nobody_we_know -o out.mp4", "does not exist"),
        ("animate --driving {}/empty.mp4 -o out.mp4", "empty"),
        ("animate --driving {}/text.mp4 -o out.mp4", "not a video"),
        ("animate --driving {}/me.png -o out.mp4", "not a video"),
        ("animate --driving {}/nobody.mp4 -o out.mp4", "no face"),
        ("animate --driving {}/none.mp4 -o out.mp4", "does not exist"),
        ("animate --driving {}/folder -o out.mp4", "is a folder"),
        ("animate --driving {}/text.track -o out.mp4", "not a track"),
        ("animate --driving {}/empty.track -o out.mp4", "empty"),
        ("animate --driving camera:front -o out.mp4", "camera:0"),
        ("animate --driving camera:12345678901234567890 -o out.mp4", "camera:0"),
        ("animate --driving camera:97 -o out.mp4", "Camera 97"),
        ("animate --bundle {}/none -o out.mp4", "none does not exist"),
        ("animate --bundle {}/folder -o out.mp4", "manifest.json"),
        ("animate --bundle {}/me.png -o out.mp4", "no bundle"),
        ("animate -o nowhere/out.mp4", "does not exist"),
        ("animate -o /proc/out.mp4", "can't be written"),
        ("animate -o out.avi", "must end in .mp4"),
        ("animate -o .", "is a folder"),
        ("animate --background pink -o out.mp4", "keep, blur"),
        ("animate --background #12 -o out.mp4", "#20a0ff"),
        ("animate --background {}/text.jpg -o out.mp4", "not a photo"),
        ("animate --seconds 0 -o out.mp4", "above 0"),
        ("animate --seconds -3 -o out.mp4", "above 0"),
        ("animate --seconds nan -o out.mp4", "above 0"),
        ("animate --seconds inf -o out.mp4", "above 0"),
        ("animate --seconds soon -o out.mp4", "'--seconds'"),
        ("animate --sideways -o out.mp4", "--sideways"),
        ("animate a.jpg b.jpg -o out.mp4", "b.jpg"),
        ("anamite", "anamite"),
        ("grid {}/none.jpg -o grid.png", "does not exist"),
        ("grid --columns 0 -o grid.png", "columns"),
        ("grid --columns 1000000000 -o grid.png", "columns"),
        ("grid --columns many -o grid.png", "'--columns'"),
        ("grid --driving camera:0 -o grid.png", "not a camera"),
        ("grid -o grid.txt", "must end in"),
        ("avatar {}/nobody.png -o me.avatar", "No face found"),
        ("avatar {}/me.png -o me.png", "must end in .avatar"),
        ("avatar {}/me.png", "--output"),
        ("avatar -o me.avatar", "photo"),
        ("track {}/nobody.mp4 -o talk.track", "no face"),
        ("track {}/empty.mp4 -o talk.track", "empty"),
        ("track {}/none.mp4 -o talk.track", "does not exist"),
        ("track {}/me.mp4 -o talk.txt", "must end in"),
        ("prepare {}/none -o prepared", "none"),
        ("export {}/none --prepared {}/folder -o bundle", "none"),
        ("export {}/text.jpg --prepared {}/folder -o bundle", "weights"),
        ("export {}/text.jpg --prepared {}/folder -o bundle --precision int4", "int4"),
        ("export {}/text.jpg --prepared {}/folder -o bundle --card {}/none.md", "none.md"),
        ("export {}/text.jpg --prepared {}/folder -o {}/folder", "no bundle"),
        ("train student {}/folder -o runs --steps 1", "no prepared clips"),
        ("train student {}/folder -o runs --size XXL", "XXL"),
        ("train mouth {}/folder -o runs --steps 1", "no prepared clips"),
        ("train lean {}/folder -o runs --steps 1 --from {}/text.jpg", "text.jpg"),
        ("train lean {}/folder -o runs --from {}/text.jpg", "--steps"),
        ("train mouth {}/folder -o runs", "--steps"),
        ("train mouth {}/folder -o runs --steps 1 --rate 0", "learning_rate is 0"),
        ("train mouth {}/folder -o runs --steps 1 --from {}/text.jpg", "text.jpg"),
        ("train teacher {}/folder -o runs --steps 1", "no prepared clips"),
        ("train teacher {}/folder -o runs", "--steps"),
        ("train teacher {}/folder -o runs --steps 1 --prior flow", "flow"),
        ("train teacher {}/folder -o runs --steps 1 --loss gan", "--loss gan is not NAME=WEIGHT"),
        ("train teacher {}/folder -o runs --steps 1 --loss gen=1", "no loss 'gen'"),
        ("evaluate fidelity {}/folder", "no prepared clips"),
        ("evaluate fidelity {}/folder --sheet sheet.mp4", "must end in"),
    ],
)
def test_a_bad_input_is_one_line_on_stderr_and_no_output(run, files, tmp_path, line, words):
    """And an older file where the output would go stays as it is."""
    older = tmp_path / "out.mp4"
    older.write_bytes(b"older")
    code, out, err = run([part.replace("{}", str(files)) for part in line.split()])
    assert code == 2 and words in only_line(err)
    assert out == ""
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"] and older.read_bytes() == b"older"


def test_names_with_line_breaks_and_markup_stay_on_one_line(run):
    code, _, err = run(["animate", "a\nb[red].jpg", "-o", "out.mp4"])
    assert code == 2 and "a b[red].jpg does not exist" in only_line(err)


@pytest.mark.parametrize("line", ["animate", "animate --driving", "animate --background", "animate --bundle"])
def test_a_path_that_the_system_refuses_is_one_line_too(run, line):
    """Too long a name; a folder that others may not enter is refused in the same way, but not to root."""
    code, out, err = run(f"{line} {'x' * 300}")
    assert (code, out) == (2, "") and "File name too long" in only_line(err)


def test_every_default_works_offline_and_without_models(run, tmp_path, monkeypatch):
    """Samples, track and bundle come with the package: one line for each stage, one for the file."""
    monkeypatch.delenv("MOBILE_BILAYER_MODELS", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("the network was asked"))
    code, out, err = run("animate --seconds 0.12")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["decode", "landmarks", "network", "composite", "encode", "out.mp4:"]
    assert all(re.fullmatch(r"\w+ +(-|\d+\.\d\d ms a frame \(median\))", line) for line in lines[:-1])
    assert re.fullmatch(r"out\.mp4: 3 frames in \d+\.\d s, \d+\.\d FPS", lines[-1])
    code, out, err = run("grid --columns 1")
    assert (code, out, err) == (0, "grid.png\n", "")
    code, out, err = run("avatar astronaut -o me.avatar")
    assert (code, err) == (0, "") and re.fullmatch(r"me\.avatar: \d+ kB\n", out)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["grid.png", "me.avatar", "out.mp4"]
    assert Image.open("grid.png").size == (512, 768)


@needs_model
def test_a_video_becomes_a_track_and_drives_side_by_side(run, files):
    code, out, err = run(f"track {files}/me.mp4 -o talk.track")
    assert (code, out, err) == (0, "talk.track: 3 frames, a face in 100%\n", "")
    code, out, err = run("animate grace_hopper --driving talk.track --side-by-side --background blur -o both.mp4")
    assert (code, err) == (0, "") and len(out.splitlines()) == 6
    with av.open("both.mp4") as container:
        assert (container.streams.video[0].width, container.streams.video[0].frames) == (768, 3)


def test_a_warning_is_one_line_too(run, monkeypatch):
    """Without the place in our code that Python would name."""
    import warnings

    from mobile_bilayer.runtime import bundle

    def warn_and_fail(path):
        warnings.warn(f"{path} is damaged after 7 frames;\n the rest is left out.", stacklevel=2)
        raise cli.MobileBilayerError("And that was all.")

    monkeypatch.setattr(bundle.Bundle, "open", warn_and_fail)
    code, _, err = run("animate --bundle talk")
    assert code == 2
    assert err == "warning: talk is damaged after 7 frames; the rest is left out.\nerror: And that was all.\n"


def as_people_do(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mobile_bilayer", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_in_a_process_of_its_own_an_error_is_one_line_on_the_real_stderr(files, tmp_path):
    done = as_people_do("animate", str(files / "text.jpg"), folder=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "text.jpg is not a photo" in only_line(done.stderr)
    assert not list(tmp_path.iterdir())


@needs_model
def test_in_a_process_of_its_own_a_photo_is_animated_and_stderr_stays_empty(files, tmp_path):
    """MediaPipe, torch and ExecuTorch chat past Python: none of that may be seen."""
    done = as_people_do("animate", str(files / "me.png"), "--driving", str(files / "me.mp4"), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("out.mp4: 3 frames")
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_the_installed_cv2_has_the_version_that_both_opencv_packages_are_pinned_to():
    """They share the folder cv2, so that the last one installed wins: at one version it does not matter which."""
    import cv2
    import cv2.version

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = dict(line.split("==") for line in wanted if line.startswith("opencv"))
    assert set(pins) == {"opencv-python", "opencv-contrib-python"} and len(set(pins.values())) == 1
    assert cv2.version.opencv_version == pins["opencv-python"]  # cv2.__version__ and the package's build
    assert cv2.version.opencv_version.startswith(cv2.__version__)


def test_importing_the_package_and_asking_for_help_load_neither_torch_nor_mediapipe():
    code = (
        "import sys, mobile_bilayer, mobile_bilayer.cli; "
        "print([m for m in ('torch', 'executorch', 'mediapipe', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
