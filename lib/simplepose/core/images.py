"""Image preprocessing: reading, cropping, colour order, scale, mean and deviation.

These constants are defined here alone. Training, validation, inference and deployment all use this module.
"""

from __future__ import annotations

import os
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import require_regular, size_text
from simplepose.core.geometry import apply_affine, invert_affine

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # R, G, B of images in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
MAX_WARP_SIDE = 32766  # largest side in pixels that OpenCV 4 can warp
MAX_IMAGE_PIXELS = 2**28  # 0.8 GB once decoded; the largest sensors of phones have 2 x 10^8
MAX_IMAGE_BYTES = 2**29


@dataclass(frozen=True)
class InputFormat:
    """A network's pixel format: channel order and the divisor before mean and deviation."""

    rgb: bool
    divisor: float


INPUT_FORMATS = {
    # The original reads BGR with OpenCV and normalises it with the RGB mean and deviation. Its weights need that.
    "bgr": InputFormat(rgb=False, divisor=255.0),
    # What mean and deviation were measured on; HRNet's and mmpose's weights.
    "rgb": InputFormat(rgb=True, divisor=255.0),
    # The earlier Paddle port (CuberrChen/HumanPoseBL-Paddle) left the division by 255 out. Its weights need that.
    "humanposebl": InputFormat(rgb=False, divisor=1.0),
}


def read_image(path: str | os.PathLike, apply_exif: bool = False, reduction: int = 1) -> np.ndarray:
    """Read an image file, non-ASCII paths included; "images.zip@name.jpg" reads a zip's member.

    Args:
        apply_exif: turn the image as its EXIF orientation says. Data sets are annotated on the image as stored.
        reduction: 1, 2, 4 or 8; divides width and height while decoding, which is faster for a JPEG.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        UserError: missing, empty, too large, or not an image that OpenCV can decode completely.
    """
    return decode_image(_read_bytes(str(path)), path, apply_exif, reduction)


def decode_image(data: bytes, path: str | os.PathLike, apply_exif: bool = False, reduction: int = 1) -> np.ndarray:
    """The second half of `read_image`: decode a file's content; `path` it comes from, for messages."""
    if not data:
        raise UserError(f"{path} is empty (0 bytes); replace it")
    # OpenCV 4 silently fills the missing part of a truncated JPEG with grey. Some cameras append a few bytes.
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-65536:]:
        raise UserError(f"{path} is a truncated JPEG ({len(data)} bytes, no end marker); fetch it again")
    width, height = stated_size_wh(data)
    if width * height > MAX_IMAGE_PIXELS:  # a small file may state any size
        raise UserError(f"{path} is too large: {width} x {height}, and at most {MAX_IMAGE_PIXELS} pixels are read")
    flags = REDUCED[reduction] if apply_exif else REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "memory" in str(error) or "CV_IO_MAX_IMAGE" in str(error):
            raise UserError(f"{path} is too large: its pixels do not fit the memory; make it smaller") from None
        image = None
    if image is None:
        raise UserError(f"{path} is not an image that OpenCV can read ({len(data)} bytes); replace or convert it")
    return image


