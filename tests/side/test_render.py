"""Small pictures: what they look like, and files that are made to harm who draws them."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import tempfile
import zlib
from types import SimpleNamespace

import pytest
import trio
from pictures import BLUE, GREEN, RED, WHITE, corners, encoded, looks, opened, plain, source_of
from PIL import Image, ImageCms

from cozyfs.errors import NoPicture, NoSpace, SideError, TooLarge, WrongContent
from cozyfs.side import draw, render
from cozyfs.side.draw import Target
from cozyfs.side.render import Limits, Renderer, kind_of
from cozyfs.side.thumbnails import TARGETS
from cozyfs.threads import Caller

SMALL = Target("small", 100, 100, 82, enlarge=False)


async def drawn(data, targets=(SMALL,), kind="image", limits=None):
    """The first of the pictures."""
    pictures = await Renderer(Caller(), limits=limits).draw(kind, source_of(data), targets)
    return pictures[targets[0].name]


# ---- what is made


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), [(1440, 1080), (960, 720), (640, 480), (96, 72)]),
        ((1000, 2000), [(540, 1080), (360, 720), (240, 480), (48, 96)]),
        ((700, 100), [(700, 100), (700, 100), (640, 91), (96, 14)]),
        ((20, 10), [(20, 10), (20, 10), (20, 10), (96, 48)]),
        ((5000, 1), [(1920, 1), (1280, 1), (640, 1), (96, 1)]),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_pictures_fit_their_boxes_and_only_tiny_may_be_larger_than_the_image(
    size, expected, kind
):
    source = source_of(plain(size, kind=kind))

    pictures = await Renderer(Caller()).draw("image", source, TARGETS)

    assert list(pictures) == ["large", "medium", "small", "tiny"]
    assert [opened(picture).size for picture in pictures.values()] == expected


async def test_a_picture_is_a_jpeg_without_metadata_and_not_interlaced():
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = encoded(corners(), "JPEG", exif=exif, comment=b"secret", progressive=True, dpi=(9, 9))

    picture = await drawn(data)

    image = opened(picture)
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert not {"exif", "comment", "icc_profile", "progressive"} & set(image.info)
    assert b"camera" not in picture
    assert b"secret" not in picture


UPRIGHT = [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("turn", "how"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
async def test_an_image_is_shown_upright(turn, how):
    image = corners((1200, 600))
    exif = Image.Exif()
    exif[0x0112] = turn

    picture = await drawn(
        encoded(image if how is None else image.transpose(how), "JPEG", exif=exif)
    )

    assert opened(picture).size == (100, 50)
    assert looks(picture) == UPRIGHT


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
async def test_so_is_one_of_another_format(kind):
    exif = Image.Exif()
    exif[0x0112] = 6

    image = corners((1200, 600)).transpose(Image.Transpose.ROTATE_90)
    picture = await drawn(encoded(image, kind, exif=exif))

    assert opened(picture).size == (100, 50)
    assert looks(picture) == UPRIGHT


async def test_a_damaged_exif_does_not_spoil_the_picture():
    data = encoded(corners(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")

    assert looks(await drawn(data)) == UPRIGHT


async def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 50, 50))

    assert looks(await drawn(encoded(image))) == [BLUE, WHITE, WHITE, WHITE]


async def test_a_transparent_colour_is_white_too():
    data = encoded(corners().quantize(8), "GIF", transparency=0)
    transparent = tuple(corners().quantize(8).getpalette()[:3])

    expected = [WHITE if colour == transparent else colour for colour in UPRIGHT]
    assert looks(await drawn(data)) == expected


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
async def test_of_many_frames_the_first_is_shown(kind):
    frames = [corners(), Image.new("RGB", (200, 100), BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])

    assert looks(await drawn(data)) == UPRIGHT


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("1", 1, "PNG", WHITE),
        ("L", 255, "PNG", WHITE),
        ("LA", (255, 255), "PNG", WHITE),
        ("P", 0, "PNG", (0, 0, 0)),
        ("I;16", 0xFFFF, "PNG", WHITE),
        ("I;16", 0x00FF, "PNG", (0, 0, 0)),
        ("I;16B", 0xFFFF, "TIFF", WHITE),
        ("F", 255.0, "TIFF", WHITE),
        ("CMYK", (0, 255, 255, 0), "JPEG", RED),
        ("CMYK", (0, 255, 255, 0), "TIFF", RED),
        ("YCbCr", (76, 85, 255), "TIFF", RED),
        ("RGB", RED, "AVIF", RED),
        ("RGB", RED, "BMP", RED),
        ("RGB", RED, "ICO", RED),
        ("RGB", RED, "JPEG2000", RED),
        ("RGB", RED, "PCX", RED),
        ("RGB", RED, "PPM", RED),
        ("RGB", RED, "SGI", RED),
        ("RGB", RED, "TGA", RED),
        ("RGBA", (*RED, 255), "WEBP", RED),
    ],
)
async def test_images_of_all_kinds_keep_their_colour(mode, colour, kind, expected):
    data = encoded(Image.new(mode, (60, 60), colour), kind)

    assert looks(await drawn(data)) == [expected] * 4


async def test_colours_are_those_of_srgb():
    """The profile of this image takes its red for blue."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"xxxx").replace(b"bXYZ", b"rXYZ").replace(b"xxxx", b"bXYZ")

    assert looks(await drawn(encoded(Image.new("RGB", (60, 60), RED), icc_profile=swapped))) == (
        [BLUE] * 4
    )


