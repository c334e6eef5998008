"""The paper's full-size model: everything heavy once per avatar, a small generator every frame.

    head(p) = texture(p + flow(p)) + lf(p)

is the formula of every model here with gate = mask = 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobile_bilayer.compositing import identity_grid
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher.blocks import LevelParams, warp
from mobile_bilayer.teacher.config import TeacherConfig
from mobile_bilayer.teacher.identity_embedder import IdentityEmbedder
from mobile_bilayer.teacher.inference_generator import InferenceGenerator
from mobile_bilayer.teacher.keypoints_embedder import KeypointsEmbedder
from mobile_bilayer.teacher.projector import inference_projector, texture_projector
from mobile_bilayer.teacher.texture_enhancer import TextureEnhancer
from mobile_bilayer.teacher.texture_generator import TextureGenerator


class Identity(NamedTuple):
    """What is known of a person before any pose.

    embeddings  of each level, coarsest first: (B, C, e, e)
    texture     (B, 3, S, S), [-1, 1]
    params      of the inference generator's levels
    """

    embeddings: list[Tensor]
    texture: Tensor
    params: list[LevelParams]


class Posed(NamedTuple):
    """T frames of each of B persons.

    pose_code  (B, T, C, start, start)
    uv         (B, T, S, S, 2)  where each pixel reads the texture: xy, [-1, 1] is the frame
    lf         (B, T, 3, S, S)  low-frequency layer, [-1, 1]
    seg        (B, T, 1, S, S)  the person's alpha, [0, 1]
    """

    pose_code: Tensor
    uv: Tensor
    lf: Tensor
    seg: Tensor


class Teacher(nn.Module):
    """The whole way from sources and keypoints to images; the names of inputs and results are the public code's."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        assert config.prior == "none"
        self.config = config
        self.identity_embedder = IdentityEmbedder(config)
        self.texture_projector = texture_projector(config)
        self.texture_generator = TextureGenerator(config)
        self.inference_projector = inference_projector(config)
        self.keypoints_embedder = KeypointsEmbedder(config)
        self.inference_generator = InferenceGenerator(config)
        self.texture_enhancer = TextureEnhancer(config) if config.enhancer_steps else None

    def identify(self, images: Tensor, stickmen: Tensor | None, masks: Tensor) -> Identity:
        """N sources of each of B persons, as `IdentityEmbedder` takes them."""
        embeddings = self.identity_embedder(images, stickmen, masks)
        texture = self.texture_generator(self.texture_projector(embeddings))
        return Identity(embeddings, texture, self.inference_projector(embeddings))

    def pose(self, params: list[LevelParams], poses: Tensor) -> Posed:
        """poses (B, T, 2 K): keypoints in [-1, 1] of the crop."""
        frames = poses.shape[1]
        code = self.keypoints_embedder(poses.flatten(0, 1))
        layers = self.inference_generator(code, [level.repeated(frames) for level in params])
        uv = identity_grid(self.config.image_px, code) + layers.delta_uv.permute(0, 2, 3, 1)
        return Posed(*(x.unflatten(0, (-1, frames)) for x in (code, uv, layers.lf, torch.sigmoid(layers.seg))))

    def enhance(self, identity: Identity, images: Tensor, poses: Tensor) -> Tensor:
        """The texture (B, 3, S, S) corrected until it shows the sources: images (B, N, 3, S, S), poses (B, N, 2 K)."""
        own = self.pose(identity.params, poses)
        return self.texture_enhancer(identity.texture, own.uv, own.lf, own.seg, images)

    def forward(
        self,
        *,
        source_imgs: Tensor,
        source_segs: Tensor,
        target_poses: Tensor,
        source_stickmen: Tensor | None = None,
        source_poses: Tensor | None = None,
        target_imgs: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """N sources and T targets of each of B persons.

        source_imgs      (B, N, 3, S, S)  [-1, 1]
        source_stickmen  (B, N, 3, S, S)  [-1, 1]
        source_segs      (B, N, 1, S, S)  the person's alpha, [0, 1]
        source_poses     (B, N, 2 K)      keypoints in [-1, 1]; only the enhancer looks at them
        target_poses     (B, T, 2 K)
        target_imgs      not needed

        returns, among others,
        pred_target_imgs      (B, T, 3, S, S)  on black, about [-1, 1], not clamped
        pred_target_segs      (B, T, 1, S, S)  [0, 1]; it is not applied to the images
        pred_target_uvs       (B, T, S, S, 2)
        pred_tex_hf_rgbs      (B, 1, 3, S, S)
        pred_enh_tex_hf_rgbs  (B, T, 3, S, S)  if there is an enhancer: T times the same, as in the public code
        pred_enh_target_imgs  (B, T, 3, S, S)  and the images with it
        """
        self._check(source_imgs, source_segs, target_poses, source_stickmen, source_poses)
        identity = self.identify(source_imgs, source_stickmen, source_segs)
        target = self.pose(identity.params, target_poses)
        warped = self._warp(identity.texture, target.uv)
        result = {
            "first_embed": identity.embeddings[0],
            "last_embed": identity.embeddings[-1],
            "target_pose_embeds": target.pose_code,
            "pred_tex_hf_rgbs": identity.texture[:, None],
            "pred_target_uvs": target.uv,
            "pred_target_delta_lf_rgbs": target.lf,
            "pred_target_delta_hf_rgbs": warped,
            "pred_target_imgs": target.lf + warped,
            "pred_target_segs": target.seg,
        }
        if self.texture_enhancer is not None:
            enhanced = self.enhance(identity, source_imgs, source_poses)
            result["pred_enh_tex_hf_rgbs"] = enhanced[:, None].expand(-1, target_poses.shape[1], -1, -1, -1)
            result["pred_enh_target_imgs"] = target.lf + self._warp(enhanced, target.uv)
        return result

    @staticmethod
    def _warp(texture: Tensor, uv: Tensor) -> Tensor:
        """texture (B, 3, S, S) at uv (B, T, S, S, 2): (B, T, 3, S, S)."""
        frames = uv.shape[1]
        return warp(texture.repeat_interleave(frames, 0), uv.flatten(0, 1)).unflatten(0, (-1, frames))

    def _check(
        self, images: Tensor, segs: Tensor, targets: Tensor, stickmen: Tensor | None, poses: Tensor | None
    ) -> None:
        side, values = self.config.image_px, 2 * self.config.keypoints
        batch, frames = (images.shape[0], images.shape[1]) if images.ndim == 5 else ("B", "N")
        wanted = {
            "source_imgs": (images, (batch, frames, 3, side, side)),
            "source_segs": (segs, (batch, frames, 1, side, side)),
            "target_poses": (targets, (batch, targets.shape[1] if targets.ndim == 3 else "T", values)),
        }
        if self.config.embedder_sees_stickman:
            wanted["source_stickmen"] = stickmen, (batch, frames, 3, side, side)
        if self.config.enhancer_steps:
            wanted["source_poses"] = poses, (batch, frames, values)
        for name, (tensor, shape) in wanted.items():
            got = "missing" if tensor is None else tuple(tensor.shape)
            if got != shape:
                raise MobileBilayerError(f"{name} is {got}; this teacher needs {' x '.join(map(str, shape))}.")
