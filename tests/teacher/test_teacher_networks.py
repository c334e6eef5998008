"""The paper's networks: their size, and what they must not depend on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher import Teacher, TeacherConfig
from mobile_bilayer.teacher.blocks import BatchNorm, adaptive_conv
from mobile_bilayer.teacher.texture_enhancer import gradient_of_error


@pytest.fixture(scope="module")
def paper() -> Teacher:
    """The paper's size; no value is computed."""
    with torch.device("meta"):
        return Teacher(TeacherConfig()).eval().requires_grad_(False)


def test_the_paper_size_has_the_papers_parameters(paper):
    """In millions, as published measurements of the public code round them."""
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in paper.named_children()}
    count["texture_generator"] -= paper.texture_generator.start.numel()  # the table leaves the learned constant out
    assert {name: round(n / 1e6, 2) for name, n in count.items()} == {
        "identity_embedder": 31.44,
        "texture_generator": 32.54,
        "texture_projector": 23.12,
        "inference_projector": 7.72,
        "keypoints_embedder": 1.22,
        "inference_generator": 4.12,
        "texture_enhancer": 2.72,
    }


def test_the_paper_size_costs_the_papers_multiplications(paper):
    """Multiply-adds of convolutions and matrix products, SPADE's and the adaptive skips' included; nothing else."""

    def gmacs(network, *inputs):
        with FlopCounterMode(display=False) as counter:
            result = network(*inputs)
        return counter.get_total_flops() / 2e9, result

    with torch.device("meta"):
        image, mask, keypoints = torch.empty(1, 1, 3, 256, 256), torch.empty(1, 1, 1, 256, 256), torch.empty(1, 136)
    embedder, embeddings = gmacs(paper.identity_embedder, image, image, mask)
    texture_params, params = gmacs(paper.texture_projector, embeddings)
    texture, _ = gmacs(paper.texture_generator, params)
    inference_params, params = gmacs(paper.inference_projector, embeddings)
    pose, code = gmacs(paper.keypoints_embedder, keypoints)
    frame, layers = gmacs(paper.inference_generator, code, params)
    assert (round(embedder, 2), round(texture_params + texture, 2), round(inference_params, 2)) == (52.76, 44.34, 1.58)
    assert (round(pose, 3), round(frame, 2)) == (0.001, 4.31)
    assert [tuple(x.shape) for x in embeddings] == [(1, c, 8, 8) for c in (512, 512, 512, 256, 128, 64)]
    assert code.shape == (1, 256, 4, 4)
    assert [tuple(x.shape) for x in layers[:3]] == [(1, c, 256, 256) for c in (2, 3, 1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_px": 250}, "image_px is 250 and start_px is 4"),
        ({"image_px": 256.0}, "image_px is 256.0"),
        ({"image_px": True}, "image_px is True"),
        ({"image_px": 320, "start_px": 6}, "image_px is 320 and start_px is 6"),
        ({"start_px": 256}, "start_px is 256"),
        ({"embedding_px": 257}, "embedding_px is 257.*not be above"),
        ({"enhancer_px": 257}, "enhancer_px is 257.*not be above"),
        ({"image_px": 96, "start_px": 6, "enhancer_px": 1}, "enhancer_px is 1; the first can't be halved 6 times"),
        ({"keypoints": 0}, "keypoints is 0"),
        ({"enhancer_steps": -1}, "enhancer_steps is -1"),
        ({"keypoints_layers": 0}, "keypoints_layers is 0"),
        ({"embedder_sees_stickman": 1}, "embedder_sees_stickman is 1"),
        ({"enhancer_blocks": -1}, "enhancer_blocks is -1"),
        ({"norm_eps": -1e-7}, "norm_eps is -1e-07; it must be a number of at least 0"),
        ({"norm_eps": False}, "norm_eps is False"),
        ({"norm_momentum": 0}, "norm_momentum is 0; it must be a number above 0 and at most 1"),
        ({"norm_eps": float("nan")}, "norm_eps is nan"),
        ({"norm_momentum": 1.5}, "norm_momentum is 1.5"),
        ({"prior": "wings"}, "prior is 'wings'"),
        ({"generator_max_width": 4096}, "generator_max_width is 4096"),
        ({"texture_width": 32}, "embedder and texture do not fit"),
        ({"generator_max_width": 128}, "embedder and generator do not fit"),
    ],
)
def test_a_shape_that_makes_no_teacher_is_refused(change, words):
    with pytest.raises(MobileBilayerError, match=words):
        TeacherConfig(**change)