async def test_a_damaged_profile_is_passed_over():
    data = encoded(Image.new("RGB", (60, 60), RED), icc_profile=b"nothing of the kind")

    assert looks(await drawn(data)) == [RED] * 4


async def test_of_a_pdf_file_the_first_page_is_shown():
    pages = [corners((400, 200)), Image.new("RGB", (400, 200), BLUE)]
    data = encoded(pages[0], "PDF", save_all=True, append_images=pages[1:])

    picture = await drawn(data, kind="pdf")

    assert opened(picture).size == (100, 50)
    assert looks(picture) == UPRIGHT


async def test_a_picture_may_be_as_high_as_it_needs_to_be():
    target = Target("thumb", 100, None, 82, enlarge=False)

    assert opened(await drawn(plain((200, 3000)), (target,))).size == (100, 1500)


@pytest.mark.parametrize(
    ("mime", "size", "kind"),
    [
        ("image/jpeg", 1, "image"),
        ("IMAGE/JPEG; charset=x", 1, "image"),
        ("image/jpeg", (100 << 20) - 1, "image"),
        ("image/jpeg", 100 << 20, None),
        ("image/jpeg", 0, None),
        ("image/vnd.adobe.photoshop", (5 << 20) - 1, "image"),
        ("image/vnd.adobe.photoshop", 5 << 20, None),
        ("application/pdf", 1, "pdf"),
        ("application/pdf", 100 << 20, None),
        ("image/svg+xml", 1, None),
        ("image/heic", 1, None),
        ("text/plain", 1, None),
        ("", 1, None),
    ],
)
def test_what_is_drawn_depends_on_type_and_size(mime, size, kind):
    assert kind_of(mime, size) == kind


# ---- files that do harm


def png_of(width, height):
    """Announces its size, and has next to no data."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


async def test_an_image_of_20000_by_20000_pixels_is_refused():
    with pytest.raises(NoPicture) as caught:
        await drawn(encoded(Image.new("1", (20_000, 20_000))))

    assert str(caught.value) == "the image has too many pixels"


async def test_a_jpeg_of_as_many_pixels_is_scaled_while_it_is_decoded():
    picture = await drawn(encoded(Image.new("L", (16_000, 16_000), 255), "JPEG"))

    assert opened(picture).size == (100, 100)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\xff" * 5000,
        plain()[:100],
        plain(kind="JPEG")[:200],
        png_of(5_000, 5_000),
        png_of(2**31 - 1, 1),
        b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 500,
        b"GIF89a\xff\xff\xff\xff",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"%PDF-1.4\n" + b"\xff" * 500,
    ],
)
async def test_garbage_is_no_image(data):
    with pytest.raises(NoPicture):
        await drawn(data)


@pytest.mark.parametrize("data", [b"x", b"%PDF-1.7\n" + b"1 0 obj<<>>" * 500, plain()])
async def test_garbage_is_no_pdf_file(data):
    with pytest.raises(NoPicture) as caught:
        await drawn(data, kind="pdf")

    assert str(caught.value) == "the file is damaged, or no image of a known format"


async def test_an_image_that_takes_all_memory_gets_none():
    with pytest.raises(NoPicture) as caught:
        await drawn(encoded(Image.new("P", (9_000, 9_000))), limits=Limits(memory=300 << 20))

    assert str(caught.value) == "the image, or a picture of it, takes too much memory"


async def test_a_picture_that_is_itself_too_large_is_none():
    noise = encoded(Image.effect_noise((500, 500), 100))

    with pytest.raises(NoPicture, match="too much memory"):
        await drawn(noise, limits=Limits(output=6_000))


async def test_the_renderer_works_after_all_that():
    renderer = Renderer(Caller())
    with pytest.raises(NoPicture):
        await renderer.draw("image", source_of(b"garbage"), [SMALL])

    assert await renderer.draw("image", source_of(plain()), [SMALL])


# ---- the program that draws, replaced by one that goes wrong


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Replaces what the child runs."""

    def replace(text):
        path = tmp_path / "program.py"
        path.write_text("import os, signal, sys, time\n" + text)
        monkeypatch.setattr(draw, "__file__", str(path))

    return replace


