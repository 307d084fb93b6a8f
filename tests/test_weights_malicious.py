"""Files that want more than to be read: each is refused in one line, and nothing it asked for happens.

The side effect every attack tries is the same: to create the file `tmp_path / "owned"`.
"""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from simplepose.core.errors import UserError
from simplepose.weights import read_pickle_checked, read_weights, write_torch
from simplepose.weights.torch_files import LEGACY_MAGIC


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def torch_zip(data_pkl, members=(), compression=zipfile.ZIP_STORED, folder="archive/"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(f"{folder}data.pkl", data_pkl)
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def torch_legacy(data_pkl, keys=(), storages=b""):
    head = [LEGACY_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    parts = [pickle.dumps(part, protocol=2) for part in head]
    return b"".join(parts) + data_pkl + pickle.dumps(list(keys), protocol=2) + storages


FORMATS = {"pth_zip": torch_zip, "pth_legacy": torch_legacy, "pdparams": lambda data_pkl: data_pkl}


def refused(tmp_path, content, read=read_weights):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert not (tmp_path / "owned").exists()
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def attacks(tmp_path):
    touch = f"touch {tmp_path / 'owned'}"
    code = f"open({str(tmp_path / 'owned')!r}, 'w')"
    import_os = Call(getattr, Call(__import__, "os"), "system")
    return {
        "os.system": (Call(os.system, touch), "asks for posix.system"),
        "eval": (Call(eval, code), "asks for builtins.eval"),
        "exec": (Call(exec, code), "asks for builtins.exec"),
        "nested": ({"w": [np.ones(2), {"x": (Call(os.system, touch),)}]}, "asks for posix.system"),
        "getattr chain": (
            Call(import_os, touch) if callable(import_os) else import_os,
            "asks for builtins.getattr",
        ),
        "argument of an allowed call": (Call(tuple, [Call(eval, code)]), "asks for builtins.eval"),
        "object array": (np.array([Call(eval, code)], dtype=object), "asks for"),
        "open": (Call(open, str(tmp_path / "owned"), "w"), "asks for"),
    }


ATTACKS = [
    "os.system",
    "eval",
    "exec",
    "nested",
    "getattr chain",
    "argument of an allowed call",
    "object array",
    "open",
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("file_format", FORMATS)
def test_calls_are_refused_by_name(tmp_path, file_format, attack, protocol):
    value, words = attacks(tmp_path)[attack]
    data = pickle.dumps({"state_dict": {"w": value}}, protocol=protocol)
    message = refused(tmp_path, FORMATS[file_format](data)).replace("__builtin__", "builtins")  # protocol 2's name
    assert words in message and "weight files need only arrays" in message
    if file_format == "pdparams":
        assert "asks for" in refused(tmp_path, data, read_pickle_checked)


def test_the_attacks_work_on_an_ordinary_unpickler(tmp_path):
    pickle.loads(pickle.dumps(attacks(tmp_path)["os.system"][0]))
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("file_format", FORMATS)
def test_names_are_refused_in_every_way_of_asking(tmp_path, file_format):
    touch = f"touch {tmp_path / 'owned'}".encode()
    for program in (
        b"\x80\x02(S'x'\nios\nsystem\n.",  # INST with a text instruction before it
        b"\x80\x02(ios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX" + struct.pack("<I", len(touch)) + touch + b"o.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x02cnumpy\nndarray\n)R.",  # a type that may be named but not called
        b"\x80\x02cbuiltins\neval\x1b[31m\n.",  # control characters in a name
    ):
        message = refused(tmp_path, FORMATS[file_format](program))
        assert "refused" in message and "\x1b" not in message
    assert "os.system" in refused(tmp_path, FORMATS[file_format](b"\x80\x02(ios\nsystem\n."))


def float_tensor(offset=0, size=(2, 3), stride=(3, 1), count=6, key="0"):
    """The pickle of {"w": tensor} over one float32 storage."""

    def numbers(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    text = b"X" + struct.pack("<I", len(key)) + key.encode()
    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + text + b"X\x03\x00\x00\x00cpu"
        b"\x8a\x08"
        + struct.pack("<q", count)
        + b"tQ\x8a\x08"
        + struct.pack("<q", offset)
        + numbers(size)
        + numbers(stride)
        + b"\x89}tRs."
    )


def zip_tensor(data=b"\0" * 24, **changes):
    return torch_zip(float_tensor(**changes), [("archive/data/0", data)])


def legacy_tensor(data=b"\0" * 24, **changes):
    count = changes.get("count", 6)
    return torch_legacy(float_tensor(**changes), ["0"], struct.pack("<q", count) + data)


def test_the_honest_version_of_the_tensors_below_is_read(tmp_path):
    for content in (zip_tensor(), legacy_tensor()):
        (tmp_path / "a").write_bytes(content)
        np.testing.assert_array_equal(read_weights(tmp_path / "a").state["w"], np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("make", [zip_tensor, legacy_tensor])
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"offset": 1}, "beyond the end"),
        ({"offset": -1}, "tensor offset"),
        ({"size": (2, 4)}, "beyond the end"),
        ({"stride": (4, 1)}, "beyond the end"),
        ({"stride": (-3, 1)}, "tensor stride"),
        ({"size": (2, 3, 1)}, "differ in number"),
        ({"size": (1 << 40, 1 << 40), "stride": (0, 0)}, "declares"),
        ({"size": (1 << 20, 1 << 10), "stride": (0, 0)}, "declares"),  # 4 GiB out of four bytes
        ({"size": (1 << 62, 0), "stride": (0, 0)}, "refused"),
        ({"count": 1 << 40}, "declares|holds"),
        ({"count": -1}, "unusual"),
    ],
)
def test_tensors_beyond_their_storage(tmp_path, make, changes, words):
    message = refused(tmp_path, make(**changes))
    assert any(word in message for word in words.split("|")), message


