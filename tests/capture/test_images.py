"""Photos in and out."""

import io
import struct
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mobile_bilayer.capture import images
from mobile_bilayer.capture.images import check_output, read_image, webp, write_image
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
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
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


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_CA11_a_turned_phone_photo_is_upright(tmp_path, orientation, suffix):
    pytest.importorskip("pillow_heif", reason="needs the extra heif").register_heif_opener()
    Image.init()
    if suffix == ".avif" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    stored = np.ascontiguousarray(STORED[orientation](corners(64, 96, cell=24)))
    Image.fromarray(stored).save(tmp_path / f"IMG{suffix}", exif=exif(orientation).tobytes(), quality=95)
    rgb = read_image(tmp_path / f"IMG{suffix}")
    assert rgb.shape == (64, 96, 3)
    assert corner_colours(rgb) == [RED, GREEN, BLUE, YELLOW]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\x0a" + bytes(99), "JPEG XL.*Save it as JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL.*Save it as JPEG"),
    ],
)
def test_CA11_a_format_that_no_plugin_reads_is_named(tmp_path, content, said):
    (tmp_path / "IMG.jpg").write_bytes(content)
    with pytest.raises(MobileBilayerError, match=said):
        read_image(tmp_path / "IMG.jpg")


def test_CA11_a_raw_photo_is_named_and_its_preview_not_taken_for_it(tmp_path):
    Image.new("RGB", (16, 12)).save(tmp_path / "IMG.dng", format="TIFF", tiffinfo={50706: b"\1\4\0\0"})
    with pytest.raises(MobileBilayerError, match=r"raw photo \(DNG\)"):
        read_image(tmp_path / "IMG.dng")


# Colour profiles.

TO_XYZ = {  # of the profile connection space (D50): red, green and blue, each X, Y, Z
    "P3": [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)],
    "sRGB": [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)],
}


