"""Import the public code's checkpoints: `load_public("runs")`.

A checkpoint is a pickle, and a pickle can run anything. So it is read with a short list of what it may hold, and never
in any other way.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher.config import TeacherConfig, doublings
from mobile_bilayer.teacher.public_args import PublicArgs
from mobile_bilayer.teacher.teacher import Teacher
from mobile_bilayer.teacher.weights import check_weights_output, save_teacher

MAIN = ("identity_embedder", "texture_generator", "keypoints_embedder", "inference_generator")
ENHANCER = "texture_enhancer"

# Where each convolution and norm of a block is in the public code, for each kind of block.
_DOWN = {"conv1": "block_feats.1", "conv2": "block.0", "skip": "skip.0"}
_UP = {"conv1": "block_feats.2", "conv2": "block.0", "skip": "skip.1"}
_TEXTURE = {"norm1": "block_feats.0", "conv1": "block_feats.3", "norm2": "block_feats.4", "conv2": "block.0"}
_LATE = {"norm1": "block_feats.0", "conv1": "block_feats.2", "norm2": "block_feats.3", "conv2": "block.1"}


@dataclass(frozen=True)
class LoadedNetwork:
    """One file: how many of its network's tensors it gave."""

    name: str
    path: Path
    loaded: int
    total: int


@dataclass(frozen=True)
class ImportReport:
    """What was imported, and from where."""

    networks: tuple[LoadedNetwork, ...]
    config: TeacherConfig
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Files:
    """networks  name to .pth file, args the args.txt that speaks for all of them."""

    networks: dict[str, Path]
    args: Path


def load_public(runs_dir: str | Path) -> Teacher:
    """The teacher of a folder of public runs, in evaluation mode: float32, spectral norm folded.

    runs_dir  holds a run folder with the four networks of the base model and, if there is an enhancer, a second one
              with it; each has an args.txt and a folder checkpoints
    """
    return read_public(Path(runs_dir))[0]


def import_public(runs_dir: str | Path, out: str | Path) -> ImportReport:
    """Write what `load_public` loads as one safetensors file, float32."""
    check_weights_output(Path(out))
    teacher, report = read_public(Path(runs_dir))
    files = {network.name: network.path.relative_to(runs_dir).as_posix() for network in report.networks}
    save_teacher(teacher, Path(out), {"imported_from": files, "notes": list(report.notes)})
    return report


def read_public(runs_dir: Path) -> tuple[Teacher, ImportReport]:
    """As `load_public`, with what it found."""
    files = _find(runs_dir)
    args = PublicArgs.read(files.args)
    config = args.config(enhancer=ENHANCER in files.networks)
    notes = args.notes()
    if ENHANCER in files.networks and not config.enhancer_steps:  # args.txt says that nothing of it is used
        notes.append(
            f"enh_unrolling_depth is 0 in {files.args.name}: the enhanced texture would be the texture itself, so the "
            f"teacher has no enhancer and {files.networks.pop(ENHANCER)} was not read"
        )
    with torch.device("meta"):  # for names and shapes
        own = Teacher(config).state_dict()
    loaded: dict[str, Tensor] = {}
    networks, problems = [], []
    for name, path in files.networks.items():
        names = public_names(config, own, name)
        found, wrong = _match(_read(path), {public: own[mine] for mine, public in names.items()})
        total = sum(not public.endswith("num_batches_tracked") for public in names.values())
        count = sum(not public.endswith("num_batches_tracked") for public in found)
        loaded |= {mine: found[public] for mine, public in names.items() if public in found}
        networks.append(LoadedNetwork(name, path, count, total))
        if wrong:
            problems.append(f"{path}: {count} of {total} tensors of the {name} fit. " + " ".join(wrong))
        elif untouched := _untouched(found):
            warnings.warn(
                f"{path}: the batch norm statistics of {_some(untouched)} are still at their start values: they were "
                "never gathered, so images will be wrong. Take a later epoch.",
                stacklevel=3,
            )
    if problems:
        raise MobileBilayerError(
            f"{' '.join(problems)} Networks and {files.args} must be of one run: check both, or download them again."
        )
    with torch.random.fork_rng(devices=[]):  # loading changes nobody's random numbers
        teacher = Teacher(config)
    missing, _ = teacher.load_state_dict(loaded, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing), missing  # the rest was checked above
    return teacher.eval(), ImportReport(tuple(networks), config, tuple(notes))


