"""The command line: parse, call one function, print one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mobile_bilayer.errors import MobileBilayerError

if TYPE_CHECKING:
    from mobile_bilayer.evaluation.fidelity import Fidelity
    from mobile_bilayer.runtime.inspection import Inspection, Value
    from mobile_bilayer.student.network import StudentConfig

app = typer.Typer(
    name="mobile-bilayer",
    help="A live neural head avatar from one photo, small enough for a phone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(help="Train networks of your own.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Measure how good students are, and how steady.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
teacher_app = typer.Typer(help="The paper's full-size networks.", no_args_is_help=True)
app.add_typer(teacher_app, name="teacher")
benchmark_app = typer.Typer(help="What whole frames cost, on this machine and on phones.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")

out = Console()

BundleOption = Annotated[Path | None, typer.Option("--bundle", help="A bundle folder or zip; default: the shipped one.")]
MotionOption = Annotated[
    str, typer.Option(help="relative: as the driver, with the photo's own face; absolute: for a driver who is in the photo.")
]
NeutralOption = Annotated[
    int | None,
    typer.Option(help="The driver's frame, from 0, that means as in the photo. Default: found from all.", show_default=False),
]
BackgroundOption = Annotated[str, typer.Option(help="Behind the person: keep, blur, #rrggbb or a picture file.")]


@app.command(
    epilog="Examples:  mobile-bilayer animate  ·  mobile-bilayer animate me.jpg --driving talk.mp4 --side-by-side  ·  "
    "mobile-bilayer animate me.avatar --driving camera:0 --seconds 20 --background blur"
)
def animate(
    source: Annotated[
        str | None,
        typer.Argument(help="A photo, a .avatar file, or a sample: astronaut (default), grace_hopper.", show_default=False),
    ] = None,
    driving: Annotated[
        str | None,
        typer.Option(help="A video, a .track file or camera:0. Default: the shipped track.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="MP4 to write.")] = Path("out.mp4"),
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Show source, driver and result.")] = False,
    background: BackgroundOption = "keep",
    motion: MotionOption = "relative",
    neutral: NeutralOption = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds of the driver.")] = None,
    bundle: BundleOption = None,
) -> None:
    """Move a photo like a driver: write a video."""
    from mobile_bilayer.runtime.animate import STAGES, animate
    from mobile_bilayer.runtime.bundle import Bundle

    with progress_bar() as on_progress:
        report = animate(
            source,
            driving,
            output,
            bundle=Bundle.open(bundle),
            side_by_side=side_by_side,
            background=background,
            motion=motion,
            neutral=neutral,
            seconds=seconds,
            on_progress=on_progress,
        )
    for stage in STAGES:
        cost = report.median_ms(stage)
        out.print(f"{stage:<10} " + ("      -" if cost is None else f"{cost:7.2f} ms a frame (median)"))
    if report.lost:
        out.print(f"No face was seen in {report.lost} of {report.frames} frames: the pose was held, then eased to neutral.")
    out.print(
        f"{report.output}: {report.frames} frames in {report.wall_s:.1f} s, {report.frames_per_second:.1f} FPS", soft_wrap=True
    )


@app.command(epilog="Examples:  mobile-bilayer grid astronaut grace_hopper  ·  mobile-bilayer grid a.jpg b.jpg --driving talk.mp4 -o grid.mp4")
def grid(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Photos, .avatar files or samples. Default: both samples.", show_default=False)
    ] = None,
    driving: Annotated[
        str | None, typer.Option(help="A video or a .track file. Default: the shipped track.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture (.png, .jpg) or .mp4 to write.")] = Path("grid.png"),
    columns: Annotated[int, typer.Option(help="Frames of the driver in a picture: those that differ most.")] = 6,
    background: BackgroundOption = "keep",
    motion: MotionOption = "relative",
    neutral: NeutralOption = None,
    bundle: BundleOption = None,
) -> None:
    """Several photos, one driver: a table of pictures below the driver's stickman."""
    from mobile_bilayer.runtime.animate import grid
    from mobile_bilayer.runtime.bundle import Bundle
    from mobile_bilayer.samples import SAMPLES

    with progress_bar() as on_progress:
        path = grid(
            sources or list(SAMPLES),
            driving,
            output,
            bundle=Bundle.open(bundle),
            columns=columns,
            background=background,
            motion=motion,
            neutral=neutral,
            on_progress=on_progress,
        )
    out.print(str(path), soft_wrap=True)


@app.command(epilog="Example:  mobile-bilayer avatar me.jpg -o me.avatar  ·  mobile-bilayer animate me.avatar")
def avatar(
    photo: Annotated[str, typer.Argument(help="A photo, or a sample: astronaut, grace_hopper.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, NAME.avatar.")],
    bundle: BundleOption = None,
) -> None:
    """Make an avatar once, to animate it many times."""
    from mobile_bilayer.capture.images import check_output
    from mobile_bilayer.runtime.animate import open_avatar
    from mobile_bilayer.runtime.bundle import Bundle

    check_output(output, (".avatar",))
    open_avatar(photo, Bundle.open(bundle)).save(output)
    out.print(f"{output}: {output.stat().st_size / 1000:.0f} kB", soft_wrap=True)


@app.command(epilog="Example:  mobile-bilayer track talk.mp4 -o talk.track  ·  mobile-bilayer animate me.jpg --driving talk.track")
def track(
    video: Annotated[Path, typer.Argument(help="A video of one face.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, NAME.track.")],
) -> None:
    """Keep a video's landmarks, to drive with them without the video."""
    from mobile_bilayer.capture.images import check_output
    from mobile_bilayer.capture.tracking import track_video
    from mobile_bilayer.capture.video import VideoReader
    from mobile_bilayer.pose.track import TRACK_SUFFIXES

    check_output(output, TRACK_SUFFIXES)
    reader = VideoReader(video)
    with progress_bar() as on_progress:
        done = iter(range(1, 10**9))
        found = track_video(reader, lambda _: on_progress("Tracking", next(done), reader.frames), str(video)).track
    found.save(output)
    out.print(f"{output}: {len(found)} frames, a face in {found.found.mean():.0%}", soft_wrap=True)


