"""Images to draw, made with Pillow, and what comes of them."""

from __future__ import annotations

import io

from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(size=(200, 100), colour=RED, kind="PNG", mode="RGB"):
    return encoded(Image.new(mode, size, colour), kind)


def corners(size=(200, 100)):
    """Red at the top left, green at the top right, blue at the bottom left, white."""
    image = Image.new("RGB", size, WHITE)
    middle = (size[0] // 2, size[1] // 2)
    image.paste(RED, (0, 0, *middle))
    image.paste(GREEN, (middle[0], 0, size[0], middle[1]))
    image.paste(BLUE, (0, middle[1], middle[0], size[1]))
    return image


def opened(picture):
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


def looks(picture):
    """(top left, top right, bottom left, bottom right), each the colour that it is near to."""
    image = opened(picture).convert("RGB")
    right, bottom = image.width - 3, image.height - 3
    return [near(image.getpixel(at)) for at in ((2, 2), (right, 2), (2, bottom), (right, bottom))]


def near(colour):
    return tuple(255 if part > 200 else 0 if part < 55 else part for part in colour)


def source_of(data, pieces=3):
    """What a Renderer takes: *data* in some pieces."""

    async def source():
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            yield data[start : start + step]

    return source