def _find(runs_dir: Path) -> _Files:
    """The newest epoch of each run, or an error that lists everything that is missing."""
    if not runs_dir.is_dir():
        raise MobileBilayerError(
            f"{runs_dir} is no folder; the folder that holds the run folders is needed. Check the path."
        )
    if (runs_dir / "checkpoints").is_dir():
        raise MobileBilayerError(
            f"{runs_dir} is a run folder itself. Name the folder that holds it: {runs_dir.resolve().parent}"
        )
    runs = sorted(
        path for path in runs_dir.iterdir() if (path / "checkpoints").is_dir() or (path / "args.txt").is_file()
    )
    epochs = {run: {name: _epochs(run, name) for name in (*MAIN, ENHANCER)} for run in runs}
    main = [run for run in runs if any(epochs[run][name] for name in MAIN)]
    enhancing = [run for run in runs if epochs[run][ENHANCER]]
    for kind, fitting in (("a base model", main), ("a texture enhancer", enhancing)):
        if len(fitting) > 1:
            raise MobileBilayerError(
                f"{runs_dir} has several run folders with {kind}: {', '.join(run.name for run in fitting)}. "
                "Copy those that belong together into a folder of their own, and name that."
            )
    networks: dict[str, Path] = {}
    missing = []
    if main:
        # All of one epoch: networks of two epochs were never trained to work together.
        newest = max(max(epochs[main[0]][name], default=-1) for name in MAIN)
        for name in MAIN:
            if newest in epochs[main[0]][name]:
                networks[name] = epochs[main[0]][name][newest]
            else:
                missing.append(str(main[0] / "checkpoints" / f"{newest}_{name}.pth"))
    else:
        missing += [str(runs_dir / "RUN" / "checkpoints" / f"EPOCH_{name}.pth") for name in MAIN]
    others = [run for run in runs if run not in main]
    if enhancing:
        found = epochs[enhancing[0]][ENHANCER]
        networks[ENHANCER] = found[max(found)]
    else:  # a run that has nothing else must have been meant for the enhancer
        missing += [str(run / "checkpoints" / f"EPOCH_{ENHANCER}.pth") for run in others if main]
    # Public inference reads the enhancer's options for all networks.
    speaks = (enhancing or main)[:1]
    missing += [str(run / "args.txt") for run in speaks if not (run / "args.txt").is_file()]
    if missing:
        hint = " Without an enhancer, take its empty run folder away." if main and others and not enhancing else ""
        raise MobileBilayerError(
            f"{runs_dir} lacks {', '.join(missing)}. Every network is needed, all of one epoch. Download them.{hint}"
        )
    return _Files(networks, speaks[0] / "args.txt")


