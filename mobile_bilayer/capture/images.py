"""Photos in and out, and the checks that every file in and out goes through."""

from __future__ import annotations

import io
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from mobile_bilayer.errors import MobileBilayerError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # what write_image can write
AI_GENERATED = "AI-generated: a photo animated by mobile_bilayer"

# Only formats that photos come in: Pillow's others include EPS, which would start Ghostscript.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")

# EXIF orientation to the turn that undoes it.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def read_image(path: Path, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """A photo as (H, W, 3) uint8 RGB: upright, and with `background` (RGB) where it is see-through.

    The format is told by the content, whatever the name ends in. Of an animation, the first picture.
    """
    path = check_input(path, "photo")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MobileBilayerError(f"{path} could not be opened ({error}). Check that you may read it.") from error
    kind = ftyp_kind(data)
    if kind == "HEIC" and not _register_heif():
        raise MobileBilayerError(
            f"{path} is a HEIC photo, which needs an extra. "
            "Run `pip install 'mobile-bilayer[heif]'`, or save the photo as JPEG or PNG."
        )
    if kind == "video":
        raise MobileBilayerError(f"{path} is a video; a photo is needed. Save one frame of it as JPEG or PNG.")
    Image.init()
    if kind == "AVIF" and "AVIF" not in Image.OPEN:
        raise MobileBilayerError(
            f"{path} is an AVIF photo, which this Pillow can't read. "
            "Run `pip install --upgrade pillow` (11.3 or newer), or save the photo as JPEG or PNG."
        )
    try:
        with Image.open(io.BytesIO(data), formats=[f for f in _FORMATS if f in Image.OPEN]) as image:
            image.load()
            orientation = _orientation(image)
            flat = _flat_rgb(image, background)
        if orientation in _UPRIGHT:
            flat = flat.transpose(_UPRIGHT[orientation])
        return np.array(flat)
    except UnidentifiedImageError as error:
        raise MobileBilayerError(
            f"{path} is not a photo we can read; its content is none of {', '.join(_FORMATS)}. "
            "Save it as JPEG or PNG."
        ) from error
    except Image.DecompressionBombError as error:
        raise MobileBilayerError(f"{path} is too large ({error}). Save a smaller copy of it.") from error
    except Exception as error:  # on damaged files decoders raise nearly anything
        raise MobileBilayerError(
            f"{path} is damaged or of a rare kind: {error}. Copy it again, or save it as JPEG or PNG."
        ) from error


def write_image(path: Path, rgb: np.ndarray, ai_generated: bool = True) -> None:
    """Write (H, W, 3) uint8 RGB as PNG or JPEG, by the name's ending; a file already there is replaced at the end.

    ai_generated  says so in the metadata: a description, and IPTC's digital source type
    """
    path = check_output(path, IMAGE_SUFFIXES)
    image = Image.fromarray(check_rgb(rgb))
    if path.suffix.lower() == ".png":
        options = {"format": "PNG", "pnginfo": _png_tags() if ai_generated else None}
    else:
        options = {"format": "JPEG", "quality": 95, "subsampling": 0}
        if ai_generated:
            options |= {"exif": _exif_tags(), "xmp": _XMP}
    try:
        with written_aside(path) as aside:
            image.save(aside, **options)
    except OSError as error:
        raise MobileBilayerError(
            f"{path} could not be written: {error}. Free some space, or write elsewhere."
        ) from error


def check_input(path: Path, what: str) -> Path:
    """`path`, when a file with content is there; `what` ("photo", "video") is for the message."""
    path = Path(path)
    if path.is_dir():
        raise MobileBilayerError(f"{path} is a folder; a {what} is needed. Name one file in it.")
    if not path.is_file():
        raise MobileBilayerError(f"{path} does not exist; a {what} is needed. Check the path.")
    if path.stat().st_size == 0:
        raise MobileBilayerError(f"{path} is empty (0 bytes); a {what} is needed. Copy or download it again.")
    return path


def check_output(path: Path, suffixes: tuple[str, ...]) -> Path:
    """`path`, when a file can be written there. Call it before long work, so that none is lost.

    suffixes  the allowed endings, in lower case with their dot
    """
    path = Path(path)
    if path.is_dir():
        raise MobileBilayerError(f"{path} is a folder; a file to write is needed. Add a file name.")
    if path.suffix.lower() not in suffixes:
        raise MobileBilayerError(
            f"{path.name} ends in {path.suffix or 'no suffix'}; it must end in {' or '.join(suffixes)}. Rename it."
        )
    if not path.parent.is_dir():
        raise MobileBilayerError(f"The folder {path.parent} for {path.name} does not exist. Create it first.")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # asking for permissions isn't reliable; trying is
    except OSError as error:
        raise MobileBilayerError(
            f"The folder {path.parent} for {path.name} can't be written to ({error}). Choose another folder."
        ) from error
    return path


def check_rgb(rgb: np.ndarray) -> np.ndarray:
    """`rgb`, when it is (H, W, 3) uint8 with something in it."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise MobileBilayerError(
            f"A picture has shape {rgb.shape} and type {rgb.dtype}; it must be HxWx3 uint8 RGB. "
            "Convert it with numpy first."
        )
    return np.ascontiguousarray(rgb)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A new name in the same folder to write to: renamed to `path` at the end, removed on an error."""
    aside = path.with_name(f".{secrets.token_hex(6)}.part{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def ftyp_kind(head: bytes) -> str | None:
    """"HEIC", "AVIF" or "video" for files of the MP4 family, None for others, from a file's first bytes."""
    if head[4:8] != b"ftyp":
        return None
    size = int.from_bytes(head[:4], "big")
    brands = {head[8:12]} | {head[i : i + 4] for i in range(16, min(size, len(head), 256), 4)}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
        return "HEIC"
    return "video"


def _register_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _orientation(image: Image.Image) -> int:
    """1 to 8. Unreadable EXIF doesn't make a good photo bad."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow lets through whatever parsing met
        return 1


def _flat_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Mode RGB, without alpha."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point, without a known range")
    if image.has_transparency_data:
        under = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(under, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _png_tags() -> PngImagePlugin.PngInfo:
    tags = PngImagePlugin.PngInfo()
    tags.add_text("Description", AI_GENERATED)
    tags.add_text("Software", "mobile_bilayer")
    tags.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    return tags


def _exif_tags() -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.ImageDescription] = AI_GENERATED
    tags[ExifTags.Base.Software] = "mobile_bilayer"
    return tags