def test_path_traversal_in_a_zip(tmp_path):
    for name in ("../owned", "archive/../../owned", "/owned", "archive\\..\\..\\owned", "C:/owned"):
        message = refused(tmp_path, torch_zip(float_tensor(), [("archive/data/0", b"\0" * 24), (name, b"x")]))
        assert "points outside the archive" in message
    assert "refused" in refused(tmp_path, torch_zip(float_tensor(key="../../owned")))


def test_zip_bomb(tmp_path):
    content = torch_zip(float_tensor(count=1 << 26), [("archive/data/0", bytes(1 << 24))], zipfile.ZIP_DEFLATED)
    assert len(content) < 1 << 17
    assert "compressed member" in refused(tmp_path, content)
    # The same with directory entries that claim equal sizes: only the method gives it away.
    content = bytearray(torch_zip(float_tensor(), [("archive/data/0", b"\0" * 24)], zipfile.ZIP_DEFLATED))
    for place in [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]:
        content[place + 24 : place + 28] = content[place + 20 : place + 24]
    assert "compressed member" in refused(tmp_path, bytes(content))


def test_overlapping_and_false_members_of_a_zip(tmp_path):
    honest = zip_tensor()
    directory = honest.index(b"PK\x01\x02")
    entries = [i for i in range(directory, len(honest)) if honest[i : i + 4] == b"PK\x01\x02"]
    same_place = bytearray(honest)
    same_place[entries[1] + 42 : entries[1] + 46] = same_place[entries[0] + 42 : entries[0] + 46]
    assert "refused" in refused(tmp_path, bytes(same_place))
    for change, words in (
        ({20: 1 << 20, 24: 1 << 20}, "a member that is cut short"),
        ({42: 1 << 20}, "a member outside the file"),
        ({20: 23, 24: 24}, "a compressed member"),
    ):
        false = bytearray(honest)
        for position, value in change.items():
            false[entries[1] + position : entries[1] + position + 4] = struct.pack("<I", value)
        assert words in refused(tmp_path, bytes(false))


def test_a_member_inside_another_member(tmp_path):
    """Every byte is inside the file and every header is right, yet two members share bytes."""
    honest = zip_tensor()
    whole_member = honest[honest.index(b"PK\x03\x04", 4) : honest.index(b"PK\x01\x02")]  # header and data of data/0
    members = [("archive/data/0", b"\0" * 24), ("archive/data/1", whole_member)]
    content = bytearray(torch_zip(float_tensor(), members))
    hidden = bytes(content).rindex(b"PK\x03\x04")
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    content[entries[1] + 42 : entries[1] + 46] = struct.pack("<I", hidden)
    assert "members that overlap" in refused(tmp_path, bytes(content))


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    content = bytearray(zip_tensor(data=b"\x11" * 24))
    content[content.index(b"\x11" * 24) + 5] ^= 1
    assert "checksum of archive/data/0" in refused(tmp_path, bytes(content))