def _epochs(run: Path, name: str) -> dict[int, Path]:
    """Epoch to file. A file of the optimizer, `1225_opt_NAME.pth`, is none of them."""
    matches = ((re.fullmatch(rf"(\d+)_{name}\.pth", path.name), path) for path in run.glob(f"checkpoints/*_{name}.pth"))
    return {int(match[1]): path for match, path in matches if match}


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without running anything that is in it."""
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's versions: what matters is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file can make the reader raise anything
        what = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {what[1]}, which may run code" if what else f"it can't be read ({_cause(error)})"
        raise MobileBilayerError(
            f"{path} is refused, and nothing in it was run: {reason}. Weights need only tensors and numbers; "
            "download it again, from somebody you trust."
        ) from error
    state = _state(content)
    if state is None:
        raise MobileBilayerError(
            f"{path} holds a {type(content).__name__} without one set of tensors by name. A state dict is needed."
        )
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        while name.startswith("module."):
            name = name.removeprefix("module.")
        if name in result:
            raise MobileBilayerError(f"{path} has {name} twice, with and without `module.`. Remove one of them.")
        result[name] = value.float() if value.is_floating_point() else value
    return result


def _cause(error: Exception) -> str:
    """What torch says, without its advice to read the file with less care."""
    said = str(error).strip() or type(error).__name__
    inner = re.search(r"WeightsUnpickler error:\s*(.+)", said)
    first = (inner[1] if inner else said.splitlines()[0])[:200].strip()
    return "it holds more than tensors and numbers" if re.search("weights.only", first, re.IGNORECASE) else first


def _allowed() -> list[object]:
    """What else than tensors checkpoints are seen to hold: parsed options and NumPy's numbers."""
    allowed: list[object] = [argparse.Namespace]
    try:
        import numpy as np
        from numpy._core.multiarray import scalar
    except ImportError:  # then such a file can't be read, and says so
        return allowed
    # Everything but objects and records, which can hold objects.
    kinds = {type(np.dtype(code)) for code in np.typecodes["All"] if code not in "OV"}
    # Files written before NumPy 2 name it by its old place.
    return [*allowed, scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _state(content: object) -> dict[str, Tensor] | None:
    """The tensors by name in `content`, or in the one mapping inside it that has some. What is no tensor is left out."""

    def tensors(mapping: object) -> dict[str, Tensor]:
        items = mapping.items() if isinstance(mapping, Mapping) else ()
        return {name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)}

    inside = [tensors(value) for value in content.values()] if isinstance(content, Mapping) else []
    found = [some for some in (tensors(content), *inside) if some]
    return found[0] if len(found) == 1 else None


