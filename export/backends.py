"""ExecuTorch's backends: what each takes, and what must be there before it is lowered for.

Each gets the same graph. Quantizers that backends bring are left alone: Vulkan's knows linear layers only, Core ML's
knows no landmarks that must stay float. XNNPACK's int8, with our recipe, is taken whole by all of them.
"""

from __future__ import annotations

import copy
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower
from mobile_bilayer.export.coreml_tools import IOS, OLDEST_IOS, coremltools, quietly
from torch.export import ExportedProgram

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.executorch_file import DELEGATES, runtime_version

CORE_ML_DELEGATE = "coreml-delegate"
EXECUTORCH = runtime_version()  # it reads what its own version wrote; what older ones do is not tested

# Qualcomm's SDK, which is not ours to download for anybody.
QNN_SDK = "2.37.0.250724"  # the one that executorch's own installer takes
QNN_LIBRARY = "lib/x86_64-linux-clang/libQnnHtp.so"
QNN_PYTHON = "executorch.backends.qualcomm.python.PyQnnManagerAdaptor"
SOCS = {
    "SM8450": "Snapdragon 8 Gen 1",
    "SM8550": "Snapdragon 8 Gen 2",
    "SM8650": "Snapdragon 8 Gen 3",
    "SM8750": "Snapdragon 8 Elite",
    "SM8850": "Snapdragon 8 Elite Gen 5",
}

Graphs = dict[str, ExportedProgram]


@dataclass(frozen=True)
class Backend:
    """What a program is lowered for.

    name          as in `export --backend`
    title         as people call it
    precisions    that it has here
    usual         of them, unless another is asked for
    to_edge       lowers graphs of a precision (and, of QNN, for a processor)
    check         raises MobileBilayerError when this machine can't lower for it
    chooses_fp16  fp16 is the backend's own work; else the graph has half trunks
    runs_here     the Python package holds its runtime
    """

    name: str
    title: str
    precisions: tuple[str, ...]
    usual: str
    to_edge: Callable[[Graphs, str, str | None], EdgeProgramManager]
    check: Callable[[], object] = lambda: None
    chooses_fp16: bool = False
    runs_here: bool = False

    @property
    def delegate(self) -> str:
        """The name that a program calls its runtime by."""
        return DELEGATES[self.name]

    def minimum_runtime(self, precision: str) -> str:
        """What a phone needs."""
        apple = f", {IOS[OLDEST_IOS[precision]]}" if self.name == CORE_ML_DELEGATE else ""
        return EXECUTORCH + apple