def test_results_do_not_depend_on_batch_mates(random_teacher, inputs):
    teacher = random_teacher()
    eight = inputs(batch=8, sources=2, targets=3)
    with torch.no_grad():
        together = teacher(**eight)
        alone = teacher(**{name: value[5:6] for name, value in eight.items()})
    for name, value in alone.items():
        torch.testing.assert_close(together[name][5:6], value, rtol=0, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_targets_of_one_avatar_do_not_depend_on_each_other(random_teacher, inputs):
    teacher = random_teacher()
    three = inputs(targets=3)
    with torch.no_grad():
        together = teacher(**three)
        alone = teacher(**three | {"target_poses": three["target_poses"][:, 1:2]})
    for name in ("pred_enh_target_imgs", "pred_target_segs", "pred_target_uvs", "target_pose_embeds"):
        torch.testing.assert_close(together[name][:, 1:2], alone[name], rtol=0, atol=2e-5)


def test_the_same_source_twice_is_the_source_once(random_teacher, inputs):
    teacher = random_teacher()
    once = inputs()
    twice = {
        name: value if name == "target_poses" else value.repeat(1, 2, *[1] * (value.ndim - 2))
        for name, value in once.items()
    }
    with torch.no_grad():
        first, second = teacher(**once), teacher(**twice)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=2e-5)


def test_several_sources_are_averaged_before_the_embeddings_and_in_the_enhancers_last_residual_block(
    random_teacher, inputs
):
    teacher = random_teacher()
    given = inputs(batch=1, sources=2)
    embedder, enhancer = teacher.identity_embedder, teacher.texture_enhancer
    seen = torch.cat(
        [given["source_imgs"] * given["source_segs"] + (given["source_segs"] - 1), given["source_stickmen"]], 2
    )
    with torch.no_grad():
        x = sum(nn.Sequential(embedder.stem, *embedder.down)(seen[:, i]) for i in range(2)) / 2
        want = embedder.levels[0].with_features(x)[1]
        got = embedder(*(given[name] for name in ("source_imgs", "source_stickmen", "source_segs")))[0]
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)

        both = torch.randn(2, 6, 32, 32)
        x = sum(nn.Sequential(enhancer.stem, *enhancer.down, *enhancer.middle)(both[i : i + 1]) for i in range(2)) / 2
        want = enhancer.head(nn.functional.leaky_relu(nn.Sequential(*enhancer.up)(x), 0.2))
        torch.testing.assert_close(enhancer.update(both, 2), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("image_px", "start_px", "embedding_px", "enhancer_px", "embedded", "steps_down", "middle"),
    [
        (96, 6, 8, 48, 12, 3, 48),  # 96 / 8 = 12: three halvings, to 12
        (64, 4, 8, 48, 8, 3, 64),  # 64 / 48 = 1: none
        (36, 9, 5, 7, 9, 2, 9),  # 36 / 5 = 7: two; 36 / 7 = 5: two
    ],
)
def test_sides_that_are_no_power_of_two_apart_are_halved_while_they_can(
    random_teacher, inputs, image_px, start_px, embedding_px, enhancer_px, embedded, steps_down, middle
):
    """By floor(log2(image // side)), worked out by hand."""
    sides = {"image_px": image_px, "start_px": start_px, "embedding_px": embedding_px, "enhancer_px": enhancer_px}
    wide = {"embedder_width": 2, "embedder_max_width": 4, "texture_width": 2, "texture_max_width": 4}
    wide |= {"generator_width": 1, "generator_max_width": 2}
    teacher = random_teacher(replace(random_teacher().config, **sides, **wide))
    seen = []
    teacher.texture_enhancer.middle[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-1]))
    with torch.no_grad():
        got = teacher(**inputs(teacher.config, batch=1))
    assert len(teacher.identity_embedder.down) == steps_down
    assert got["first_embed"].shape[-1] == embedded and set(seen) == {middle}
    assert got["pred_enh_target_imgs"].shape == (1, 1, 3, image_px, image_px)