def icc_profile(space: bytes, columns=(), gamma: float = 2.2) -> bytes:
    """A small ICC profile of version 2: primaries and a gamma; or, for b"GRAY", the gamma alone."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))

    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    tags |= {
        name: b"XYZ " + bytes(4) + fixed(*xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=False)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC") if columns else (b"kTRC",), curve)
    tags |= {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"x\0",
    }
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    size = 128 + len(table) + len(data)
    head = struct.pack(
        ">I4s4s4s4s4s12s4s", size, b"\0\0\0\0", b"\2\x10\0\0", b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    return head.ljust(68, b"\0") + fixed(0.9642, 1, 0.8249) + bytes(48) + table + data


def srgb_of_p3(rgb: tuple[int, ...]) -> np.ndarray:
    """By hand: light, XYZ, sRGB's light, sRGB's code."""
    light = np.linalg.solve(np.transpose(TO_XYZ["sRGB"]), np.transpose(TO_XYZ["P3"]) @ (np.array(rgb) / 255) ** 2.2)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".heic", ".avif"])
def test_CA10_a_wide_gamut_photo_gives_the_colours_it_means(tmp_path, suffix):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif", reason="needs the extra heif").register_heif_opener()
    skin, lips = (214, 164, 140), (190, 80, 84)
    stored = np.full((16, 32, 3), skin, np.uint8)
    stored[:, 16:] = lips
    Image.fromarray(stored).save(tmp_path / f"IMG{suffix}", icc_profile=icc_profile(b"RGB ", TO_XYZ["P3"]), quality=98)
    rgb = read_image(tmp_path / f"IMG{suffix}").astype(int)
    assert np.abs(srgb_of_p3(lips) - lips).max() > 10
    np.testing.assert_allclose(rgb[8, 4], srgb_of_p3(skin), atol=4)
    np.testing.assert_allclose(rgb[8, 28], srgb_of_p3(lips), atol=4)


def test_CA10_a_wide_gamut_cut_out_keeps_its_alpha(tmp_path):
    cut_out = np.full((4, 4, 4), (190, 80, 84, 255), np.uint8)
    cut_out[:2, :, 3] = 0
    Image.fromarray(cut_out).save(tmp_path / "me.png", icc_profile=icc_profile(b"RGB ", TO_XYZ["P3"]))
    rgb = read_image(tmp_path / "me.png", background=(190, 80, 84))
    assert rgb[0, 0].tolist() == [190, 80, 84]  # the background is sRGB already
    np.testing.assert_allclose(rgb[3, 3], srgb_of_p3((190, 80, 84)), atol=1)


def test_CA10_a_grey_photo_with_a_grey_profile_means_its_light(tmp_path):
    Image.new("L", (4, 4), 128).save(tmp_path / "grey.png", icc_profile=icc_profile(b"GRAY", gamma=1.0))
    light = 128 / 255
    assert read_image(tmp_path / "grey.png")[0, 0] == pytest.approx(
        [255 * (1.055 * light ** (1 / 2.4) - 0.055)] * 3, abs=1
    )


@pytest.mark.parametrize(
    ("mode", "colour", "icc"),
    [
        ("RGB", (9, 99, 199), b"no profile"),
        ("CMYK", (0, 0, 0, 255), icc_profile(b"RGB ", TO_XYZ["P3"])),
        ("L", 7, b"\0"),
    ],
)
def test_CA10_a_profile_that_does_not_fit_is_told_and_does_not_spoil_the_photo(tmp_path, mode, colour, icc):
    Image.new(mode, (8, 8), colour).save(tmp_path / "IMG.tif", icc_profile=icc)
    with pytest.warns(UserWarning, match=r"colour profile of .*IMG\.tif can't be used"):
        rgb = read_image(tmp_path / "IMG.tif")
    np.testing.assert_array_equal(rgb[0, 0], Image.new(mode, (1, 1), colour).convert("RGB").getpixel((0, 0)))


def test_CA10_srgb_with_its_profile_stays_as_it_is(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "IMG.png", icc_profile=profile)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(read_image(tmp_path / "IMG.png").astype(int), noise, atol=1)


def test_CA10_an_hdr_photo_is_not_washed_out(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heif")
    heif.register_heif_opener()
    paper = Image.new("RGB", (64, 64), (148, 148, 148))  # 58 %: 203 nits, paper white (ITU-R BT.2408)
    tags = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9, "full_range_flag": 1}
    paper.save(tmp_path / "IMG.heic", quality=95, **tags)
    assert 225 <= read_image(tmp_path / "IMG.heic")[32, 32].min() <= 240


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 3), (".png", 4), (".tif", 3)])
def test_CA10_sixteen_bits_a_channel_become_eight(tmp_path, suffix, channels):
    deep = np.empty((4, 6, channels), np.uint16)
    deep[..., :3] = [256 * 10, 256 * 100, 256 * 200]  # blue, green, red, as OpenCV has them
    deep[..., 3:] = 65535
    assert cv2.imwrite(str(tmp_path / f"deep{suffix}"), deep)
    assert read_image(tmp_path / f"deep{suffix}").tolist() == [[[200, 100, 10]] * 6] * 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_CA10_every_colour_mode_becomes_three_channels(tmp_path, mode):
    suffix = ".jpg" if mode == "YCbCr" else ".tif" if mode in {"CMYK", "PA"} else ".png"
    image = Image.new(mode, (8, 8))
    image.save(tmp_path / f"IMG{suffix}")
    rgb = read_image(tmp_path / f"IMG{suffix}")
    assert rgb.shape == (8, 8, 3) and rgb.dtype == np.uint8 and rgb.flags.c_contiguous


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


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".heic", ".avif", ".bmp", ".gif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_photo_cut_off_anywhere_is_refused_whatever_its_kind(tmp_path, suffix, share):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif", reason="needs the extra heif").register_heif_opener()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MobileBilayerError, match=f"cut{suffix} is (damaged|not a photo)"):
        read_image(tmp_path / f"cut{suffix}")


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


@pytest.mark.parametrize("count", [1, 3])
def test_a_webp_moves_for_ever_and_says_that_it_is_ai_generated(count):
    content = webp([np.full((8, 12, 3), 80 * i, np.uint8) for i in range(count)], quality=90, frame_ms=70)
    assert b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in content
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "WEBP" and image.size == (12, 8) and getattr(image, "n_frames", 1) == count
        assert image.getexif()[0x010E].startswith("AI-generated")
        if count > 1:
            assert image.info["loop"] == 0
            image.seek(1)
            assert abs(np.asarray(image.convert("RGB")).mean() - 80) < 3 and image.info["duration"] == 70


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