def _match(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by public name, spectral norm folded; and what does not fit, in words.

    wanted  public name to a tensor of the right shape
    """
    found: dict[str, Tensor] = {}
    missing, wrong = [], []
    left = set(state)
    for name, like in wanted.items():
        triple = [f"{name}{end}" for end in ("_orig", "_u", "_v")]
        if name in state:
            value = state[name]
            left.discard(name)
        elif triple[0] in state and name.endswith("weight"):
            left -= set(triple)
            absent = [part for part in triple if part not in state]
            if absent:
                missing += absent
                continue
            value = fold(*(state[part] for part in triple))
            if value is None:
                wrong.append(f"{triple[0]} has a spectral norm that can't be divided by.")
                continue
        else:
            if not name.endswith("num_batches_tracked"):
                missing.append(name)
            continue
        if value.shape != like.shape:
            wrong.append(f"{name} is {tuple(value.shape)}; args.txt asks for {tuple(like.shape)}.")
        elif not value.isfinite().all():
            wrong.append(f"{name} has values that are not finite.")
        else:
            found[name] = value
    left = {name for name in left if name != "identity_grid" and not name.endswith("num_batches_tracked")}
    wrong = wrong[:3] + ([f"{len(wrong) - 3} more are wrong."] if len(wrong) > 3 else [])
    if missing:
        wrong.append(f"Missing: {_some(missing)}.")
    if left:
        wrong.append(f"Left over: {_some(sorted(left))}.")
    return found, wrong


def fold(weight: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    """weight / sigma with sigma = u W v of the stored u and v, W (out, -1). None if that can't be.

    No power iteration: the stored pair is what the network was saved with.
    """
    matrix = weight.double().flatten(1)
    if u.shape != matrix.shape[:1] or v.shape != matrix.shape[1:]:
        return None
    sigma = torch.dot(u.double(), matrix @ v.double())
    return (weight.double() / sigma).float() if sigma.isfinite() and sigma != 0 else None


def _untouched(found: dict[str, Tensor]) -> list[str]:
    """Batch norms whose statistics are as at the start, whatever their counters say."""
    norms = [name.removesuffix("running_mean") for name in found if name.endswith("running_mean")]
    return [
        norm.rstrip(".")
        for norm in norms
        if not found[f"{norm}running_mean"].any() and (found[f"{norm}running_var"] == 1).all()
    ]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def public_names(config: TeacherConfig, own: Iterable[str], network: str) -> dict[str, str]:
    """Name of a tensor in `Teacher.state_dict()` to its name in the public file of `network`.

    own  all names of the state dict. Convolutions and linear layers are named as after folding: `weight`
    """
    names = {}
    for file, pattern, public in _rules(config):
        if file == network:
            matches = {name: re.fullmatch(pattern, name) for name in own}
            names |= {name: public(*match.groups()) for name, match in matches.items() if match}
    return names


def _rules(config: TeacherConfig) -> list[tuple[str, str, Callable[..., str]]]:
    """Network, pattern of our names, and the public name made of the pattern's groups."""
    embedder, texture, keypoints, inference = MAIN
    block = r"\.(\d+)\.(\w+)\.(\w+)"  # number, layer, tensor
    halvings = doublings(config.enhancer_px, config.image_px)
    up = 1 + halvings + config.enhancer_blocks
    rules: list[tuple[str, str, Callable[..., str]]] = [
        (embedder, r"identity_embedder\.stem\.(\w+)", lambda t: f"net.enc.0.{t}"),
        (embedder, rf"identity_embedder\.down{block}", lambda k, layer, t: f"net.enc.{int(k) + 1}.{_DOWN[layer]}.{t}"),
        (embedder, rf"identity_embedder\.levels{block}", lambda k, layer, t: f"net.dec_blocks.{k}.{_DOWN[layer]}.{t}"),
        # An activation stands between two layers.
        (keypoints, r"keypoints_embedder\.layers\.(\d+)\.(\w+)", lambda k, t: f"net.mlp.{2 * int(k)}.{t}"),
        (texture, r"texture_generator\.start", lambda: "gen_tex_input"),
        (texture, r"texture_generator\.head\.(\w+)", lambda t: f"gen_tex.heads.0.0.{t}"),
        (inference, r"inference_generator\.delta_uv\.(\w+)", lambda t: f"gen_inf.heads.0.0.{t}"),
        (inference, r"inference_generator\.lf\.(\w+)", lambda t: f"gen_inf.heads.1.0.{t}"),
        (inference, r"inference_generator\.seg\.(\w+)", lambda t: f"gen_inf.heads.2.0.{t}"),
        (ENHANCER, r"texture_enhancer\.stem\.(\w+)", lambda t: f"net.blocks.0.{t}"),
        (
            ENHANCER,
            rf"texture_enhancer\.down{block}",
            lambda k, layer, t: f"net.blocks.{1 + int(k)}.{_DOWN[layer]}.{t}",
        ),
        (
            ENHANCER,
            rf"texture_enhancer\.middle{block}",
            lambda k, layer, t: f"net.blocks.{1 + halvings + int(k)}.{_DOWN[layer]}.{t}",
        ),
        (ENHANCER, rf"texture_enhancer\.up{block}", lambda k, layer, t: f"net.blocks.{up + int(k)}.{_UP[layer]}.{t}"),
        # Two layers without weights stand before it.
        (ENHANCER, r"texture_enhancer\.head\.(\w+)", lambda t: f"net.blocks.{up + halvings + 2}.{t}"),
    ]
    for network, ours, theirs, places in (
        (texture, "texture", "tex", _TEXTURE),
        (inference, "inference", "inf", _LATE),
    ):
        blocks = f"gen_{theirs}.blocks"

        def in_block(k: str, layer: str, tensor: str, blocks: str = blocks, places: dict[str, str] = places) -> str:
            plain = layer.startswith("conv") or (k, layer) == ("0", "norm1")
            return f"{blocks}.{k}.{places[layer]}.{tensor if plain else _in_norm(tensor)}"

        rules += [
            (network, rf"{ours}_generator\.blocks{block}", in_block),
            (network, rf"{ours}_generator\.last_norm\.(\w+)", lambda t, b=blocks: f"{b}.{config.levels}.{_in_norm(t)}"),
            (network, rf"{ours}_projector\.levels\.(.+)", lambda rest, p=theirs: f"prj_{p}.fc_blocks.{rest}"),
        ]
    return rules


def _in_norm(tensor: str) -> str:
    """Inside an adaptive norm."""
    return "pixel_feats" if tensor == "features" else f"norm_layer.{tensor}"
