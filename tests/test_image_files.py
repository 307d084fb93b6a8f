"""Image files and zips from strangers: each ends in one line, and none fills the memory or waits for ever."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest

from simplepose.core import images
from simplepose.core.errors import UserError
from simplepose.core.images import read_image


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def png(width, height, pixels=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_png_of_900_million_pixels_is_too_large(tmp_path):
    (tmp_path / "huge.png").write_bytes(png(30000, 30000, zlib.compress(bytes(30001))))
    refused(tmp_path / "huge.png", r"huge\.png is too large: 30000 x 30000")


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tiff", ".bmp", ".gif", ".jp2"])
def test_the_size_is_known_before_pixels_are_decoded(tmp_path, monkeypatch, extension):
    picture = np.random.default_rng(0).integers(0, 255, (33, 70, 3), dtype=np.uint8)
    try:
        data = cv2.imencode(extension, picture)[1].tobytes()
    except cv2.error:
        pytest.skip(f"this OpenCV writes no {extension}")
    path = tmp_path / f"picture{extension}"
    path.write_bytes(data)
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 33 * 70)
    assert read_image(path).shape == (33, 70, 3)
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 33 * 70 - 1)
    refused(path, "is too large: 70 x 33")


def test_a_jpeg_with_bytes_between_its_segments_hides_no_size(tmp_path, monkeypatch):
    data = cv2.imencode(".jpg", np.zeros((40, 30, 3), np.uint8))[1].tobytes()
    comment = b"\xff\xfe\x00\x06\xff\xc0\x00\x00"  # what looks like a size stands in a comment
    (tmp_path / "a.jpg").write_bytes(data[:2] + comment + b"stray" + b"\xff" + data[2:])
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 100)
    refused(tmp_path / "a.jpg", "is too large: 30 x 40")


def test_memory_that_runs_out_is_not_called_a_broken_image(tmp_path, monkeypatch):
    def no_memory(data, flags):
        raise cv2.error("(-4:Insufficient memory) Failed to allocate 2700000000 bytes")

    (tmp_path / "a.webp").write_bytes(b"RIFF")
    monkeypatch.setattr(cv2, "imdecode", no_memory)
    refused(tmp_path / "a.webp", "too large")


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    with open(tmp_path / "a.jpg", "wb") as stream:
        stream.truncate(2**40)  # takes no room on the disk
    refused(tmp_path / "a.jpg", "too large")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "images.zip")
    refused(tmp_path / "a.jpg", "a pipe or a device")
    refused(f"{tmp_path}/images.zip@a.jpg", "a pipe or a device")
    refused("/dev/zero", "a pipe or a device")


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\ud800b.jpg"])
def test_names_that_no_file_can_have(tmp_path, name):
    refused(f"{tmp_path}/{name}", "cannot read")
    refused(f"{tmp_path}/{name}.zip@a.jpg", "cannot read")


PICTURE = cv2.imencode(".png", np.full((5, 6, 3), 9, np.uint8))[1].tobytes()


def zip_of(folder, content, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(folder / "images.zip", "w", method) as archive:
        archive.writestr("a.png", content)
    return folder / "images.zip"


def patched(path, places):
    """The zip with bytes written into the headers of its only member: offset in the central directory -> bytes."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    for at, content in places.items():
        data[start + at : start + at + len(content)] = content
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({8: b"\x01"}, "a.png is encrypted"),
        ({10: b"\x62"}, "a.png is packed by method 98"),
        ({24: b"\xff\xff\xff\x7f"}, "a.png is too large for an image: 2.15 GB"),
        ({16: b"\0\0\0\0"}, "not a readable zip file"),  # the checksum
        ({42: b"\x09"}, "not a readable zip file"),  # where the member begins
        ({6: b"\xff"}, "not a readable zip file"),  # a version to come
    ],
)
def test_damaged_and_crafted_zips(tmp_path, places, message):
    path = zip_of(tmp_path, PICTURE)
    assert read_image(f"{path}@a.png").shape == (5, 6, 3)
    path.rename(tmp_path / "other.zip")  # an open archive is kept by its name
    patched(tmp_path / "other.zip", places)
    refused(f"{tmp_path}/other.zip@a.png", message)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound(tmp_path, method):
    refused(f"{zip_of(tmp_path, PICTURE, method)}@a.png", "pack images stored or deflated")


def test_a_zip_bomb_is_unpacked_no_further_than_it_says(tmp_path, monkeypatch):
    path = zip_of(tmp_path, bytes(50_000_000))
    patched(path, {24: struct.pack("<I", 1000)})
    unpacked = []
    bound = zipfile.ZipExtFile._read1
    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", lambda self, n: unpacked.append(n) or bound(self, n))
    refused(f"{path}@a.png", "not a readable zip file|not an image")
    assert max(unpacked) <= 1000
