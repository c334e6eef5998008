"""What an ExecuTorch file says of itself: formats, methods, operators. None of its code is run."""

from __future__ import annotations

import logging
import re
import subprocess
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quiet import quiet_stderr

FORMAT, HEADER = b"ET12", b"eh00"  # of the file, and of its extended header: those that this runtime reads
SCHEMA_VERSION = 0  # of the program in it
FLATC_S = 20  # a delegate's graph is some 50 kB

# runtime/core/error.h: codes that a damaged or foreign file leads to
ERRORS = {
    0x01: "an internal error",
    0x02: "it is in no state to be run",
    0x10: "it asks for what is not supported",
    0x11: "it asks for what is not implemented",
    0x12: "an argument in it is invalid",
    0x13: "a value in it is of the wrong type",
    0x14: "an operator that it needs is missing",
    0x20: "something that it names was not found",
    0x21: "its memory could not be had",
    0x22: "a part of it can't be reached",
    0x23: "it is cut off, damaged, or of another format",
    0x24: "its data outside the program is invalid",
    0x25: "it needs more memory than there is",
    0x30: "it was made for another version of its backend",
    0x31: "its backend could not get its memory",
    0x32: "its backend lost it",
}


# Of each backend the name that a program calls its runtime by.
DELEGATES = {
    "xnnpack": "XnnpackBackend",
    "vulkan": "VulkanBackend",
    "coreml-delegate": "CoreMLBackend",
    "qnn": "QnnBackend",
}


@dataclass(frozen=True)
class FileTensor:
    """An input or output of a method, in the order of its dimensions in memory."""

    shape: tuple[int, ...]
    dtype: str
    dim_order: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A delegate's part: its backend, what it is given to run, and the places of its inputs and outputs among a method's values."""

    backend: str
    data: bytes = field(repr=False)
    places: tuple[int, ...]


@dataclass(frozen=True)
class FileMethod:
    """A method of a program.

    inputs, outputs  tensors; of what is no tensor, None
    takes, gives     their places among the method's values
    calls            of its delegates, in order
    backends         what its delegates need, in order
    delegated        operators inside of delegates, and how many of each; None if a delegate's format is not known here
    undelegated      operators outside, as the runtime's own kernels compute them
    planned_bytes    memory for values between operators
    """

    name: str
    inputs: tuple[FileTensor | None, ...]
    outputs: tuple[FileTensor | None, ...]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    calls: tuple[Call, ...]
    backends: tuple[str, ...]
    delegated: dict[str, int] | None
    undelegated: dict[str, int] = field(default_factory=dict)
    planned_bytes: int = 0

    @property
    def share(self) -> float | None:
        """Of the operators, those in delegates."""
        if self.delegated is None:
            return None
        inside, outside = sum(self.delegated.values()), sum(self.undelegated.values())
        return inside / (inside + outside) if inside + outside else None


@dataclass(frozen=True)
class ProgramFile:
    """An ExecuTorch file."""

    format: str
    schema_version: int
    methods: tuple[FileMethod, ...]


@cache
def quiet_runtime() -> Any:
    """ExecuTorch's runtime, without what its imports have to say."""
    with warnings.catch_warnings(), quiet_stderr():
        warnings.simplefilter("ignore")
        levels = {name: logging.getLogger(name).level for name in ("torchao", "torch.utils._pytree")}
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        from executorch.runtime import Runtime

        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        return Runtime.get()


def runtime_version() -> str:
    """Of ExecuTorch here."""
    return f"executorch {version('executorch')}"


def check_format(data: bytes, where: str, made_for: str = "") -> None:
    """Raises MobileBilayerError for what is no ExecuTorch file, or is one of another format than the runtime reads."""
    if len(data) < 64 or data[4:6] != b"ET":
        raise MobileBilayerError(f"{where}: the program is no ExecuTorch file. Export or copy the bundle again.")
    formats = [(data[4:8], FORMAT)] + ([(data[8:12], HEADER)] if data[8:10] == HEADER[:2] else [])
    for got, known in formats:
        if got != known:
            remedy = "Update executorch" if got > known else "Export the bundle again"
            raise MobileBilayerError(
                f"{where}: the program has the ExecuTorch file format {ascii(got)[2:-1]}{_made(made_for)}; the runtime here, "
                f"{runtime_version()}, reads {known.decode()}. {remedy}, or use the version that the bundle is made for."
            )


def _made(made_for: str) -> str:
    return f" (made for {made_for[:40]})" if made_for else ""


def why_not(data: bytes, runtime: Any, error: Exception) -> str:
    """Why the runtime did not take a program, in words: what it lacks, or else what its error code means."""
    if newer := _newer(data):
        return newer
    try:
        program = read_program(data, "")
    except MobileBilayerError:
        return words(error)
    known = set(runtime.operator_registry.operator_names)
    lacks = {"backend": set(), "operator": set()}
    for method in program.methods:
        lacks["backend"] |= {name for name in method.backends if not runtime.backend_registry.is_available(name)}
        lacks["operator"] |= set(method.undelegated) - known
    found = [f"the {kind} {', '.join(sorted(names)[:5])}" for kind, names in lacks.items() if names]
    if not found:
        return words(error)
    have = ", ".join(sorted(runtime.backend_registry.registered_backend_names))
    return f"it needs {' and '.join(found)}, which {runtime_version()} here lacks (its backends: {have})"


def words(error: Exception) -> str:
    """An error of the runtime without its codes."""
    if isinstance(error, MemoryError):
        return ERRORS[0x25]
    number = str(error).rpartition("0x")[2].strip(":")
    try:
        return ERRORS.get(int(number, 16), f"error {number[:8]}")
    except ValueError:
        return str(error)[:200]