def test_embeddings_as_large_as_the_image_are_averaged_over_the_sources_themselves(random_teacher, inputs):
    teacher = random_teacher(replace(random_teacher().config, embedding_px=32))
    given = inputs(sources=3)
    images = [given[name] for name in ("source_imgs", "source_stickmen", "source_segs")]
    with torch.no_grad():
        got = teacher.identity_embedder(*images)
        alone = [teacher.identity_embedder(*(x[:, i : i + 1] for x in images)) for i in range(3)]
    assert [tuple(x.shape) for x in got] == [(2, 16, 32, 32), (2, 12, 32, 32), (2, 6, 32, 32)]
    for level, of_each in zip(got, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(level, sum(of_each) / 3, rtol=0, atol=1e-5)


def test_an_enhancer_without_residual_blocks_averages_its_corrections(random_teacher, inputs):
    """Of one step: what it adds for two sources is the mean of what it adds for each."""
    teacher = random_teacher(replace(random_teacher().config, enhancer_blocks=0, enhancer_steps=1))
    given = inputs(sources=2)
    images, poses = given["source_imgs"], given["source_poses"]
    stickmen, masks = given["source_stickmen"], given["source_segs"]
    with torch.no_grad():
        identity = teacher.identify(images, stickmen, masks)
        got = teacher.enhance(identity, images, poses)
        alone = [teacher.enhance(identity, images[:, i : i + 1], poses[:, i : i + 1]) for i in range(2)]
    torch.testing.assert_close(got, sum(alone) / 2, rtol=0, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_norms_may_add_nothing_to_the_variance(random_teacher, inputs):
    config = random_teacher().config
    with torch.no_grad():
        none, little = (random_teacher(replace(config, norm_eps=eps))(**inputs()) for eps in (0.0, 1e-12))
    torch.testing.assert_close(none["pred_target_imgs"], little["pred_target_imgs"], rtol=0, atol=1e-5)


def test_the_enhanced_texture_is_repeated_for_each_target(random_teacher, inputs):
    with torch.no_grad():
        got = random_teacher()(**inputs(targets=3))
    enhanced = got["pred_enh_tex_hf_rgbs"]
    assert enhanced.shape == (2, 3, 3, 32, 32) and got["pred_tex_hf_rgbs"].shape == (2, 1, 3, 32, 32)
    torch.testing.assert_close(enhanced, enhanced[:, :1].repeat(1, 3, 1, 1, 1), rtol=0, atol=0)


def test_the_enhancer_works_in_inference_mode_and_without_gradients(random_teacher, inputs):
    teacher, given = random_teacher(), inputs()
    with torch.inference_mode():
        fast = teacher(**given)["pred_enh_tex_hf_rgbs"]
        from_here = teacher(**{name: value.clone() for name, value in given.items()})["pred_enh_tex_hf_rgbs"]
    torch.testing.assert_close(fast, teacher(**given)["pred_enh_tex_hf_rgbs"].detach(), rtol=0, atol=2e-5)
    torch.testing.assert_close(fast, from_here, rtol=0, atol=2e-5)


def test_the_enhancers_gradient_is_the_masked_error_where_nothing_is_warped():
    """With uv the pixels themselves the gradient of 1/2 (seg * e)^2 is seg^2 * e."""
    from mobile_bilayer.compositing import identity_grid

    torch.manual_seed(0)
    texture, lf, source = torch.rand(3, 2, 3, 4, 4)
    seg = torch.rand(2, 1, 4, 4)
    uv = identity_grid(4, texture).expand(2, -1, -1, -1)
    got = gradient_of_error(texture, uv, lf, seg, source)
    torch.testing.assert_close(got, seg**2 * (lf + texture - source), rtol=0, atol=1e-5)


def test_extra_is_added_where_the_features_are_as_wide(random_teacher, inputs):
    """Zeros change nothing; on the first side it is the same as another pose code; on the last only the norm follows."""
    teacher = random_teacher()
    generator, given = teacher.inference_generator, inputs(batch=1)
    with torch.no_grad():
        params = teacher.identify(*(given[name] for name in ("source_imgs", "source_stickmen", "source_segs"))).params
        code = teacher.keypoints_embedder(given["target_poses"][:, 0])
        plain = generator(code, params)
        zeros = {side: torch.zeros(1, width, side, side) for side, width in ((4, 8), (8, 8), (16, 6), (32, 3))}
        torch.testing.assert_close(generator(code, params, zeros)[:3], plain[:3], rtol=0, atol=0)
        shift = torch.randn(1, 8, 4, 4)
        got = generator(code, params, {4: shift})
        torch.testing.assert_close(got[:3], generator(code + shift, params)[:3], rtol=0, atol=0)
        # What is constant over the image at full size is the last norm's to move: as if its mean were another.
        moved = generator(code, params, {32: torch.ones(1, 3, 32, 32)})
        generator.last_norm.running_mean -= 1
        torch.testing.assert_close(moved[:3], generator(code, params)[:3], rtol=0, atol=1e-5)
        assert not torch.allclose(moved.lf, plain.lf, atol=1e-3)
        for side in (8, 16):
            assert not torch.allclose(generator(code, params, {side: zeros[side] + 1}).lf, plain.lf, atol=1e-3)


def test_an_extra_of_no_level_is_refused(random_teacher):
    generator = random_teacher().inference_generator
    with pytest.raises(AssertionError, match="12"):
        generator(torch.zeros(1, 8, 4, 4), [], {12: torch.zeros(1, 8, 12, 12)})


def test_an_embedder_that_sees_no_stickman_needs_none(random_teacher, inputs):
    teacher = random_teacher(replace(random_teacher().config, embedder_sees_stickman=False))
    given = inputs()
    with torch.no_grad():
        want = teacher(**given)["first_embed"]
        del given["source_stickmen"]
        torch.testing.assert_close(teacher(**given)["first_embed"], want, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("source_imgs", (2, 1, 3, 64, 64), "source_imgs is .*64"),
        ("source_segs", (2, 1, 3, 32, 32), "source_segs is"),
        ("target_poses", (2, 1, 136), "target_poses is .*136.*needs 2 x 1 x 10"),
        ("source_poses", (2, 2, 10), "source_poses is"),
        ("source_stickmen", None, "source_stickmen is missing"),
    ],
)
def test_inputs_of_another_shape_are_named(random_teacher, inputs, name, shape, words):
    given = inputs()
    given[name] = None if shape is None else torch.zeros(shape)
    with pytest.raises(MobileBilayerError, match=words):
        random_teacher()(**given)


def test_an_adaptive_convolution_has_weights_of_its_own_for_each_of_the_batch():
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2)
    params = torch.tensor([[[1.0, 10.0, 100.0]], [[0.0, 1.0, -1.0]]])  # x0 + 10 x1 + 100, and x1 - 1
    got = adaptive_conv(x, params)
    torch.testing.assert_close(got, torch.tensor([[[[131.0, 142.0]]], [[[2.0, 3.0]]]]))


