"""The shape of a teacher, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import StudentConfig

PRIORS = ("none", "landmark")


@dataclass(frozen=True)
class TeacherConfig:
    """Shape of a teacher; the defaults are the paper's at 256 px. Widths are counts of channels.

    A generator's *levels* double the side from `start_px` to `image_px`. Its width is min(width * 2^i, max_width) with
    i the number of levels still to come: from the coarsest to the finest.
    """

    image_px: int = 256  # square, side
    start_px: int = 4  # where both generators start
    embedding_px: int = 8  # of the identity embeddings: the side is halved while it stays at least that
    keypoints: int = 68
    embedder_width: int = 64
    embedder_max_width: int = 512
    embedder_sees_stickman: bool = True
    texture_width: int = 64
    texture_max_width: int = 512
    generator_width: int = 32
    generator_max_width: int = 256
    keypoints_width: int = 256
    keypoints_layers: int = 4
    enhancer_steps: int = 4  # unrolled; 0 is a teacher without an enhancer
    enhancer_width: int = 64
    enhancer_max_width: int = 128
    enhancer_px: int = 128  # where its residual blocks work: halved likewise
    enhancer_blocks: int = 8
    norm_eps: float = 1e-7  # 1e-5 is not good enough for the enhancer
    norm_momentum: float | None = 1.0  # of the running statistics; None: their plain average
    prior: str = "none"  # none: the paper's mode; landmark: see landmark.py
    coarse: StudentConfig | None = None  # of the landmark mode: the shape of its coarse stage

    def __post_init__(self) -> None:
        for field in fields(self):
            value, wanted = getattr(self, field.name), field.type
            if wanted == "int":
                least = 0 if field.name in ("enhancer_steps", "enhancer_blocks") else 1
                if type(value) is not int or value < least:
                    raise MobileBilayerError(
                        f"{field.name} is {value!r}; it must be a whole number of at least {least}. "
                        f"The paper's is {field.default}."
                    )
            elif wanted == "bool" and type(value) is not bool:
                raise MobileBilayerError(f"{field.name} is {value!r}; it must be true or false.")
        self._check_number("norm_eps", zero=True)
        if self.norm_momentum is not None:
            self._check_number("norm_momentum", most=1)
        if self.prior not in PRIORS:
            raise MobileBilayerError(f"prior is {self.prior!r}; it must be {' or '.join(PRIORS)}.")
        if isinstance(self.coarse, dict):  # out of a file
            object.__setattr__(self, "coarse", StudentConfig(**self.coarse))
        if (self.coarse is not None) != (self.prior == "landmark"):
            raise MobileBilayerError(
                f"prior is {self.prior!r} and coarse is {self.coarse}; a coarse stage belongs to the prior landmark, "
                "and to no other."
            )
        self._check_sides()
        if self.generator_widths[0] != self.generator_max_width:
            raise MobileBilayerError(
                f"generator_max_width is {self.generator_max_width}, but the widest level of the generator has "
                f"{self.generator_widths[0]} channels, and the pose code must fit it. Use {self.generator_widths[0]}."
            )
        self._check_projectors()

    @property
    def levels(self) -> int:
        return doublings(self.start_px, self.image_px)

    @property
    def texture_widths(self) -> list[int]:
        """levels + 1 widths, coarsest first: level k goes from the k-th to the next."""
        return self._widths(self.texture_width, self.texture_max_width)

    @property
    def generator_widths(self) -> list[int]:
        """levels + 1 widths, coarsest first: level k goes from the k-th to the next."""
        return self._widths(self.generator_width, self.generator_max_width)

    @property
    def projector_widths(self) -> list[int]:
        """Hidden width of the projectors' level k."""
        return self._widths(self.embedder_width, self.embedder_max_width)[:-1]

    def _widths(self, width: int, most: int) -> list[int]:
        return [min(width * 2**i, most) for i in range(self.levels, -1, -1)]

    def _check_number(self, name: str, most: float = float("inf"), zero: bool = False) -> None:
        """Above 0, or at least 0 with `zero`."""
        value = getattr(self, name)
        if type(value) not in (int, float) or not 0 <= value <= most or value == float("inf") or not (value or zero):
            lower = "of at least 0" if zero else "above 0"
            upper = "" if most == float("inf") else f" and at most {most}"
            raise MobileBilayerError(f"{name} is {value!r}; it must be a number {lower}{upper}.")

    def _check_sides(self) -> None:
        for name in ("start_px", "embedding_px", "enhancer_px"):
            side = getattr(self, name)
            times = doublings(side, self.image_px) if side <= self.image_px else -1
            # A generator must arrive at the image's side, and the enhancer must come back to it; the embedder needn't.
            if name == "start_px" and (times < 1 or side << times != self.image_px):
                what = "the first must be 2 times the second, or that doubled again and again"
            elif times < 0:
                what = "the second must not be above the first"
            elif name == "enhancer_px" and self.image_px % 2**times:
                what = f"the first can't be halved {times} times without a rest, so the enhancer would not come back to it"
            else:
                continue
            raise MobileBilayerError(f"image_px is {self.image_px} and {name} is {side}; {what}.")

    def _check_projectors(self) -> None:
        """A projector cuts an embedding into as many rows as its level has output channels: that must come out."""
        for kind, widths in (("texture", self.texture_widths), ("generator", self.generator_widths)):
            for k, hidden in enumerate(self.projector_widths):
                side = pooled_px(widths[k], hidden)
                values = self.texture_widths[k + 1] * side**2  # of the pooled embedding
                columns, rest = divmod(side**2 * hidden, widths[k])
                if rest or not columns or values != widths[k + 1] * columns:
                    raise MobileBilayerError(
                        f"The widths of embedder and {kind} do not fit each other: at level {k} embeddings of "
                        f"{self.texture_widths[k + 1]} channels, pooled to {side} px, do not become "
                        f"{widths[k + 1]} rows. Keep {kind}_width / embedder_width and "
                        f"{kind}_max_width / embedder_max_width equal, and texture and embedder as wide as each other."
                    )


def doublings(low_px: int, high_px: int) -> int:
    """How often a side of low_px can double without passing high_px."""
    return (high_px // low_px).bit_length() - 1


def pooled_px(width: int, hidden: int) -> int:
    """Side that an embedding is pooled to, for a level with `width` channels and a projector of `hidden`."""
    return int(32 * width / hidden)