def test_truncated_files_of_every_format(tmp_path):
    write_torch(tmp_path / "a.pth", {"w": np.arange(400, dtype=np.float32)})
    files = {
        "zip": (tmp_path / "a.pth").read_bytes(),
        "legacy": legacy_tensor(),
        "pdparams": pickle.dumps({"w": np.arange(400, dtype=np.float32)}, protocol=4),
        "safetensors": safetensors(),
    }
    for content in files.values():
        for keep in range(1, len(content), max(1, len(content) // 60)):
            refused(tmp_path, content[:keep])


def test_lengths_are_compared_with_the_file_before_memory_is_taken(tmp_path):
    huge = 1 << 62
    for program in (
        b"\x80\x04\x8e" + struct.pack("<Q", huge) + b".",  # BINBYTES8
        b"\x80\x04\x8d" + struct.pack("<Q", huge) + b".",  # BINUNICODE8
        b"\x80\x05\x96" + struct.pack("<Q", huge) + b".",  # BYTEARRAY8
        b"\x80\x04\x95" + struct.pack("<Q", huge) + b".",  # FRAME
        b"\x80\x02T" + struct.pack("<i", -1) + b".",  # BINSTRING of negative length
        b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b".",  # LONG4
        b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFFF) + b".",  # a far memo place is only a dictionary key here
    ):
        refused(tmp_path, program)


def test_arrays_must_account_for_their_bytes(tmp_path):
    honest = pickle.dumps({"w": np.arange(6, dtype=np.float32)}, protocol=2)
    (tmp_path / "a").write_bytes(honest)
    assert read_weights(tmp_path / "a").state["w"].shape == (6,)
    shape, kind = b"K\x06\x85", b"X\x02\x00\x00\x00f4"
    assert honest.count(shape) == 1 and honest.count(kind) == 1
    assert "of shape (7,) float32 over 24 bytes" in refused(tmp_path, honest.replace(shape, b"K\x07\x85"))
    for old, new in (
        (shape, b"J\xff\xff\xff\x7f\x85"),
        (shape, b"J\xff\xff\xff\xff\x85"),
        (kind, b"X\x02\x00\x00\x00O8"),
        (kind, b"X\x02\x00\x00\x00V4"),
        (kind, b"X\x02\x00\x00\x00f8"),
        (kind, b"X\x06\x00\x00\x00f4,O,O"),
    ):
        message = refused(tmp_path, honest.replace(old, new))
        assert "declares an array" in message or "asks for arrays of type" in message


def test_billion_laughs_deep_nests_and_loops(tmp_path):
    laughs = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b"."
    assert "over and over" in refused(tmp_path, laughs, read_pickle_checked)
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    assert "deep" in refused(tmp_path, deep, read_pickle_checked)
    loop = b"\x80\x02]q\x00h\x00a."
    assert "contains itself" in refused(tmp_path, loop, read_pickle_checked)
    keys = b"\x80\x02})" + b"\x85" * 1000 + b"K\x01s."  # a nest of tuples as a key would be hashed recursively
    assert "as a dictionary key" in refused(tmp_path, keys, read_pickle_checked)
    prime = 2**61 - 1  # of which all multiples have one hash
    numbers = b"".join(b"\x8a\x0a" + (k * prime).to_bytes(10, "little") + b"N" for k in range(1, 9))
    assert "as a dictionary key" in refused(tmp_path, b"\x80\x02}(" + numbers + b"u.", read_pickle_checked)


MEMO = b"q\x000"  # keep what is on top for "h\x00" to name it again, and take it away
COPYING = {
    "encode": (b"X" + struct.pack("<I", 1 << 12) + b"a" * (1 << 12), b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R"),
    "OrderedDict": (b"](" + b"X\x01\0\0\0aK\x01\x86" * (1 << 12) + b"e", b"ccollections\nOrderedDict\nh\x00\x85R"),
    "tuple": (b"](" + b"N" * (1 << 12) + b"e", b"cbuiltins\ntuple\nh\x00\x85R"),
}


@pytest.mark.parametrize("call", COPYING)
def test_what_calls_copy_must_have_come_with_the_file(tmp_path, call):
    value, copies = COPYING[call]
    once = b"\x80\x02" + value + MEMO + b"](" + copies + b"e."
    (tmp_path / "once").write_bytes(once)
    assert len(read_pickle_checked(tmp_path / "once")) == 1
    often = once.replace(copies, copies * 1000)
    assert "over and over" in refused(tmp_path, often, read_pickle_checked)


def test_one_array_under_many_names_does_not_multiply(tmp_path):
    array = np.ones(1 << 16, np.float16)
    content = pickle.dumps({f"w{i}": array for i in range(100)}, protocol=4)
    assert "declares" in refused(tmp_path, content)


def test_slices_of_one_array_do_not_multiply(tmp_path):
    array = np.ones(1 << 12, np.float32)
    sliced = {f"w{i}": array for i in range(100)}
    sliced["UnpackBigParamInfor@@"] = {"w": {"OriginShape": (100 << 12,), "slices": list(sliced)}}
    assert "larger than the file" in refused(tmp_path, pickle.dumps(sliced, protocol=4))
    names = {f"w{i}": array for i in range(100)}
    names["UnpackBigParamInfor@@"] = {f"v{i}": {"OriginShape": (1 << 12,), "slices": [f"w{i}"]} for i in range(100)}
    assert "larger than the file" in refused(tmp_path, pickle.dumps(names, protocol=4))


def test_legacy_storages_must_be_as_announced(tmp_path):
    cut = legacy_tensor()[:-1]
    assert "cut short" in refused(tmp_path, cut)
    other_count = torch_legacy(float_tensor(), ["0"], struct.pack("<q", 5) + b"\0" * 24)
    assert "holds 5 elements" in refused(tmp_path, other_count)
    assert "other storages" in refused(tmp_path, torch_legacy(float_tensor(), ["1"]))
    module = b"\x80\x02(X\x06\x00\x00\x00moduleNNNtQ."
    assert "whole pickled module" in refused(tmp_path, torch_legacy(module))


def safetensors(header=None, data=b"\0" * 24, size=None):
    if header is None:
        header = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(begin, end, shape=(2, 3), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(size=1 << 40),
        safetensors(size=1 << 20),
        safetensors(data=b"\0" * 23),
        safetensors(data=b"\0" * 25),
        safetensors({"a": entry(0, 24), "b": entry(12, 36)}, b"\0" * 36),
        safetensors({"a": entry(0, 24), "b": entry(0, 24)}),
        safetensors({"a": entry(4, 28)}, b"\0" * 28),
        safetensors({"a": entry(0, 24, (1 << 40, 1 << 40))}),
        safetensors({"a": entry(24, 0)}),
        safetensors({"a": entry(0, 0, (0, 1 << 62, 1 << 62))}, b""),
        safetensors({"a": entry(-24, 0)}),
        safetensors({"a": entry(0, 24, (2, 3.0))}),
        safetensors({"a": entry(0, 24, dtype="PICKLE")}),
        safetensors({"a": 3}),
        safetensors(b"{" * 5000),
        safetensors(b'{"a":' * 50_000),
        safetensors(b'{"w":1,"w":2}'),
        safetensors({"__metadata__": {"x": 1}}, b""),
    ],
)
def test_safetensors_headers(tmp_path, content):
    (tmp_path / "a").write_bytes(safetensors())
    assert read_weights(tmp_path / "a").state["w"].shape == (2, 3)
    assert "refused: " in refused(tmp_path, content)


def test_random_damage_never_escapes(tmp_path):
    """Whatever a flipped byte does, the answer is arrays or one line."""
    rng = np.random.default_rng(0)
    files = [zip_tensor(), legacy_tensor(), safetensors()]
    files.append(pickle.dumps({"w": np.arange(6.0), "m": [1, ("a", 2.5)]}, protocol=4))
    path = tmp_path / "a"
    for content in files:
        for _ in range(300):
            damaged = bytearray(content)
            for position in rng.integers(0, len(content), size=rng.integers(1, 4)):
                damaged[position] = rng.integers(0, 256)
            path.write_bytes(bytes(damaged))
            try:
                read_weights(path)
            except UserError as error:
                assert "\n" not in str(error)
