"""Photos in and out."""

import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mobile_bilayer.capture import images
from mobile_bilayer.capture.images import check_output, read_image, write_image
from mobile_bilayer.errors import MobileBilayerError

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
HEIC_HEAD = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(200)


def corners(height: int, width: int, cell: int = 1) -> np.ndarray:
    """Grey with red, green, blue and yellow in the corners: top left, top right, bottom left, bottom right."""
    rgb = np.full((height, width, 3), 128, np.uint8)
    rgb[:cell, :cell], rgb[:cell, -cell:] = RED, GREEN
    rgb[-cell:, :cell], rgb[-cell:, -cell:] = BLUE, YELLOW
    return rgb


def corner_colours(rgb: np.ndarray) -> list[tuple[int, ...]]:
    """In the same order, with each channel rounded to 0 or 255."""
    at = 3 if min(rgb.shape[:2]) > 8 else 0
    found = [rgb[at, at], rgb[at, -1 - at], rgb[-1 - at, at], rgb[-1 - at, -1 - at]]
    return [tuple(int(v > 127) * 255 for v in colour) for colour in found]


# How the EXIF standard says the stored picture lies: where its row 0 and its column 0 are seen.
STORED = {
    1: lambda up: up,  # top, left
    2: lambda up: up[:, ::-1],  # top, right
    3: lambda up: up[::-1, ::-1],  # bottom, right
    4: lambda up: up[::-1],  # bottom, left
    5: lambda up: up.transpose(1, 0, 2),  # left, top
    6: lambda up: up[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda up: up[::-1].transpose(1, 0, 2),  # left, bottom
}


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_CA2_exif_orientation_is_applied_once(tmp_path, orientation, suffix):
    upright = corners(32, 48, cell=8)
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(path, exif=exif(orientation))
    rgb = read_image(path)
    assert rgb.shape == (32, 48, 3)
    assert corner_colours(rgb) == [RED, GREEN, BLUE, YELLOW]


@pytest.mark.parametrize("orientation", [5, 7])
def test_CA2_a_mirrored_png_with_alpha_is_upright(tmp_path, orientation):
    upright = np.dstack([corners(4, 6), np.full((4, 6), 255, np.uint8)])
    upright[1:3, 1:5, 3] = 0
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(path, exif=exif(orientation))
    rgb = read_image(path, background=(1, 2, 3))
    assert rgb.shape == (4, 6, 3)
    assert corner_colours(rgb) == [RED, GREEN, BLUE, YELLOW]
    assert rgb[1, 1].tolist() == [1, 2, 3]


def test_CA2_an_upright_copy_carries_no_orientation(tmp_path):
    Image.fromarray(corners(8, 16)).save(tmp_path / "turned.jpg", exif=exif(6))
    write_image(tmp_path / "copy.jpg", read_image(tmp_path / "turned.jpg"))
    with Image.open(tmp_path / "copy.jpg") as copy:
        assert copy.size == (8, 16)
        assert 0x0112 not in copy.getexif()


def test_unreadable_exif_does_not_spoil_a_photo(tmp_path):
    Image.new("RGB", (6, 4), RED).save(tmp_path / "photo.png", exif=b"Exif\0\0MM\0garbage")
    assert read_image(tmp_path / "photo.png").tolist() == [[[255, 0, 0]] * 6] * 4


@pytest.mark.parametrize("name", ["Фото 写真", "ä b"])
def test_CA3_names_outside_ascii_work(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    write_image(folder / f"{name}.png", corners(4, 6))
    np.testing.assert_array_equal(read_image(folder / f"{name}.png"), corners(4, 6))


def test_CA10_hidden_colour_does_not_show_through(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "cut-out.png")
    assert read_image(tmp_path / "cut-out.png")[0, 0].tolist() == [255, 255, 255]
    assert read_image(tmp_path / "cut-out.png", background=(0, 0, 9))[0, 0].tolist() == [0, 0, 9]


def test_CA10_half_transparent_pixels_are_mixed(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 128)).save(tmp_path / "half.png")
    mixed = read_image(tmp_path / "half.png", background=(0, 100, 0))[0, 0]
    np.testing.assert_allclose(mixed, [200 * 128 / 255, 100 * 127 / 255, 0], atol=1)


def test_CA10_a_transparent_palette_entry_shows_the_background(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((3, 3), 1)
    image.save(tmp_path / "palette.png", transparency=0)
    rgb = read_image(tmp_path / "palette.png", background=(7, 8, 9))
    assert rgb[0, 0].tolist() == [7, 8, 9]
    assert rgb[3, 3].tolist() == [0, 255, 0]


def test_CA10_adobe_cmyk_is_not_inverted(tmp_path):
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:, :16, 1:3] = 255  # magenta and yellow: red
    ink[:, 16:, 0] = 255  # cyan
    path = tmp_path / "print.jpg"
    Image.fromarray(ink, "CMYK").save(path, quality=95)
    assert b"Adobe" in path.read_bytes()
    rgb = read_image(path)
    np.testing.assert_allclose(rgb[8, 4], [255, 0, 0], atol=4)
    np.testing.assert_allclose(rgb[8, 28], [0, 255, 255], atol=4)
    opencv = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_allclose(rgb[8, [4, 28]], opencv[8, [4, 28]], atol=6)


@pytest.mark.parametrize(
    "grey", [np.full((3, 5), 99, np.uint8), np.full((3, 5), 99 * 257, np.uint16)], ids=["8 bits", "16 bits"]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_CA10_grey_becomes_three_equal_channels(tmp_path, grey, suffix):
    Image.fromarray(grey).save(tmp_path / f"grey{suffix}")
    rgb = read_image(tmp_path / f"grey{suffix}")
    assert rgb.flags.c_contiguous and rgb.dtype == np.uint8
    assert rgb.tolist() == [[[99, 99, 99]] * 5] * 3


def test_CA11_heic_named_jpg_asks_for_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # importing it fails
    (tmp_path / "IMG.jpg").write_bytes(HEIC_HEAD)
    with pytest.raises(MobileBilayerError, match=r"HEIC.*pip install 'mobile-bilayer\[heif\]'"):
        read_image(tmp_path / "IMG.jpg")


def test_CA11_heic_named_jpg_is_read_with_the_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heif")
    heif.register_heif_opener()
    stored = np.ascontiguousarray(STORED[6](corners(64, 96, cell=24)))
    Image.fromarray(stored).save(tmp_path / "IMG.heic", exif=exif(6).tobytes(), quality=95)
    (tmp_path / "IMG.heic").rename(tmp_path / "IMG.jpg")
    rgb = read_image(tmp_path / "IMG.jpg")
    assert rgb.shape == (64, 96, 3)
    assert corner_colours(rgb) == [RED, GREEN, BLUE, YELLOW]


def test_CA11_avif_named_png_is_read_or_asks_for_a_newer_pillow(tmp_path, monkeypatch):
    Image.init()
    if "AVIF" in Image.SAVE:
        Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "IMG.png", format="AVIF", quality=95)
        np.testing.assert_allclose(read_image(tmp_path / "IMG.png")[8, 8], [200, 10, 10], atol=6)
    (tmp_path / "IMG.png").write_bytes(HEIC_HEAD.replace(b"heic", b"avif"))
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    with pytest.raises(MobileBilayerError, match="AVIF.*pip install --upgrade pillow"):
        read_image(tmp_path / "IMG.png")


def jpeg_bytes(tmp_path: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")
    return (tmp_path / "noise.jpg").read_bytes()


def test_a_truncated_photo_is_called_damaged(tmp_path):
    data = jpeg_bytes(tmp_path)
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(MobileBilayerError, match="damaged") as caught:
        read_image(tmp_path / "half.jpg")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"hello", "not a photo"),
        ("print.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a photo"),
        ("clip.jpg", struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + bytes(99), "is a video"),
    ],
)
def test_what_is_no_photo_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MobileBilayerError, match=said):
        read_image(tmp_path / name)


