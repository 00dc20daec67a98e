"""The child process that makes small pictures of one file; `cozyfs.side.render` starts it.

Run as a program, by its path: it imports nothing of cozyfs, so that it starts quickly and has no
more in memory than it needs. The file is the standard input, opened for reading and seekable;
the request is the one argument, in JSON. On the standard output come a line of JSON, which says
how long each picture is or why there is none, and the pictures, all JPEG.

What decodes files of unknown origin is expected to crash, to hang and to ask for all memory:
limits of the kernel end this process then, and nothing else is harmed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM"),  # known to Pillow from its start: tried first
    *("WEBP", "TIFF", "ICO", "DIB", "JPEG2000", "PCX", "PSD", "SGI", "TGA", "AVIF"),
)
"""What may be decoded. Not all that Pillow knows: for EPS it starts Ghostscript."""

GAP = 2
"""How many times as large as what is wanted a decoder that can scale may deliver."""

DISK_FULL = 28
"""The exit code when there is no space for the pictures."""

_ORIENTATION = 0x0112  # in EXIF
_HEADER_SIZE = 4096  # bytes, at most


class Target(NamedTuple):
    """A picture to make: to fit into *width* and *height* in pixels, which may be None."""

    name: str
    width: int
    height: int | None
    quality: int
    enlarge: bool
    always: bool = True  # also of an image that fits as it is


class TooManyPixels(Exception):
    pass


class Fits(Exception):
    """Nothing is to be made."""


def main() -> None:
    os.nice(10)
    request = json.loads(sys.argv[1])
    # Should nobody be left who would end this, nor any CPU be used.
    signal.alarm(request["patience"] + 10)
    _load(request["kind"])
    _confine(request["memory"], request["cpu"], request["output"])
    try:
        with os.fdopen(os.dup(1), "wb") as out, open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)  # libraries print
            header, pictures = answer(request)
            out.write(json.dumps(header).encode() + b"\n")
            out.writelines(pictures)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(DISK_FULL)
        raise


def _load(kind: str) -> None:
    """What is missing is no fault of the file: this ends the process with an exit code."""
    if kind == "pdf":
        import pypdfium2  # noqa: F401
    import PIL.Image
    import PIL.ImageCms

    PIL.Image.preinit()


def _confine(memory: int, seconds: int, output: int) -> None:
    """*memory* and *output* in bytes, *seconds* of CPU."""
    limits = {
        resource.RLIMIT_AS: (memory, memory),
        # Apart, so that this ends with SIGXCPU: SIGKILL is the machine's, out of memory.
        resource.RLIMIT_CPU: (seconds, seconds + 5),
        resource.RLIMIT_FSIZE: (output, output),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (64, 64),
    }
    for kind, wanted in limits.items():
        _, given = resource.getrlimit(kind)
        most = sys.maxsize if given == resource.RLIM_INFINITY else given
        soft, hard = (min(limit, most) for limit in wanted)
        resource.setrlimit(kind, (soft, hard))
    # Where the machine itself runs out of memory, this is what it should end.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """The header and the pictures."""
    targets = [Target(*target) for target in request["targets"]]
    try:
        with open(0, "rb", closefd=False) as source:
            if request["kind"] == "pdf":
                image = first_page(source, targets[0])
            else:
                image = first_frame(source, targets[0], request["pixels"])
            pictures = [*chain(image, targets)]
    except Fits:
        return {"sizes": []}, []
    except TooManyPixels:
        return {"refused": "pixels"}, []
    except MemoryError:
        return {"refused": "memory"}, []
    except Exception as exc:  # of any decoder, about any file
        print(repr(exc), file=sys.stderr)
        return {"refused": "unreadable"}, []
    sizes = [len(picture) for picture in pictures]
    if sum(sizes) + _HEADER_SIZE > request["output"]:
        return {"refused": "memory"}, []
    return {"sizes": sizes}, pictures


def chain(image: Image.Image, targets: list[Target]) -> list[bytes]:
    """Each picture is made from the one before, which is smaller than the file."""
    pictures = []
    for target in targets:
        image = fitted(image, target)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=target.quality, optimize=True, progressive=False)
        pictures.append(buffer.getvalue())
    return pictures


def size_within(size: tuple[int, int], target: Target) -> tuple[int, int]:
    """The size of *target*'s picture, in the proportions of *size*."""
    width, height = size
    scale = target.width / width
    if target.height is not None:
        scale = min(scale, target.height / height)
    if not target.enlarge:
        scale = min(scale, 1.0)
    return max(1, round(width * scale)), max(1, round(height * scale))


def fitted(image: Image.Image, target: Target) -> Image.Image:
    from PIL import Image

    size = size_within(image.size, target)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=GAP)


# ---- images


def first_frame(source: BinaryIO, target: Target, pixels: int) -> Image.Image:
    """The first frame of an image, upright, in sRGB over white, without metadata, of the
    size of *target*. Raises TooManyPixels, Fits."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # compared below, with what a JPEG is scaled to first
    image: Image.Image = Image.open(source, formats=FORMATS)
    profile = image.info.get("icc_profile")
    turn, whole = 1, image.size
    if image.format in ("JPEG", "MPO"):
        turn = _orientation(image)
        width, height = GAP * target.width, GAP * (target.height or 1)
        image.draft(None, (height, width) if _is_sideways(turn) else (width, height))
    if image.width * image.height > pixels:
        raise TooManyPixels
    image.load()
    if image.format not in ("JPEG", "MPO"):
        turn = _orientation(image)  # some formats tell it only now, TIFF has applied it by now
        whole = image.size
    if not target.always and size_within(_turned(whole, turn), target) == _turned(whole, turn):
        raise Fits
    size = _turned(size_within(_turned(image.size, turn), target), turn)
    # Made small first, in the mode that it has: what follows is then cheap.
    image = _resizable(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=GAP)
    image = _in_srgb(_over_white(image), profile)
    if turn in _turns():
        image = image.transpose(_turns()[turn])
    image.info = {}  # a comment would be saved
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF; the picture may be good
        return 1


def _is_sideways(turn: int) -> bool:
    return 5 <= turn <= 8


def _turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return (size[1], size[0]) if _is_sideways(turn) else size


def _turns() -> dict[int, Image.Transpose]:
    """What makes an image upright, by its EXIF orientation."""
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }


def _resizable(image: Image.Image) -> Image.Image:
    """In a mode whose pixels can be mixed: L, RGB, CMYK, or with transparency LA and RGBA."""
    if image.mode.startswith("I"):  # 16 bits; convert("L") alone would cut them off at 255
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("LA", "RGBA"):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode in ("1", "F") else "RGB")


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode not in ("LA", "RGBA"):
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    from PIL import ImageCms

    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except Exception:  # damaged, or of other channels than the image
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


# ---- PDF


def first_page(source: BinaryIO, target: Target) -> Image.Image:
    """The first page, drawn as large as *target* wants it: its own unit is 1/72 inch."""
    import pypdfium2

    document = pypdfium2.PdfDocument(source)
    page = document[0]
    width, height = page.get_size()
    scale = target.width / width
    if target.height is not None:
        scale = min(scale, target.height / height)
    image: Image.Image = page.render(scale=scale).to_pil().convert("RGB")
    return image


if __name__ == "__main__":
    main()