def read_program(data: bytes, where: str) -> ProgramFile:
    """What is in an ExecuTorch file. Raises MobileBilayerError for one that is damaged or of another format."""
    check_format(data, where)
    runtime = quiet_runtime()
    # The runtime checks the whole flatbuffer; what reads it in Python trusts it.
    try:
        with quiet_stderr():
            runtime.load_program(data)
    except (RuntimeError, MemoryError) as error:
        raise MobileBilayerError(
            f"{where}: the ExecuTorch runtime here can't read it: {_newer(data) or words(error)}. Export or copy it again."
        ) from error
    try:
        return _read(data)
    except Exception as error:  # what damage that is consistent leads to
        raise MobileBilayerError(
            f"{where} is damaged ({error or type(error).__name__}). Export or copy it again."
        ) from error


def _newer(data: bytes) -> str | None:
    """That a program's schema is newer than the runtime's, if it is."""
    from executorch.exir._serialize.generated.executorch_flatbuffer.Program import Program

    try:
        found = Program.GetRootAs(data, 0).Version()
    except Exception:  # what damage leads to
        return None
    if not SCHEMA_VERSION < found < 1000:  # more is damage
        return None
    return f"it has the ExecuTorch schema version {found}; {runtime_version()} here reads {SCHEMA_VERSION}"


def _read(data: bytes) -> ProgramFile:
    from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
    from executorch.exir._serialize._program import _get_extended_header

    header = _get_extended_header(data)
    program = _flatbuffer_to_program(data[: header.program_size] if header else data)
    methods = tuple(
        _method(plan, program, data, header.segment_base_offset if header else 0) for plan in program.execution_plan
    )
    return ProgramFile(data[4:8].decode("ascii"), program.version, methods)


def _method(plan: Any, program: Any, data: bytes, base: int) -> FileMethod:
    undelegated: Counter[str] = Counter()
    blobs = [_blob(delegate, program, data, base) for delegate in plan.delegates]
    calls = []
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if type(call).__name__ == "DelegateCall":
                place = call.delegate_index
                calls.append(Call(plan.delegates[place].id, blobs[place], tuple(call.args)))
            if type(call).__name__ == "KernelCall":
                operator = plan.operators[call.op_index]
                undelegated[f"{operator.name}.{operator.overload}" if operator.overload else operator.name] += 1
    graphs = [_delegated(delegate.id, blob) for delegate, blob in zip(plan.delegates, blobs, strict=True)]
    delegated = None if None in graphs else dict(sorted(sum(graphs, Counter()).items()))
    return FileMethod(
        plan.name,
        tuple(_tensor(plan.values[i]) for i in plan.inputs),
        tuple(_tensor(plan.values[i]) for i in plan.outputs),
        tuple(plan.inputs),
        tuple(plan.outputs),
        tuple(calls),
        tuple(delegate.id for delegate in plan.delegates),
        delegated,
        dict(sorted(undelegated.items())),
        sum(plan.non_const_buffer_sizes),
    )


def without_overload(operator: str) -> str:
    """A file names another overload than the graph did: "aten.cumsum" of "aten::cumsum.out" and of "aten.cumsum.default"."""
    return ".".join(operator.replace("::", ".").split(".")[:2])


def _tensor(value: Any) -> FileTensor | None:
    tensor = value.val
    if type(tensor).__name__ != "Tensor":
        return None
    return FileTensor(tuple(tensor.sizes), _dtype(tensor.scalar_type.name), tuple(tensor.dim_order))


def _dtype(name: str) -> str:
    """As numpy and torch call it."""
    known = {
        "FLOAT": "float32",
        "DOUBLE": "float64",
        "HALF": "float16",
        "CHAR": "int8",
        "BYTE": "uint8",
        "SHORT": "int16",
    }
    known |= {"INT": "int32", "LONG": "int64"}
    return known.get(name, name.lower())


def _blob(delegate: Any, program: Any, data: bytes, base: int) -> bytes:
    place = delegate.processed
    if place.location.name == "SEGMENT":
        segment = program.segments[place.index]
        return data[base + segment.offset :][: segment.size]
    return bytes(program.backend_delegate_data[place.index].data)


def _delegated(backend: str, blob: bytes) -> Counter[str] | None:
    """Operators in a delegate's own file, if it is XNNPACK's."""
    if backend != "XnnpackBackend":
        return None
    if blob[4:8] == b"XH00":  # a header: where graph and constants are
        start, size = (int.from_bytes(blob[i : i + 4], "little") for i in (10, 14))
        blob = blob[start:][:size]
    return Counter(_nodes(blob))


def _nodes(graph: bytes) -> list[str]:
    """Operators of an XNNPACK graph, by the tool that comes with executorch, in a process of its own."""
    from executorch.exir._serialize._flatbuffer import _get_flatc_path

    schema = str(files("executorch.backends.xnnpack.serialization") / "schema.fbs")
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as name:
        file = Path(name, "graph.bin")
        file.write_bytes(graph)
        call = [_get_flatc_path(), "--json", "--strict-json", "--raw-binary", "-o", name, schema, "--", str(file)]
        try:
            subprocess.run(call, check=True, capture_output=True, timeout=FLATC_S)
            text = file.with_suffix(".json").read_text("utf-8", "replace")
        except (OSError, subprocess.SubprocessError) as error:
            raise MobileBilayerError("a delegate's graph can't be read") from error
    return re.findall(r'"xnode_union_type": "XNN(\w+)"', text)  # no JSON: it has inf for infinity
