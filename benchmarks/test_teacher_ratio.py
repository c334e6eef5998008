"""How many times faster a student's frame is than the full-size teacher's, through one runtime, in one run, on one thread.

Of the teacher it is the keypoints' embedder and the generator, in float, written so that XNNPACK takes all of it: the
least that a frame of the teacher can cost. Its coarse stage, and what it samples, would come on top.
`pytest benchmarks/test_teacher_ratio.py --benchmark-columns=median,iqr,rounds`
"""

import warnings

import numpy as np
import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from mobile_bilayer.export.bundle import sample_inputs
from mobile_bilayer.export.executorch import RenderLayers, lower
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer import Bundle
from mobile_bilayer.quantization.twins import median_ms
from mobile_bilayer.student.weights import SHIPPED, load_student
from mobile_bilayer.teacher import load_teacher
from mobile_bilayer.teacher.blocks import AdaptiveBatchNorm, LevelParams, activate

# Times faster without an int8 dot product: 39 and 87 were measured on such a machine, other jobs beside them.
LEAST = {"S": 25, "XS": 50}


class FixedNorm(nn.Module):
    """A batch norm with one avatar's parameters: a product and a sum."""

    def __init__(self, norm: nn.BatchNorm2d, params: tuple[Tensor, ...]) -> None:
        super().__init__()
        if isinstance(norm, AdaptiveBatchNorm):
            gain, bias = params[0][0, :, 0] + 1, params[0][0, :, 1]
        else:
            gain, bias = norm.weight, norm.bias
        gain = gain * torch.rsqrt(norm.running_var + norm.eps)
        self.register_buffer("gain", gain.detach()[None, :, None, None])
        self.register_buffer("bias", (bias - gain * norm.running_mean).detach()[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.bias


class FixedTeacher(nn.Module):
    """Embedder and generator with one avatar's parameters in them.

    nearest  doubles sides as the teacher does. Bilinear, which XNNPACK takes and nearest not, costs no less
    """

    def __init__(self, teacher: nn.Module, params: list[LevelParams], nearest: bool) -> None:
        super().__init__()
        generator = teacher.inference_generator
        self.embedder, self.nearest, self.sides = teacher.keypoints_embedder, nearest, generator.sides_px
        self.convs, self.norms, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before: tuple[Tensor, ...] = ()
        for block, level in zip(generator.blocks, params, strict=False):
            self.convs.extend([block.conv1, block.conv2])
            self.norms.extend([FixedNorm(block.norm1, before), FixedNorm(block.norm2, level.norm)])
            skip = nn.Conv2d(level.skip.shape[2] - 1, level.skip.shape[1], 1)
            skip.weight = nn.Parameter(level.skip[0, :, :-1, None, None].detach())
            skip.bias = nn.Parameter(level.skip[0, :, -1].detach())
            self.skips.append(skip)
            before = level.next_norm
        self.norms.append(FixedNorm(generator.last_norm, before))
        self.heads = nn.ModuleList([generator.delta_uv, generator.lf, generator.seg, generator.blend])

    def up(self, x: Tensor) -> Tensor:
        if self.nearest:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    def forward(self, pose: Tensor, *extra: Tensor) -> tuple[Tensor, ...]:
        """extra: what the reader adds at the last sides, the smallest first."""
        x, first = self.embedder(pose), len(self.sides) - len(extra)
        for i, skip in enumerate(self.skips):
            if i >= first:
                x = x + extra[i - first]
            inner = self.convs[2 * i](activate(self.norms[2 * i](x)))
            inner = self.convs[2 * i + 1](self.up(activate(self.norms[2 * i + 1](inner))))
            x = inner + skip(self.up(x))
        x = activate(self.norms[-1](x + extra[-1]))
        uv, lf, seg, blend = (head(x) for head in self.heads)
        return torch.tanh(uv), torch.tanh(lf), seg, blend


@pytest.fixture(scope="session")
def seen() -> dict[str, object]:
    """The teacher at work on a sample photo: what its generator got, and what came out."""
    teacher, _ = load_teacher()
    teacher.eval()
    given: dict[str, object] = {"teacher": teacher}
    hooks = [
        teacher.keypoints_embedder.register_forward_pre_hook(lambda _, args: given.update(pose=args[0])),
        teacher.inference_generator.register_forward_hook(
            lambda _, args, out: given.update(params=args[1], extra=[args[2][side] for side in sorted(args[2])], out=out)
        ),
    ]
    inputs = sample_inputs(load_student()[0], "astronaut")
    image = inputs["image"][None].float() / 255
    with torch.no_grad():
        teacher.render(image, inputs["source_points"][None], inputs["driving_points"][None], image * 2 - 1)
    for hook in hooks:  # an export would call them with tensors that hold nothing
        hook.remove()
    return given


@pytest.fixture(scope="session")
def teacher_program(seen) -> bytes:
    """Lowered once: it takes a minute."""
    module = FixedTeacher(seen["teacher"], seen["params"], nearest=False).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        exported = torch.export.export(module, (seen["pose"], *seen["extra"]))
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    outside = [str(n.target) for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    assert all("delegate" in name or "getitem" in name for name in outside), outside
    return edge.to_executorch().buffer


def test_the_fixed_teacher_gives_what_the_teacher_gives(seen):
    module = FixedTeacher(seen["teacher"], seen["params"], nearest=True).eval()
    with torch.no_grad():
        for got, wanted in zip(module(seen["pose"], *seen["extra"]), seen["out"], strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.benchmark(group="teacher and student")
@pytest.mark.parametrize("size", ["S", "XS"])
def test_a_students_frame_is_many_times_faster_than_the_teachers(benchmark, seen, teacher_program, size):
    from executorch.runtime import Runtime

    student, _ = load_student(SHIPPED.with_name(f"student-{size}.safetensors"))
    sample = sample_inputs(student, "astronaut")
    source, driving = sample["source_points"][None], sample["driving_points"][None]
    with torch.no_grad():
        code = student.encoder(sample["image"][None].float() / 255, source)
    inputs = [code.landmark_features, code.map_features, source, driving]
    if size == Bundle.open().manifest.size:
        bundle = Bundle.open()
        data = bundle.contents[bundle.manifest.program]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one example is enough to time it
            data = lower(student, {"render_layers": [tuple(inputs)]}, "int8", methods=("render_layers",)).data
    runtime = Runtime.get()
    programs = [runtime.load_program(data), runtime.load_program(teacher_program)]
    frame, teacher = programs[0].load_method("render_layers"), programs[1].load_method("forward")
    of_teacher = [seen["pose"], *seen["extra"]]
    took = median_ms({"student": lambda: frame.execute(inputs), "teacher": lambda: teacher.execute(of_teacher)}, rounds=15)
    out = benchmark(lambda: frame.execute(inputs))
    with torch.no_grad():
        wanted = RenderLayers(student.frame)(*inputs)
    assert np.abs(out[0].numpy() - wanted[0].numpy()).mean() < 0.05
    ratio = took["teacher"] / took["student"]
    benchmark.extra_info |= {"teacher_ms": took["teacher"], "student_ms": took["student"], "teacher_over_student": ratio}
    assert ratio > LEAST[size]