@pytest.mark.parametrize("how", ["SIGSEGV", "SIGABRT", "SIGXCPU"])
async def test_a_file_that_crashes_its_decoder_has_no_picture(program, how):
    program(f"os.kill(os.getpid(), signal.{how})")

    with pytest.raises(NoPicture) as caught:
        await drawn(plain())

    assert str(caught.value) == "the file ended the program that was to make a picture of it"


async def test_a_file_that_keeps_its_decoder_busy_for_ever_has_no_picture(program):
    program(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 5))  # as in the program\n"
        "while True: pass"
    )

    with pytest.raises(NoPicture):
        await drawn(plain())


async def test_a_machine_that_is_too_busy_is_not_the_files_fault(program):
    program("time.sleep(600)")

    with pytest.raises(SideError) as caught:
        await drawn(plain(), limits=Limits(patience_s=1))

    assert not isinstance(caught.value, NoPicture)
    assert str(caught.value) == ("a picture of the file was not made in 1 s: the machine is busy")


@pytest.mark.parametrize("text", ["sys.exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
async def test_a_machine_that_cannot_draw_is_not_the_files_fault(program, text):
    program(text)

    with pytest.raises(SideError) as caught:
        await drawn(plain())

    assert not isinstance(caught.value, NoPicture)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "nonsense",
        "[]\\n",
        "{}\\n",
        '{\\"sizes\\": [3]}\\nab',
        '{\\"sizes\\": [1, 1]}\\nab',
        '{\\"sizes\\": [-1]}\\n',
        '{\\"refused\\": \\"with a reason of its own\\"}\\n',
    ],
)
async def test_what_the_program_says_is_not_trusted(program, said):
    program(f'sys.stdout.write("{said}")')

    with pytest.raises(NoPicture) as caught:
        await drawn(plain())

    assert str(caught.value) == "the file is damaged, or no image of a known format"


async def test_the_program_gets_no_credentials(program, tmp_path, monkeypatch):
    monkeypatch.setenv("COZYFS_FS_URL", "s3://h?access_key=a&secret_key=b")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "c")
    program(f"open({str(tmp_path / 'seen')!r}, 'w').write(repr(dict(os.environ)))")

    with pytest.raises(NoPicture):
        await drawn(plain())

    seen = (tmp_path / "seen").read_text()
    assert "PATH" in seen
    assert "secret" not in seen.lower()


async def test_who_is_cancelled_ends_the_program(program, tmp_path):
    pid_file = tmp_path / "pid"
    os.mkfifo(pid_file)
    program(f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drawn, plain())
            pid = await trio.to_thread.run_sync(pid_file.read_text, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


# ---- sources


async def test_a_source_of_other_content_is_refused():
    with pytest.raises(WrongContent):
        await Renderer(Caller()).draw("image", source_of(plain()), [SMALL], md5=bytes(16))


async def test_a_source_that_is_longer_than_any_is_not_copied(monkeypatch):
    monkeypatch.setattr(render, "SIZE_LIMIT", 1000)

    with pytest.raises(TooLarge):
        await drawn(bytes(1000))


async def test_a_source_that_fails_says_so():
    async def source():
        yield b"half"
        raise NoSpace("of the source")

    with pytest.raises(NoSpace, match="of the source"):
        await Renderer(Caller()).draw("image", source, [SMALL])


async def test_a_full_disk_is_named(monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(render.tempfile, "TemporaryFile", full)

    with pytest.raises(NoSpace) as caught:
        await drawn(plain())

    assert str(caught.value) == "the disk for temporary files is full"


async def test_so_is_one_that_gets_full_while_a_picture_is_written(monkeypatch):
    """The second file is for the pictures."""
    files = itertools.count()

    def second_full(**options):
        if next(files) == 1:
            return open("/dev/full", "r+b", buffering=0)
        return tempfile.TemporaryFile(**options)

    monkeypatch.setattr(render, "tempfile", SimpleNamespace(TemporaryFile=second_full))

    with pytest.raises(NoSpace) as caught:
        await drawn(plain())

    assert str(caught.value) == "the disk for temporary files is full"


async def test_nothing_is_left_in_the_folder(tmp_path):
    await Renderer(Caller(), tmp_path).draw("image", source_of(plain()), [SMALL])

    assert list(tmp_path.iterdir()) == []