@app.command(epilog="Examples:  mobile-bilayer prepare videos/ -o prepared/  ·  mobile-bilayer prepare videos/ -o prepared/ --shard 2/8")
def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of videos, or with an index.csv (file, identity, split, kind, licence).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of tars of prepared clips; finished clips are kept.")],
    split: Annotated[str | None, typer.Option(help="Only rows of index.csv with this split.")] = None,
    fps: Annotated[float, typer.Option(help="Frames a second to take.")] = 8.0,
    jobs: Annotated[int, typer.Option(help="Clips at once.")] = 2,
    shard: Annotated[str, typer.Option(help="Which part of the tars, 1/N to N/N: N calls can fill one folder at once.")] = "1/1",
) -> None:
    """Crop, track and mask clips, to train and evaluate on them. Continues where it stopped.

    A clip that fails is left out, and not tried again; to try, delete the tar that it would be in.
    """
    from mobile_bilayer.dataset.prepare import parse_share, prepare

    with progress_bar() as on_progress:
        result = prepare(data, output, split, fps, jobs, parse_share(shard), on_progress)
    for reason in result.left_out:
        out.print(f"left out {reason}", soft_wrap=True, markup=False, highlight=False)
    if result.left_out and not result.clips:
        raise MobileBilayerError(f"No clip of {data} could be prepared; the reasons are above.")
    out.print(f"{output}: {result.clips} clips in {result.tars} tars, {len(result.left_out)} left out", soft_wrap=True)