def _xnnpack(graphs: Graphs, *_: object) -> EdgeProgramManager:
    """What depends on weights alone is computed here, and what is computed twice once: XNNPACK sees to neither."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir.passes.cse_pass import CSEPass

    return to_edge_transform_and_lower(
        {name: _folded(graph) for name, graph in graphs.items()},
        transform_passes=[CSEPass()],
        partitioner={name: [XnnpackPartitioner()] for name in graphs},
    )


def _folded(graph: ExportedProgram) -> ExportedProgram:
    """A copy with constants in place of what is computed from nothing else, but for int8 weights, which stay int8."""
    from executorch.exir.operator.util import _QUANT_PRIMITIVES
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    graph = constant_prop_pass(copy.deepcopy(graph), set(_QUANT_PRIMITIVES))
    for node in graph.graph.find_nodes(op="placeholder"):
        name = graph.graph_signature.inputs_to_lifted_tensor_constants.get(node.name)
        if name is not None:  # a transposed one would have the delegate's neighbours reorder it every frame
            graph.constants[name], node.meta["val"] = graph.constants[name].contiguous(), node.meta["val"].contiguous()
    return graph


def _vulkan(graphs: Graphs, *_: object) -> EdgeProgramManager:
    """Without `force_fp16`: it would make landmarks, prior and flow fp16 too."""
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return to_edge_transform_and_lower(graphs, partitioner={name: [VulkanPartitioner()] for name in graphs})


TRUNK_PASS = "mobile_bilayer::trunk_fp16"


@cache
def _register_trunk_pass() -> None:
    """The delegate knows fp16 for all or for nothing; as a pass of our own it is for what lies between convolutions, as in our packages."""
    ct = coremltools()
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.pass_registry import register_pass
    from mobile_bilayer.export.coreml import between_convolutions

    @register_pass(namespace="mobile_bilayer")
    class trunk_fp16(AbstractGraphPass):
        def apply(self, program: Any) -> None:
            ct.transform.FP16ComputePrecision(op_selector=between_convolutions()).apply(program)


def _core_ml(graphs: Graphs, precision: str, *_: object) -> EdgeProgramManager:
    ct = coremltools()
    with quietly():
        from executorch.backends.apple.coreml.compiler.coreml_preprocess import (
            MULTIMETHOD_WEIGHT_SHARING_STRATEGY,
            CoreMLBackend,
        )
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        _register_trunk_pass()
    passes = [TRUNK_PASS if name == "common::add_fp16_cast" else name for name in ct.PassPipeline.DEFAULT.passes]
    specs = [
        *CoreMLBackend.generate_compile_specs(
            minimum_deployment_target=ct.target[f"iOS{OLDEST_IOS[precision]}"],
            compute_precision=ct.precision.FLOAT32,
            pass_names=passes,
        ),
        # Else both methods become one model with two functions, which needs iOS 18.
        CoreMLBackend.generate_multimethod_weight_sharing_strategy_compile_spec(
            MULTIMETHOD_WEIGHT_SHARING_STRATEGY.DISABLED
        ),
    ]
    return to_edge_transform_and_lower(
        graphs, partitioner={name: [CoreMLPartitioner(compile_specs=specs)] for name in graphs}
    )


def _qnn(graphs: Graphs, _: str, soc: str | None) -> EdgeProgramManager:
    """Not run here: nobody has had the SDK at hand yet."""
    from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
    from executorch.backends.qualcomm.utils.utils import (
        generate_htp_compiler_spec,
        generate_qnn_executorch_compiler_spec,
        to_edge_transform_and_lower_to_qnn,
    )

    specs = generate_qnn_executorch_compiler_spec(QcomChipset[soc], generate_htp_compiler_spec(use_fp16=True))
    modules = {name: graph.module() for name, graph in graphs.items()}
    inputs = {name: graph.example_inputs[0] for name, graph in graphs.items()}
    return to_edge_transform_and_lower_to_qnn(modules, inputs, dict.fromkeys(graphs, specs))


def check_qnn() -> None:
    """Raises MobileBilayerError that says what QNN needs. Without it executorch would download two gigabytes by itself."""
    root = os.environ.get("QNN_SDK_ROOT", "")
    missing = []
    if sys.platform != "linux" or platform.machine() != "x86_64":
        missing.append("Linux on x86-64")
    if not root:
        missing.append("QNN_SDK_ROOT in the environment, the folder of Qualcomm's AI Runtime SDK")
    elif not (Path(root) / QNN_LIBRARY).is_file():
        missing.append(f"{Path(root) / QNN_LIBRARY}, a file of the SDK that QNN_SDK_ROOT names")
    try:
        found = find_spec(QNN_PYTHON)
    except ModuleNotFoundError:  # of a folder above it, which other wheels lack
        found = None
    if found is None:
        missing.append(f"{QNN_PYTHON}, which executorch's wheel for Linux on x86-64 has")
    if missing:
        raise MobileBilayerError(
            f"Exporting for qnn lacks {'; '.join(missing)}. It needs the Qualcomm AI Runtime SDK {QNN_SDK} (softwarecenter.qualcomm.com, "
            "under Qualcomm's licence), QNN_SDK_ROOT set to its folder, LD_LIBRARY_PATH to that folder's "
            f"lib/x86_64-linux-clang, {EXECUTORCH} for Linux on x86-64, and --soc ({', '.join(SOCS)}). Without it, export for xnnpack, "
            "which runs on these phones' processors."
        )


def check_soc(backend: str, soc: str | None) -> None:
    """QNN's programs are made for one processor; no other backend's are."""
    if backend != "qnn":
        if soc is not None:
            raise MobileBilayerError(f"A processor (--soc) is for qnn, not for {backend}. Leave it out.")
    elif soc not in SOCS:
        names = ", ".join(f"{key} ({title})" for key, title in SOCS.items())
        raise MobileBilayerError(f"The processor (--soc) is {soc}; qnn needs one of {names}.")


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("xnnpack", "XNNPACK", ("fp32", "int8"), "int8", _xnnpack, runs_here=True),
        Backend("vulkan", "Vulkan", ("fp32", "fp16", "int8"), "fp16", _vulkan),
        Backend(CORE_ML_DELEGATE, "The Core ML delegate", ("fp16", "w8a8"), "fp16", _core_ml, coremltools, chooses_fp16=True),
        Backend("qnn", "QNN", ("fp16",), "fp16", _qnn, check_qnn, chooses_fp16=True),
    )
}
