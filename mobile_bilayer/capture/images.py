"""Photos in and out, and the checks that every file in and out goes through."""

from __future__ import annotations

import io
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from mobile_bilayer.capture import hdr
from mobile_bilayer.errors import MobileBilayerError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # what write_image can write
AI_GENERATED = "AI-generated: a photo animated by mobile_bilayer"
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

# Only formats that photos come in: Pillow's others include EPS, which would start Ghostscript.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")

_DNG_VERSION = 50706  # a tag of raw photos; Pillow would show the small preview

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

_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>""".encode()


def read_image(path: Path, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """A photo as (H, W, 3) uint8 sRGB: upright, and with `background` (RGB) where it is see-through.

    Colours are those that its profile means; without one they are sRGB's. The format is told by the content, whatever
    the name ends in. Of an animation, the first picture.
    """
    path = check_input(path, "photo")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MobileBilayerError(f"{path} could not be opened ({error}). Check that you may read it.") from error
    kind = ftyp_kind(data)
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        raise MobileBilayerError(f"{path} is a JPEG XL photo, which Pillow can't read. Save it as JPEG or PNG.")
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
            if _DNG_VERSION in getattr(image, "tag_v2", ()):
                raise MobileBilayerError(f"{path} is a raw photo (DNG). Develop it: save it as JPEG or PNG.")
            image.load()
            orientation = _orientation(image)
            flat = _flat_rgb(image, background, path)
            transfer = (image.info.get("nclx_profile") or {}).get("transfer_characteristics")  # only of HEIC
        if orientation in _UPRIGHT:
            flat = flat.transpose(_UPRIGHT[orientation])
        rgb = np.array(flat)
        return hdr.to_sdr(rgb.astype(np.uint16) * 257, transfer) if transfer in (hdr.PQ, hdr.HLG) else rgb
    except UnidentifiedImageError as error:
        raise MobileBilayerError(
            f"{path} is not a photo we can read; its content is none of {', '.join(_FORMATS)}. Save it as JPEG or PNG."
        ) from error
    except Image.DecompressionBombError as error:
        raise MobileBilayerError(f"{path} is too large ({error}). Save a smaller copy of it.") from error
    except MobileBilayerError:
        raise
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


def webp(pictures: Sequence[np.ndarray], quality: int, frame_ms: int = 40) -> bytes:
    """Pictures (H, W, 3) uint8 RGB, all of one size, as a WebP that says it is AI-generated: several as an endless animation."""
    first, *others = (Image.fromarray(check_rgb(rgb)) for rgb in pictures)
    file = io.BytesIO()
    options = {"save_all": True, "append_images": others, "duration": frame_ms, "loop": 0} if others else {}
    first.save(file, "WEBP", quality=quality, method=4, exif=_exif_tags(), xmp=_XMP, **options)
    return file.getvalue()


def check_input(path: Path, what: str) -> Path:
    """`path`, when a file with content is there; `what` ("photo", "video") is for the message."""
    path = Path(path)
    if path.is_dir():
        raise MobileBilayerError(f"{path} is a folder, where one file ({what}) is needed. Name it.")
    if not path.is_file():
        raise MobileBilayerError(f"{path} does not exist ({what}). Check the path.")
    if path.stat().st_size == 0:
        raise MobileBilayerError(f"{path} is empty (0 bytes); content is needed ({what}). Copy or download it again.")
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
    """What a file of the MP4 family is by its first bytes: "HEIC", "AVIF" or "video"; None for other families."""
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


def _flat_rgb(image: Image.Image, background: tuple[int, int, int], path: Path) -> Image.Image:
    """Mode RGB, sRGB, without alpha."""
    icc = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return _srgb(Image.fromarray(grey.astype(np.uint8)), icc, path)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point, without a known range")
    if not image.has_transparency_data:
        return _srgb(image, icc, path)
    grey_alpha = image.mode in {"L", "LA", "La"}
    see_through = image.convert("LA" if grey_alpha else "RGBA")
    colours = _srgb(see_through.convert("L" if grey_alpha else "RGB"), icc, path).convert("RGBA")
    colours.putalpha(see_through.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), colours).convert("RGB")


def _srgb(image: Image.Image, icc: bytes | None, path: Path) -> Image.Image:
    """Mode RGB, of a picture without alpha. A bad profile doesn't make a good photo bad."""
    if not icc:
        return image.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        greys = space == "GRAY" and image.mode in {"1", "L"}
        if (image.mode == "CMYK") != (space == "CMYK") or not (greys or space in {"RGB", "CMYK"}):
            raise ValueError(f"it is for {space}, the photo is {image.mode}")
        return ImageCms.profileToProfile(
            image.convert({"GRAY": "L"}.get(space, space)),
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ImportError, ValueError) as error:  # ImportError: a Pillow built without lcms
        warnings.warn(
            f"The colour profile of {path} can't be used ({error}); its colours may be a little off.", stacklevel=4
        )
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