@train_app.command(epilog="Example:  mobile-bilayer train student prepared/ -o runs/mine --minutes 120")
def student(
    prepared: Annotated[Path, typer.Argument(help="Folder that `mobile-bilayer prepare` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of checkpoint, weights, log and sheets; continued if it is there.")],
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes of training in all.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    size: Annotated[str, typer.Option(help="XS, S, M, or S-whole, of which `train lean` makes an S.")] = "S",
    start: Annotated[
        Path | None, typer.Option("--from", help="Begin with these weights, of any size, instead of random ones.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    workers: Annotated[int, typer.Option(help="Processes that read data.")] = 1,
    seed: Annotated[int, typer.Option(help="Of weights and pairs.")] = 0,
) -> None:
    """Train a student on pairs of frames. Ctrl-C is safe: the same command continues."""
    with _extra("train"):
        from mobile_bilayer.training.student import TrainingConfig, train_student

    training = TrainingConfig(learning_rate=rate, seed=seed)
    path = train_student(
        prepared, output, _size(size), training, steps=steps, minutes=minutes, start=start, workers=workers
    )
    out.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@train_app.command(epilog="Example:  mobile-bilayer train mouth prepared/ -o runs/mouth --from runs/mine/student.safetensors --minutes 40")
def mouth(
    prepared: Annotated[Path, typer.Argument(help="Folder that `mobile-bilayer prepare` wrote, with people who speak or laugh.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of checkpoint, weights, log and sheets; continued if it is there.")],
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes of training in all.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="The student that learns. Default: the shipped one.", show_default=False)
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="Whose layers are kept elsewhere: of a further run, what the first began with. Default: --from.", show_default=False),
    ] = None,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 6e-4,
    workers: Annotated[int, typer.Option(help="Processes that read data.")] = 1,
    seed: Annotated[int, typer.Option(help="Of pairs.")] = 0,
) -> None:
    """Teach a trained student teeth, and hold all else of it to what it was. Ctrl-C is safe: the same command continues."""
    with _extra("train"):
        from mobile_bilayer.training.mouth import MouthTraining, train_mouth

    from mobile_bilayer.student.weights import SHIPPED

    training = MouthTraining(learning_rate=rate, seed=seed)
    path = train_mouth(prepared, output, start or SHIPPED, training, steps=steps, minutes=minutes, like=like, workers=workers)
    out.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@train_app.command(
    epilog="Examples:  mobile-bilayer train lean prepared/ -o runs/lean --from runs/mine/student.safetensors --minutes 20  ·  "
    "mobile-bilayer train lean prepared/ -o runs/lean2 --from runs/mine/student.safetensors --begin runs/lean/student.safetensors "
    "--labels 240 --rate 2e-3 --minutes 10"
)
def lean(
    prepared: Annotated[Path, typer.Argument(help="Folder that `mobile-bilayer prepare` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of checkpoint, weights, log and sheets; continued if it is there.")],
    start: Annotated[Path, typer.Option("--from", help="A student that is not as lean.", show_default=False)],
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes of training in all.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    begin: Annotated[
        Path | None, typer.Option(help="A lean one made out of it before, to begin with.", show_default=False)
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="With --labels: a teacher's weights, or a student's. Default: the shipped teacher.", show_default=False)
    ] = None,
    labels: Annotated[int, typer.Option(help="Pairs of different people that a teacher renders before, to be learned too.")] = 0,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 4e-3,
    workers: Annotated[int, typer.Option(help="Processes that read data.")] = 1,
    seed: Annotated[int, typer.Option(help="Of pairs and labels.")] = 0,
) -> None:
    """Make a student quicker, S by a quarter: a leaner U-Net learns what its own gives. Ctrl-C is safe: the same command continues."""
    with _extra("train"):
        from mobile_bilayer.training.lean import LeanTraining, train_lean

    training = LeanTraining(learning_rate=rate, seed=seed)
    path = train_lean(
        prepared, output, start, training, steps=steps, minutes=minutes, begin=begin, teacher=teacher, labels=labels, workers=workers,
        progress=progress_bar,
    )  # fmt: skip
    out.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@train_app.command(
    epilog="Examples:  mobile-bilayer train teacher prepared/ -o runs/teacher --minutes 120  ·  "
    "mobile-bilayer train teacher shards/ -o runs/gan --steps 100000 --devices 4 --loss gan=0.5 --loss feature_matching=10  ·  "
    "torchrun --nproc-per-node 8 $(which mobile-bilayer) train teacher shards/ -o runs/paper --prior none --steps 500000"
)
def teacher(
    prepared: Annotated[Path, typer.Argument(help="Folder that `mobile-bilayer prepare` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of checkpoint, weights, logs and sheets; continued if it is there.")],
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes of training in all.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    prior: Annotated[str, typer.Option(help="landmark: starts from the landmark warp; none: the paper's networks.")] = "landmark",
    start: Annotated[
        Path | None, typer.Option("--from", help="Begin with a teacher's weights, or a student's for the coarse stage.")
    ] = None,
    loss: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=WEIGHT, again and again; 0 switches off. "
            "l1, lpips, lf, mask, alpha, gan, feature_matching, vgg19, vggface.",
            show_default=False,
        ),
    ] = None,
    vgg19: Annotated[Path | None, typer.Option(help="VGG19's weights (torchvision), for its loss; the paper's weight is 10.")] = None,
    vggface: Annotated[Path | None, typer.Option(help="VGGFace's weights, for its loss; the paper's weight is 0.01.")] = None,
    sources: Annotated[int | None, typer.Option(help="Of a step, all processes together.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate.", show_default=False)] = None,
    devices: Annotated[int, typer.Option(help="GPUs, or processes on a CPU.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, 32-true or bf16-mixed.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that read data, of each training process.")] = 1,
    sheet_every: Annotated[int, typer.Option(help="Steps between validations, each with a sheet.")] = 500,
    seed: Annotated[int, typer.Option(help="Of weights and pairs.")] = 0,
) -> None:
    """Train the full-size teacher. Ctrl-C is safe: the same command continues where it stopped."""
    from dataclasses import replace

    with _extra("train"):
        from mobile_bilayer.training.teacher import PAPER_TRAINING, TeacherTraining, train_teacher
    from mobile_bilayer.teacher import TeacherConfig, load_teacher
    from mobile_bilayer.teacher.landmark import LANDMARK

    shapes = {"landmark": (LANDMARK, TeacherTraining()), "none": (TeacherConfig(enhancer_steps=0), PAPER_TRAINING)}
    if prior not in shapes:
        raise MobileBilayerError(f"There is no prior {prior!r}. Choose one of {', '.join(shapes)}.")
    config, training = shapes[prior]
    if start is not None and prior == "none":  # of any size; its enhancer, if it has one, is left out
        config = replace(load_teacher(start)[0].config, enhancer_steps=0)
    losses = dict(training.losses)
    for given in loss or []:
        name, _, weight = given.partition("=")
        try:
            losses[name] = float(weight)
        except ValueError as error:
            raise MobileBilayerError(f"--loss {given} is not NAME=WEIGHT. Try --loss gan=0.5.") from error
    chosen = {"sources": sources, "learning_rate": rate}
    training = replace(training, losses=losses, seed=seed, **{k: v for k, v in chosen.items() if v is not None})
    path = train_teacher(
        prepared,
        output,
        config,
        training,
        steps=steps,
        minutes=minutes,
        start=start,
        vgg19=vgg19,
        vggface=vggface,
        workers=workers,
        devices=devices,
        precision=precision,
        sheet_every=sheet_every,
    )
    if path is not None:
        out.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@app.command(
    epilog="Examples:  mobile-bilayer distill prepared/ -o runs/xs --size XS --minutes 60  ·  "
    "mobile-bilayer distill prepared/ -o runs/m --size M --teacher runs/teacher/teacher.safetensors --minutes 120"
)
def distill(
    prepared: Annotated[Path, typer.Argument(help="Folder that `mobile-bilayer prepare` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of labels, checkpoint, weights, log and sheets; continued if it is there.")],
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes of training in all.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps in all.")] = None,
    size: Annotated[str, typer.Option(help="XS, S, M, or S-whole, of which `train lean` makes an S.")] = "S",
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher's weights, or a larger student's. Default: the shipped teacher.", show_default=False)
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="A student's weights to begin with, of any size. Default: the shipped one.", show_default=False),
    ] = None,
    labels: Annotated[int, typer.Option(help="Pairs of different people that the teacher renders before.")] = 400,
    outside: Annotated[
        float, typer.Option(help="Weight of what the teacher shows outside of mouth and eyes, 1 inside. For a good one, 0.1.")
    ] = 0.0,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    workers: Annotated[int, typer.Option(help="Processes that read data.")] = 1,
    seed: Annotated[int, typer.Option(help="Of pairs and labels.")] = 0,
) -> None:
    """Teach a student with a teacher, beside real pairs. Ctrl-C is safe: the same command continues where it stopped."""
    with _extra("train"):
        from mobile_bilayer.training.distill import distill

    path = distill(
        prepared,
        output,
        _size(size),
        teacher=teacher,
        start=start,
        labels=labels,
        outside=outside,
        rate=rate,
        steps=steps,
        minutes=minutes,
        workers=workers,
        seed=seed,
        progress=progress_bar,
    )
    out.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@app.command(
    epilog="Examples:  mobile-bilayer export runs/mine/student.safetensors --prepared prepared/ -o my-bundle  ·  "
    "mobile-bilayer export runs/mine/student.safetensors --prepared prepared/ -o my-bundle --backend coreml --precision w8a8  ·  "
    "mobile-bilayer export runs/mine/student.safetensors --prepared prepared/ -o my-bundles --backend all  ·  "
    "mobile-bilayer export mine.safetensors --module my_network:load --prepared prepared/ -o my-bundle"
)
def export(
    weights: Annotated[Path, typer.Argument(help="What `train student` wrote; with --module, what its factory takes.")],
    prepared: Annotated[Path, typer.Option(help="Prepared clips, to calibrate on and to compare with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write; with --backend all, a folder of bundles.")],
    backend: Annotated[
        str,
        typer.Option(help="xnnpack (Android, iOS, this machine), coreml (packages), vulkan, coreml-delegate, qnn (ExecuTorch), or all of them but qnn."),
    ] = "xnnpack",
    precision: Annotated[
        str | None,
        typer.Option(
            help="xnnpack: int8 (default), fp32; coreml: fp16 (default), w8a8, w8, palettized6, palettized4; "
            "vulkan: fp16 (default), fp32, int8; coreml-delegate: fp16 (default), w8a8; qnn: fp16.",
            show_default=False,
        ),
    ] = None,
    ios: Annotated[
        int | None, typer.Option(help="coreml: for this iOS and newer; default: the oldest that can.", show_default=False)
    ] = None,
    image_input: Annotated[bool, typer.Option("--image-input", help="coreml: the photo goes in as a picture.")] = False,
    soc: Annotated[str | None, typer.Option(help="qnn: the processor, as SM8650.", show_default=False)] = None,
    module: Annotated[
        str | None,
        typer.Option(help="A network of your own: package:factory, called with WEIGHTS. Its code is run.", show_default=False),
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Model card, Markdown; default: made from the weights' own facts.")] = None,
) -> int:
    """Write a bundle that a phone can load, if it does what the student does: run or evaluated here; vulkan and qnn are lowered only."""
    from mobile_bilayer.capture.images import check_input

    text = None if card is None else check_input(card, "model card").read_text("utf-8", "replace")
    if backend == "all":
        if precision is not None or ios is not None or image_input or soc is not None:
            raise MobileBilayerError("--backend all has the usual precisions. Leave --precision, --ios, --image-input and --soc out.")
        return _export_all(weights, prepared, output, card=text, module=module)
    options = {"backend": backend, "precision": precision, "ios": ios, "image_input": image_input, "soc": soc}
    _export(weights, prepared, output, card=text, module=module, **options)
    return 0


def _export(weights: Path, prepared: Path, output: Path, **options: object) -> None:
    """`export_proven`, and what it found on pairs that it was not calibrated on."""
    from mobile_bilayer.runtime.executorch_file import quiet_runtime

    quiet_runtime()  # before what export imports: that would have its say
    from mobile_bilayer.export.bundle import export_proven

    with out.status("Exporting; this takes some minutes"):
        bundle, proof = export_proven(weights, prepared, output, **options)
    size = sum(len(data) for data in bundle.contents.values())
    for name, error in proof.errors.items():
        out.print(f"{name:<18} at most {error.largest:.5f} from the float student")
    for check in proof.checks:
        out.print(check)
    out.print(f"Needs {bundle.manifest.minimum_runtime}.")
    out.print(f"{output}: {size / 1e6:.2f} MB", soft_wrap=True)


def _export_all(weights: Path, prepared: Path, output: Path, **options: object) -> int:
    """Each backend's usual bundle, and one table of them. Exit code 1 when one failed."""
    from mobile_bilayer.runtime.executorch_file import quiet_runtime

    quiet_runtime()
    from mobile_bilayer.export.bundle import export_all

    with progress_bar() as on_progress:
        rows = export_all(weights, prepared, output, on_progress, **options)
    table = Table("", title="Errors are shares of what is allowed", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for row in rows:
        table.add_column(f"{row.backend}\n{row.precision}", justify="right", vertical="bottom", overflow="fold")
    made = [row for row in rows if row.proof is not None]
    table.add_row("size, MB", *("–" if row.proof is None else f"{row.size / 1e6:.2f}" for row in rows))
    table.add_row("delegated", *("–" if row.proof is None else f"{row.proof.share:.1%}" for row in rows))
    for name in made[0].proof.errors if made else ():
        shares = ("–" if row.proof is None else f"{row.proof.of_allowed(row.precision)[name]:.0%}" for row in rows)
        table.add_row(name, *shares)
    table.add_row("proof", *("failed" if row.proof is None else row.proof.how for row in rows))
    out.print(table)
    for row in rows:
        if row.proof is None:
            out.print(f"{row.backend}: {row.failure}", soft_wrap=True, markup=False)
        else:
            out.print(str(row.path), soft_wrap=True, markup=False)
    return 0 if len(made) == len(rows) else 1


@app.command(
    epilog="Examples:  mobile-bilayer quantize runs/mine/student.safetensors prepared/ -o my-bundle  ·  "
    "mobile-bilayer quantize runs/mine/student.safetensors prepared/ -o my-bundle --qat --minutes 20  ·  "
    "mobile-bilayer quantize runs/mine/student.safetensors prepared/ -o damage --sensitivity  ·  "
    "mobile-bilayer quantize runs/mine/student.safetensors prepared/ -o table --compare --pictures prepared-eval/"
)
def quantize(
    weights: Annotated[Path, typer.Argument(help="What `train student` wrote: float weights.")],
    prepared: Annotated[Path, typer.Argument(help="Prepared clips, to calibrate on, to train on and to compare with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write; of the two reports, a folder for tables.")],
    calibration: Annotated[int, typer.Option(help="Pairs to calibrate on.")] = 128,
    observer: Annotated[str, typer.Option(help="How ranges are found: histogram, minmax or moving.")] = "minmax",
    qat: Annotated[bool, typer.Option("--qat", help="Train on with int8's rounding first. Ctrl-C is safe: the same command continues.")] = False,
    minutes: Annotated[float | None, typer.Option(help="With --qat: end after so many minutes of training in all.")] = None,
    steps: Annotated[int | None, typer.Option(help="With --qat: end after so many steps in all.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="With --qat: folder of checkpoint, weights, log. Default: OUTPUT-qat.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(help="With --qat: processes that read data.")] = 1,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Instead: make one part at a time int8, and rank the damage.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Instead: float, fp16, int8 and, with coremltools, int8 and palettized weights alone, in one table.")] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="With --compare: prepared clips of other people to measure on.", show_default=False)
    ] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(help="With --compare: bundles to add to the table, as one made with --qat.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="With --compare: without identity and jitter, which must find faces.")] = False,
) -> None:
    """Make an int8 bundle of float weights, and prove it. Or see what int8 costs: --sensitivity, --compare."""
    from mobile_bilayer.runtime.executorch_file import quiet_runtime

    quiet_runtime()
    from mobile_bilayer.quantization.recipes import Recipe

    recipe = Recipe(observer=observer)
    if sum((qat, sensitivity, compare)) > 1:
        raise MobileBilayerError("--qat, --sensitivity and --compare are three things to do. Give one of them.")
    if not qat and (minutes is not None or steps is not None):
        raise MobileBilayerError("--minutes and --steps are of training. Give --qat too.")
    if not qat and run is not None:
        raise MobileBilayerError("--run is the folder of training. Give --qat too.")
    if not compare and (pictures is not None or bundle or quick):
        raise MobileBilayerError("--pictures, --bundle and --quick are of the table. Give --compare too.")
    if sensitivity:
        from mobile_bilayer.quantization.sensitivity import measure_sensitivity, sensitivity_table, write_sensitivity

        with progress_bar() as on_progress:
            damages = measure_sensitivity(weights, prepared, calibration, recipe, on_progress)
        out.print(sensitivity_table(damages))
        for path in write_sensitivity(output, damages):
            out.print(str(path), soft_wrap=True)
        return
    if compare:
        with _extra("evaluation"):
            from mobile_bilayer.quantization.compare import compare_precisions, comparison_table, write_comparison
        with progress_bar() as on_progress:
            rows = compare_precisions(
                weights, prepared, pictures or prepared, bundle or [], calibration, recipe, quick, on_progress
            )
        out.print(comparison_table(rows))
        for path in write_comparison(output, rows):
            out.print(str(path), soft_wrap=True)
        return
    from mobile_bilayer.export.bundle import check_folder

    check_folder(output)
    trained = None
    if qat:
        with _extra("train"):
            from mobile_bilayer.quantization.aware import converted_student, train_aware

        folder = run or output.with_name(f"{output.name}-qat")
        weights, trained = train_aware(
            weights, prepared, folder, recipe, steps=steps, minutes=minutes, workers=workers
        )
        out.print(str(weights), soft_wrap=True)
        trained = converted_student(trained, recipe)
    _export(weights, prepared, output, recipe=recipe, calibration=calibration, trained=trained)


@evaluate_app.command(
    epilog="Examples:  mobile-bilayer evaluate fidelity prepared-eval/ --report report.html --json fidelity.json  ·  "
    "mobile-bilayer evaluate fidelity prepared-eval/ --student my-bundle --student runs/mine/student.safetensors --quick"
)
def fidelity(
    prepared: Annotated[Path, typer.Argument(help="Prepared clips of people never trained on.")],
    student: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `train student` wrote, or a bundle; again and again. Default: the shipped bundle.", show_default=False
        ),
    ] = None,
    teacher: Annotated[Path | None, typer.Option(help="A teacher's weights, to be measured beside it.", show_default=False)] = None,
    targets: Annotated[int, typer.Option(help="Frames of each clip.")] = 4,
    frames: Annotated[int, typer.Option(help="Frames behind each other, for jitter and flicker; 0: without these.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Without key-points, identity and jitter, which must find faces.")] = False,
    json: Annotated[Path | None, typer.Option(help="Report to write (.json): means, intervals, every pair's values.")] = None,
    report: Annotated[Path | None, typer.Option(help="Report to look at (.html): tables, pictures, worst clips.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet to write (.png, .jpg).")] = None,
) -> None:
    """How close renders come to real frames, and how steady they are: static photo, landmark warp, students, teacher."""
    from mobile_bilayer.capture.images import write_image

    with _extra("evaluation"):
        from mobile_bilayer.evaluation.fidelity import evaluate_fidelity
        from mobile_bilayer.evaluation.methods import open_students, open_teacher
        from mobile_bilayer.evaluation.report import Gallery, write_report
    _check_reports(json, sheet, report)
    measured = open_students(student or [None])
    if teacher is not None:
        measured.append(open_teacher(teacher))
    methods, made_by = {m.name: m.method for m in measured}, {m.name: m.made_by for m in measured}
    gallery = None if report is None else Gallery()
    with _extra("evaluation"), progress_bar() as on_progress:
        result = evaluate_fidelity(
            prepared, methods, targets, quick=quick, frames=frames, on_progress=on_progress, on_clip=gallery
        )
    _print_fidelity(result)
    if json is not None:
        result.save(json, made_by)
        out.print(str(json), soft_wrap=True)
    if gallery is not None:
        write_report(report, result, gallery, made_by)
        out.print(f"{report}: {report.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    if sheet is not None:
        write_image(sheet, result.sheet)
        out.print(str(sheet), soft_wrap=True)


def _print_fidelity(result: Fidelity) -> None:
    """Tables, narrow, so that numbers stay whole on 80 columns: what is compared with real frames, what moves, what is new."""
    from mobile_bilayer.evaluation.fidelity import REAL
    from mobile_bilayer.evaluation.metrics import (
        ARROWS,
        FACE_METRICS,
        METRICS,
        PART_METRICS,
        PIXEL_METRICS,
        STEADY_METRICS,
    )

    def show(title: str, metrics: list[str], rows: dict[str, dict[str, float]], lost: dict[str, int], caption: str | None) -> None:
        table = Table("", title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        arrows = {METRICS[k].title: ARROWS[METRICS[k].better] for k in metrics}
        for words, arrow in (arrows | ({"no face": "↓"} if lost else {})).items():
            table.add_column("\n".join([*words.split(), arrow]), justify="right", vertical="bottom", no_wrap=True)
        for name, row in rows.items():
            # Where faces are lost there is no number; elsewhere NaN is a fault to be seen.
            values = {k: row.get(k, nan) for k in metrics}
            numbers = ("–" if isnan(v) and k not in PIXEL_METRICS else f"{v:.{METRICS[k].digits}f}" for k, v in values.items())
            table.add_row(name, *numbers, *([str(lost[name])] if lost else []))
        out.print(table)

    title = f"{result.pairs} pairs of {len(result.clips)} clips, {result.people} people; ↓ lower is better, ↑ higher"
    caption = None
    if result.targets_lost:
        caption = f"In {result.targets_lost} real frames no face is found: they are left out of the last three columns."
    compared = [name for name in result.metrics if name in PIXEL_METRICS | FACE_METRICS]
    show(title, compared, result.table, result.lost, caption)
    if result.settings.frames:
        steady = [name for name in result.metrics if name in STEADY_METRICS]
        rows = {REAL: result.real, **result.table}
        show(f"{result.settings.frames} frames behind each other, and steps between them", steady, rows, {}, None)
    if new := [name for name in result.metrics if name in PART_METRICS]:
        counts = ", ".join(f"{METRICS[name].title} in {result.count(name)} pairs" for name in new)
        show(f"What the source does not show: {counts}", new, result.table, {}, None)


@evaluate_app.command(
    epilog="Examples:  mobile-bilayer evaluate pose clips/ photos/ --sheet sheet.png --json pose.json  ·  "
    "mobile-bilayer evaluate pose clips/ photos/ --quick"
)
def pose(
    clips: Annotated[Path, typer.Argument(help="Folder of videos or .track files: drivers.")],
    photos: Annotated[Path, typer.Argument(help="Folder of photos of other people: sources.")],
    bundle: BundleOption = None,
    sources: Annotated[int, typer.Option(help="Photos to take, evenly spread.")] = 20,
    drivers: Annotated[int, typer.Option(help="Clips that drive all of them, evenly spread.")] = 5,
    frames: Annotated[int, typer.Option(help="Frames of each pair to look at.")] = 8,
    quick: Annotated[bool, typer.Option("--quick", help="Jitter alone, without looking for faces in what is rendered.")] = False,
    json: Annotated[Path | None, typer.Option(help="Report to write (.json): means, intervals, every frame's values.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet to write (.png, .jpg).")] = None,
) -> None:
    """Whether it shakes, and whether faces stay their own: jitter, identity, eyes and lips, in both modes."""
    from mobile_bilayer.capture.images import write_image
    from mobile_bilayer.runtime.bundle import Bundle, bundle_title

    with _extra("evaluation"):
        from mobile_bilayer.evaluation.pose import POSE_METRICS, evaluate_pose, load_drivers, load_sources
    _check_reports(json, sheet)
    opened = Bundle.open(bundle)
    with _extra("evaluation"), progress_bar() as on_progress:
        avatars = load_sources(photos, sources, opened)
        result = evaluate_pose(load_drivers(clips, on_progress), avatars, drivers, frames, quick, on_progress)
    if not quick:
        title = f"{result.settings.drivers} drivers on {result.settings.sources} photos, {result.settings.frames} frames each"
        table = Table("", title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for column in (*(m.title + " ↓" for m in POSE_METRICS.values()), "same person ↑", "no face ↓"):
            table.add_column(column, justify="right", no_wrap=True)
        for mode, row in result.table.items():
            numbers = [f"{row[name]:.{metric.digits}f}" for name, metric in POSE_METRICS.items()]
            table.add_row(mode, *numbers, f"{row['same_person']:.1%}", f"{row['no_face']:.0f}")
        out.print(table)
    for kind, words in (("file", "from files"), ("live", "live")):
        ratio, name = result.worst_ratios[kind]
        out.print(
            f"jitter {words}: {result.mean_ratios[kind]:.2f} of the driver's, at most {ratio:.2f} ({name}), "
            f"{len(result.jitter)} clips",
            soft_wrap=True,
            markup=False,
        )
    if json is not None:
        result.save(json, bundle_title(Path(opened.where)))
        out.print(str(json), soft_wrap=True)
    if sheet is not None:
        write_image(sheet, result.sheet)
        out.print(str(sheet), soft_wrap=True)


@evaluate_app.command(epilog="Example:  mobile-bilayer evaluate groups groups.csv --data videos/ --json groups.json")
def groups(
    table: Annotated[Path, typer.Argument(metavar="GROUPS", help="CSV: file (video or photo), group; a row for each group of a file.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the files' paths begin from. Default: the CSV's.", show_default=False)
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of each video, from its start.")] = 50,
    json: Annotated[Path | None, typer.Option(help="Report to write (.json).")] = None,
) -> None:
    """Whose faces are lost and whose eyes misread: by group, and in dim light, with glasses and hats drawn on."""
    from mobile_bilayer.evaluation.groups import evaluate_groups, read_groups

    _check_reports(json, None)
    files = read_groups(table, data)
    with progress_bar() as on_progress:
        result = evaluate_groups(files, frames, on_progress)
    shown = Table("group", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("files", "pictures", "found ↑", "wrong pose ↓", "eye gap error ↓"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in result.rows:
        wrong = "-" if row.wrong is None else f"{row.wrong:.1%}"
        gap = "-" if row.gap is None else f"{row.gap:.1f} %"
        shown.add_row(Text(row.group), str(row.files), str(row.pictures), f"{row.found:.1%}", wrong, gap)
    out.print(shown)
    if json is not None:
        result.save(json)
        out.print(str(json), soft_wrap=True)


@app.command(
    epilog="Examples:  mobile-bilayer gate --short  ·  mobile-bilayer gate --bundle my-bundle --json gate.json  ·  mobile-bilayer gate --tighten"
)
def gate(
    short: Annotated[bool, typer.Option("--short", help="Leave out what takes minutes.")] = False,
    bundle: BundleOption = None,
    json: Annotated[Path | None, typer.Option(help="Report to write (.json).", show_default=False)] = None,
    tighten: Annotated[bool, typer.Option("--tighten", help="Move the gates that are beaten beyond their margin.")] = False,
    make_reference: Annotated[
        bool, typer.Option("--make-reference", help="Instead: render with the teacher what the gate compares with.")
    ] = False,
    table: Annotated[bool, typer.Option("--table", help="Instead: write README's table of benchmarks/figures.json.")] = False,
    fidelity: Annotated[
        Path | None, typer.Option(help="With --table: take figures of a report of `evaluate fidelity --json`.", show_default=False)
    ] = None,
    ratios: Annotated[
        Path | None, typer.Option(help="With --table: and of `pytest benchmarks/test_teacher_ratio.py --benchmark-json`.", show_default=False)
    ] = None,
) -> int:
    """Measure every promised figure: exit code 1 when one is worse than its gate in benchmarks/gates.toml beyond its margin."""
    if sum((make_reference, table, tighten)) > 1:
        raise MobileBilayerError("--tighten, --make-reference and --table are three things to do. Give one of them.")
    if (make_reference or table) and (short or bundle is not None or json is not None):
        raise MobileBilayerError("--short, --bundle and --json are of measuring. Leave them out with --make-reference and --table.")
    if not table and (fidelity is not None or ratios is not None):
        raise MobileBilayerError("--fidelity and --ratios are of README's table. Give --table too.")
    if tighten and bundle is not None:
        raise MobileBilayerError("Gates are of what ships: --tighten measures the shipped bundle. Leave --bundle out.")
    _check_reports(json, None)
    with _extra("evaluation"):
        from mobile_bilayer.gates import figures, public_set, report, rows
        from mobile_bilayer.gates.measure import measure
    if table:
        if fidelity is not None or ratios is not None:
            figures.take_figures(fidelity, ratios)
        changed = figures.write_table()
        out.print(f"{figures.README}: {'the table is new' if changed else 'the table is as it was'}", soft_wrap=True)
        return 0
    if make_reference:
        public_set.make_reference()
        out.print(f"{public_set.REFERENCE}: {public_set.REFERENCE.stat().st_size / 1000:.0f} kB", soft_wrap=True)
        return 0
    gates = rows.read_gates(rows.GATES)
    with progress_bar() as on_progress:
        measured = measure(bundle, short, on_progress=on_progress)
    verdicts = report.judge(gates, measured, short)
    out.print(report.verdict_table(verdicts))
    out.print(report.summary(verdicts, measured), soft_wrap=True, markup=False, highlight=False)
    if json is not None:
        report.save_verdicts(json, verdicts, measured, short, str(bundle or "shipped"))
        out.print(str(json), soft_wrap=True)
    failed = report.fails(verdicts, all_needed=bool(os.environ.get("MOBILE_BILAYER_NO_SKIPS")))
    if failed:
        print(_line("error", f"{', '.join(v.gate.name for v in failed)}: {rows.AFTER_A_FAILURE}"), file=sys.stderr)
        return 1
    if tighten:
        moved = rows.tighten(rows.GATES, measured.values, rows.today())
        out.print(f"{rows.GATES}: moved {', '.join(moved) or 'nothing'}", soft_wrap=True)
    return 0


@app.command(epilog="Example:  mobile-bilayer golden -o golden/")
def golden(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; its JSON files of the same names are replaced.")],
) -> None:
    """Inputs and outputs of the functions between landmarks and network: what a port must give."""
    from mobile_bilayer.pose.golden import write_golden

    for path in write_golden(output):
        out.print(f"{path}: {path.stat().st_size / 1000:.0f} kB", soft_wrap=True)


@teacher_app.command("import", epilog="Example:  mobile-bilayer teacher import runs/ -o teacher.safetensors")
def import_teacher(
    runs: Annotated[Path, typer.Argument(help="Folder that holds the run folders of the public checkpoints.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, NAME.safetensors.")],
) -> None:
    """Make one file of the paper's public checkpoints."""
    from mobile_bilayer.teacher import import_public

    report = import_public(runs, output)
    for network in report.networks:
        out.print(f"{network.name:<20} {network.loaded} of {network.total} tensors, {network.path.name}", soft_wrap=True)
    for note in report.notes:
        out.print(f"note: {note}", soft_wrap=True)
    out.print(f"{output}: {output.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@benchmark_app.command(
    "run",
    epilog="Examples:  mobile-bilayer benchmark run  ·  mobile-bilayer benchmark run my-bundle --seconds 600 --threads 1 -o mine.json  ·  "
    "mobile-bilayer benchmark run --driving talk.mp4 --profile",
)
def benchmark_run(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle folder or zip. Default: the shipped one.", show_default=False)] = None,
    seconds: Annotated[float, typer.Option(help="Of counted frames. From 120 on the last minute is the headline.")] = 60.0,
    threads: Annotated[int | None, typer.Option(help="Of ExecuTorch and OpenCV. Default: as they choose.", show_default=False)] = None,
    repeats: Annotated[int, typer.Option(help="Parts of the run whose medians are compared.")] = 3,
    driving: Annotated[
        Path | None,
        typer.Option(help="A video, to measure decoding too, or a .track file. Default: a sample photo that swings.", show_default=False),
    ] = None,
    fidelity: Annotated[
        Path | None, typer.Option(help="What `evaluate fidelity --json` wrote of this bundle, to put beside.", show_default=False)
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Operator by operator too.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Result to write, NAME.json.")] = Path("benchmark.json"),
) -> None:
    """Run whole frames against a camera's clock, and write what they cost. Ctrl-C ends it early and well."""
    from mobile_bilayer.benchmark.run import Setting, run_benchmark
    from mobile_bilayer.benchmark.show import show
    from mobile_bilayer.capture.images import check_output

    check_output(output, (".json",))
    setting = Setting(seconds, threads, repeats, with_profile=profile)
    with progress_bar() as on_progress:
        result = run_benchmark(bundle, setting, driving, fidelity, on_progress)
    result.save(output)
    show({str(output): result}, out)
    out.print(str(output), soft_wrap=True, markup=False)


@benchmark_app.command(
    "show",
    epilog="Examples:  mobile-bilayer benchmark show pixel8.json  ·  mobile-bilayer benchmark show a.json b.json --plot fps.png --html report.html",
)
def benchmark_show(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Results: of `benchmark run`, or of a phone.")],
    plot: Annotated[Path | None, typer.Option(help="Frames a second over time, to write as .png.")] = None,
    html: Annotated[Path | None, typer.Option(help="Report to write (.html), one file.")] = None,
) -> None:
    """Check results and show them: one in full, several side by side with ratios to the first."""
    from mobile_bilayer.benchmark import show as shown
    from mobile_bilayer.capture.images import check_output

    for path, suffix in ((plot, ".png"), (html, ".html")):
        if path is not None:
            check_output(path, (suffix,))
    results = shown.load_results(files)
    shown.show(results, out)
    for path, write in ((plot, shown.plot), (html, shown.write_html)):
        if path is not None:
            write(results, path)
            out.print(str(path), soft_wrap=True, markup=False)


@app.command(
    epilog="Examples:  mobile-bilayer inspect my-bundle  ·  mobile-bilayer inspect student.pte  ·  mobile-bilayer inspect me.avatar --json"
)
def inspect(
    path: Annotated[
        Path | None, typer.Argument(help="A bundle, NAME.pte, NAME.mlpackage or NAME.avatar. Default: the shipped bundle.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """What a file holds and needs: inputs, outputs, operators, sizes, hashes. Nothing of it is run."""
    from mobile_bilayer.runtime.bundle import shipped_bundle
    from mobile_bilayer.runtime.inspection import inspect, to_json

    found = inspect(path or shipped_bundle())
    if json:
        print(to_json(found))
    else:
        _print_inspection(found)
    if found.problems:
        raise MobileBilayerError(f"{found.path}: {' '.join(found.problems)} Export or copy it again.")


def _print_inspection(found: Inspection) -> None:
    def clean(words: object) -> Text:
        """Of a file that anybody may have made: no markup, nothing that moves a terminal's cursor."""
        return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(words)))

    def table(title: str, *columns: str) -> Table:
        out.print(Text(title, "bold"), soft_wrap=True)
        shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for name in columns:
            shown.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
        return shown

    def operators(counts: dict[str, int]) -> Text:
        return clean(", ".join(f"{count} {name}" for name, count in counts.items()) or "none")

    def show_values(title: str, sides: dict[str, list[Value]]) -> None:
        shown = table(f"\n{clean(title)}", "", "name", "shape", "type", "range")
        for side, values in sides.items():
            for v in values:
                ends = ["" if end is None else f"{end:g}" for end in (v.low, v.high)]
                shown.add_row(side, clean(v.name), "x".join(map(str, v.shape)), v.dtype, " to ".join(ends) if any(ends) else "")
        out.print(shown)

    facts = table(f"{clean(found.path)}: {found.kind}", "", "")
    facts.show_header = False
    for name, value in found.facts.items():
        facts.add_row(name.replace("_", " "), clean(f"{value:,}" if name == "bytes" else value[:16] if name == "sha256" else value))
    out.print(facts)
    for method in found.methods:
        show_values(method.name, {"in": method.inputs, "out": method.outputs})
        inside = Text("not counted") if method.delegated is None else operators(method.delegated)
        share = "" if method.share is None else f" ({method.share:.1%})"
        out.print(Text(f"operators in the backend{share}: ").append(inside))
        out.print(Text("operators outside of it: ").append(operators(method.undelegated)))
    if found.tensors:
        show_values("tensors", {"": found.tensors})
    files = table("\nfiles", "name", "bytes", "sha256", "")
    for file in found.files:
        files.add_row(clean(file.name), f"{file.bytes:,}", file.sha256[:16], {True: "ok", False: "WRONG", None: ""}[file.ok])
    out.print(files)
    for line in ["", *found.card]:
        out.print(clean(line), soft_wrap=True)


def _size(name: str) -> StudentConfig:
    from mobile_bilayer.student.network import SIZES, WHOLE

    shapes = SIZES | WHOLE
    if name not in shapes:
        raise MobileBilayerError(f"There is no student of size {name!r}. Choose one of {', '.join(shapes)}.")
    return shapes[name]


def _check_reports(json: Path | None, sheet: Path | None, report: Path | None = None) -> None:
    """Before the long work: whether what is asked for can be written."""
    from mobile_bilayer.capture.images import IMAGE_SUFFIXES, check_output

    for path, suffixes in ((json, (".json",)), (sheet, IMAGE_SUFFIXES), (report, (".html",))):
        if path is not None:
            check_output(path, suffixes)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MobileBilayerError(
            f"This needs the package {error.name}. Run `pip install 'mobile-bilayer[{name}]'`."
        ) from error


@contextmanager
def progress_bar() -> Iterator:
    """A bar on stderr, where there is a terminal: stdout stays clean."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, int] = {}

        def on_progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=None if total is None else max(total, done))

        yield on_progress


def main(app: typer.Typer = app) -> None:
    """Exit code 0; 1 where `gate` or `export --backend all` found something wrong; or 2 with one line on stderr.

    Of scripts beside the package too, with commands of their own.
    """
    import click

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(_line("warning", message), file=sys.stderr)
            status = app(standalone_mode=False)
    except MobileBilayerError as error:
        fail(str(error))
    except OSError as error:
        if error.filename is None:  # not about a file that somebody named
            raise
        fail(f"{str(error.filename)[:300]}: {error.strerror}. Check the path, and that you may use it.")
    except Exception as error:
        # Typer carries its own copy of click: its errors are told by what they have, not by their class.
        if not hasattr(error, "format_message") and not isinstance(error, click.ClickException):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(2)  # the help is on the screen
        fail(f"{error.format_message()} Try `mobile-bilayer --help`.")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _line(kind: str, message: object) -> str:
    return f"{kind}: " + " ".join(str(message).split())


def fail(message: str) -> None:
    print(_line("error", message), file=sys.stderr)
    sys.exit(2)