def test_a_missing_photo_and_a_folder_are_refused(tmp_path):
    with pytest.raises(MobileBilayerError, match="does not exist"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(MobileBilayerError, match="is a folder"):
        read_image(tmp_path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("1", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(MobileBilayerError, match="too large") as caught:
        read_image(tmp_path / "bomb.png")
    assert isinstance(caught.value.__cause__, Image.DecompressionBombError)


@pytest.mark.parametrize("name", ["out.png", "out.JPG"])
def test_written_pictures_say_that_they_are_ai_generated(tmp_path, name):
    write_image(tmp_path / name, corners(8, 8))
    content = (tmp_path / name).read_bytes()
    assert b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in content
    with Image.open(tmp_path / name) as image:
        image.load()
        assert b"DigitalSourceType" in image.info["xmp"]
        said = image.info.get("Description") or image.getexif()[0x010E]  # ImageDescription
    assert said.startswith("AI-generated") and "mobile_bilayer" in said


@pytest.mark.parametrize("name", ["out.png", "out.jpg"])
def test_written_pictures_say_nothing_when_asked_so(tmp_path, name):
    write_image(tmp_path / name, corners(8, 8), ai_generated=False)
    content = (tmp_path / name).read_bytes()
    assert b"AI-generated" not in content and b"DigitalSourceType" not in content


def test_a_jpeg_keeps_colours_close(tmp_path):
    rgb = np.full((16, 16, 3), (180, 120, 90), np.uint8)
    write_image(tmp_path / "out.jpeg", rgb)
    np.testing.assert_allclose(read_image(tmp_path / "out.jpeg").astype(int), rgb, atol=2)


@pytest.mark.parametrize("rgb", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_not_written(tmp_path, rgb):
    with pytest.raises(MobileBilayerError, match="HxWx3 uint8"):
        write_image(tmp_path / "out.png", rgb)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "out.png", corners(4, 4))
    before = (tmp_path / "out.png").read_bytes()

    def full_disk(_image, path, **_options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(MobileBilayerError, match="No space left"):
        write_image(tmp_path / "out.png", corners(8, 8))
    assert (tmp_path / "out.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("out.bmp", r"ends in \.bmp.*\.png or \.jpg"), ("out", "no suffix"), ("no/out.png", "does not exist")],
)
def test_an_output_that_can_not_be_is_told_up_front(tmp_path, name, said):
    with pytest.raises(MobileBilayerError, match=said):
        check_output(tmp_path / name, images.IMAGE_SUFFIXES)


def test_a_folder_is_no_output(tmp_path):
    (tmp_path / "out.png").mkdir()
    with pytest.raises(MobileBilayerError, match="is a folder"):
        check_output(tmp_path / "out.png", (".png",))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux: a folder where even root can't write")
def test_a_folder_that_takes_no_files_is_told_up_front():
    with pytest.raises(MobileBilayerError, match="can't be written to"):
        check_output(Path("/proc/self/out.png"), (".png",))


def test_the_check_leaves_nothing_behind(tmp_path):
    assert check_output(tmp_path / "out.PNG", (".png",)) == tmp_path / "out.PNG"
    assert list(tmp_path.iterdir()) == []