def test_training_uses_the_batch_and_moves_the_statistics(random_teacher, inputs):
    teacher, given = random_teacher(), inputs()
    norm = teacher.inference_generator.blocks[0].norm1
    teacher.train()
    codes = []
    norm.register_forward_pre_hook(lambda _, args: codes.append(args[0].detach()))
    teacher(**given)["pred_enh_target_imgs"].mean().backward()
    # Momentum 1: the last batch's, which was the source's pose.
    torch.testing.assert_close(norm.running_mean, codes[-1].mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, codes[-1].transpose(0, 1).flatten(1).var(1))
    # The mask is no part of the image, and nothing comes after the embedder's last block.
    without = {name.rsplit(".", 1)[0] for name, p in teacher.named_parameters() if p.grad is None}
    last = "identity_embedder.levels.2"
    assert without == {"inference_generator.seg", f"{last}.conv2", f"{last}.skip"}


PARTS = (slice(0, 3), slice(3, 4))  # of unequal processes


def global_batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, 2, 3, 3) * torch.tensor([1.0, 5.0])[None, :, None, None] + 2, torch.randn(4, 2, 3, 3)


MOMENTA = (0.3, None)


def part_of_a_batch(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for momentum in MOMENTA:
        x, weights = (whole[PARTS[rank]].clone() for whole in global_batch())
        x.requires_grad_()
        norm = BatchNorm(2, 1e-7, momentum)
        for _ in range(2):  # the second time the running statistics have a past
            out = norm(x)
        (out * weights).sum().backward()
        tensors = {"out": out.detach(), "x": x.grad, "gradient": norm.weight.grad, **norm.state_dict()}
        torch.save(tensors, Path(folder) / f"{rank}-{momentum}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_batch_norm_of_one_with_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(part_of_a_batch, (str(tmp_path),), nprocs=2)
    for momentum in MOMENTA:
        first, second = (torch.load(tmp_path / f"{rank}-{momentum}.pt", weights_only=True) for rank in range(2))
        x, weights = global_batch()
        x.requires_grad_()
        want = nn.BatchNorm2d(2, 1e-7, momentum)
        for _ in range(2):
            out = want(x)
        (out * weights).sum().backward()
        torch.testing.assert_close(torch.cat([first["out"], second["out"]]), out.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.cat([first["x"], second["x"]]), x.grad, rtol=0, atol=1e-5)
        torch.testing.assert_close(first["gradient"] + second["gradient"], want.weight.grad, rtol=0, atol=1e-4)
        for name, value in want.state_dict().items():
            torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-5)