def as_image(image: Any) -> np.ndarray:
    """Convert an image to (H, W, 3) uint8 BGR; ambiguous input raises.

    Args:
        image: a file (turned as its EXIF orientation says), a Pillow image (its pixels as they are), or an array of
            uint8: (H, W, 3) BGR, (H, W, 4) BGRA, (H, W) or (H, W, 1) gray. Transparency is ignored.

    Raises:
        UserError: anything else; the message says how to convert it.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, apply_exif=True)
    if image is None:
        raise UserError("the image is None, which is what cv2.imread gives for a file that it cannot read")
    pillow = sys.modules.get("PIL.Image")  # a caller that has such an image has imported Pillow
    if pillow and isinstance(image, pillow.Image):
        if image.mode == "F" or image.mode.startswith("I"):  # 16 or 32 bits, of unknown range
            raise UserError(f"a Pillow image of mode {image.mode} has no 8-bit pixels; scale it to 0 to 255, mode L")
        image = np.asarray(image.convert("RGB"))[..., ::-1]
    if not isinstance(image, np.ndarray):
        raise UserError(f"a {type(image).__name__} is no image; give a file, a Pillow image or a numpy array of uint8")
    if image.dtype != np.uint8:
        most = f" up to {image.max():g}" if image.size and image.dtype.kind in "fiu" else ""
        raise UserError(f"the image has {image.dtype} values{most}; scale them to 0 to 255 and use .astype(np.uint8)")
    if not image.size:
        raise UserError(f"the image is empty, its shape is {image.shape}")
    channels = image.shape[2] if image.ndim == 3 else 1 if image.ndim == 2 else 0
    if channels not in (1, 3, 4):
        mend = ""
        if image.ndim == 3 and image.shape[0] in (1, 3, 4):
            mend = "; with the channels in front, use image.transpose(1, 2, 0)"
        elif image.ndim == 4:
            mend = "; several images go into a list"
        raise UserError(f"the image has the shape {image.shape}, not (H, W, 3), (H, W, 4) or (H, W){mend}")
    if channels == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.require(image if channels < 4 else image[..., :3], requirements=["C", "W"])


def crop_image(image: np.ndarray, affine: np.ndarray, output_size_wh: tuple[int, int]) -> np.ndarray:
    """Warp (H, W, 3) by an image-to-crop affine (2, 3), bilinearly, black outside of the image -> (h, w, 3)."""
    if max(image.shape[:2]) > MAX_WARP_SIDE:
        image, affine = _visible_part(image, affine, output_size_wh)
    return cv2.warpAffine(image, affine, output_size_wh, flags=cv2.INTER_LINEAR)


def _visible_part(
    image: np.ndarray, affine: np.ndarray, output_size_wh: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The part of an image that a crop shows, every n-th pixel of it if it is still too large; and its affine."""
    width, height = output_size_wh
    corners = apply_affine(invert_affine(affine), np.array([[0, 0], [width, 0], [0, height], [width, height]], float))
    limits = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, limits - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 2, low + 1, limits).astype(int)
    step = -(-int((high - low).max()) // MAX_WARP_SIDE)
    part = image[low[1] : high[1] : step, low[0] : high[0] : step]
    return np.ascontiguousarray(part), np.column_stack([affine[:, :2] * step, affine[:, :2] @ low + affine[:, 2]])


def normalize(crops: np.ndarray, input_format: InputFormat) -> np.ndarray:
    """Crops (N, H, W, 3) uint8 BGR -> network input (N, 3, H, W) float32."""
    num, height, width, _ = crops.shape
    images = np.empty((num, 3, height, width), np.float32)
    scales, shifts = scale_and_shift(input_format)
    for crop, image in zip(crops, images):
        planes = cv2.split(crop)  # numpy converts pixels that lie side by side twice as fast
        for channel, plane in enumerate(planes[::-1] if input_format.rgb else planes):
            image[channel] = plane
            image[channel] *= scales[channel]
            image[channel] -= shifts[channel]
    return images


def scale_and_shift(input_format: InputFormat) -> tuple[np.ndarray, np.ndarray]:
    """What `normalize` multiplies with and then subtracts, (3,) float32 each."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    return (1 / (input_format.divisor * std)).astype(np.float32), (mean / std).astype(np.float32)


def denormalize(images: np.ndarray, input_format: InputFormat) -> np.ndarray:
    """The inverse of `normalize`: (N, 3, H, W) float32 -> (N, H, W, 3) uint8 BGR, for drawing."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    pixels = (images.transpose(0, 2, 3, 1) * std + mean) * input_format.divisor
    crops = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return crops[..., ::-1].copy() if input_format.rgb else crops


def image_file(path: str) -> str:
    """The file on disk that holds an image: itself, or the zip that it is a member of."""
    archive, at, _ = path.partition(".zip@")
    return f"{archive}.zip" if at else path


def image_size_wh(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height of an image file as stored, from its header where that states them, without decoding.

    Raises:
        UserError: missing, or not an image.
    """
    size = stated_size_wh(_read_bytes(str(path)))
    return size if min(size) > 0 else read_image(path).shape[1::-1]


def stated_size_wh(data: bytes) -> tuple[int, int]:
    """Width and height as stated in the file's header; (0, 0) if the format or the header is unknown."""

    def number(at: int, size: int = 4, order: str = "big") -> int:
        return int.from_bytes(data[at : at + size], order)  # 0 past the end

    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return number(16), number(20)
    if data[:2] == b"\xff\xd8":  # JPEG: a chain of segments; bytes between them are skipped, as decoders do
        at = data.find(b"\xff", 2)
        while at >= 0:
            marker = number(at + 1, 1)
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                return number(at + 7, 2), number(at + 5, 2)
            alone = marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9
            at = data.find(b"\xff", at + (1 if marker == 0xFF else 2 if alone else 2 + number(at + 2, 2)))
    elif data[:4] in (b"II*\0", b"MM\0*"):  # TIFF: a table of tags
        order = "little" if data[:1] == b"I" else "big"
        table, sides = number(4, 4, order), {}
        for at in range(table + 2, table + 2 + 12 * number(table, 2, order), 12):
            sides[number(at, 2, order)] = number(at + 8, 2 if number(at + 2, 2, order) == 3 else 4, order)
        return sides.get(256, 0), sides.get(257, 0)
    elif data[:2] == b"BM":
        high = number(22, 4, "little")
        return number(18, 4, "little"), min(high, 2**32 - high)  # negative for a bitmap stored top row first
    elif data[:4] == b"GIF8":
        return number(6, 2, "little"), number(8, 2, "little")
    elif data[4:8] == b"jP  " or data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000
        at = data.find(b"\xff\x4f\xff\x51")
        return number(at + 8), number(at + 12)
    return 0, 0


def _read_bytes(path: str) -> bytes:
    archive, at, member = path.partition(".zip@")
    try:
        if at:
            return _read_member(_open_zip(image_file(path), os.getpid()), member.lstrip("/"))
        if os.path.exists(path) and not os.path.isdir(path):  # reading reports any other problem with the name
            require_regular(path, "image", MAX_IMAGE_BYTES)
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"no such image: {path}") from None
    except KeyError:
        raise UserError(f"{archive}.zip has no member {member!r}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: unsupported by zipfile
        raise UserError(f"{archive}.zip is not a readable zip file ({member}): {error}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not an image") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise UserError(f"cannot read {path!r}: {error}") from None


def _read_member(archive: zipfile.ZipFile, member: str) -> bytes:
    """A member by its name, or inside the folder named like the archive: COCO's val2017.zip holds val2017/..."""
    try:
        entry = archive.getinfo(member)
    except KeyError:
        entry = archive.getinfo(f"{Path(str(archive.filename)).stem}/{member}")
    where = f"{archive.filename}, {entry.filename}"
    if entry.flag_bits & 1:
        raise UserError(f"{where} is encrypted; pack the images without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{where} is packed by method {entry.compress_type}; pack images stored or deflated")
    if entry.file_size > MAX_IMAGE_BYTES:
        raise UserError(f"{where} is too large for an image: {size_text(entry.file_size)} unpacked")
    with archive.open(entry) as stream:
        return stream.read(entry.file_size)  # with a size, no more than that is unpacked, whatever the file holds


@lru_cache(maxsize=8)
def _open_zip(path: str, process_id: int) -> zipfile.ZipFile:
    """An open archive per process: a file offset must not be shared across a fork."""
    del process_id
    if os.path.exists(path):
        require_regular(path, "zip", limit=2**50)
    return zipfile.ZipFile(path)
