"""Hundreds of damaged files, seeded, each read in a process of its own as the commands read it.

    export PYTHONPATH=lib:pose_estimation:tests
    python tests/fuzz.py --folder /tmp/fuzz [--seed 0] [--only mpii] [--case mpii-17]

Prints a line of JSON for each. A case passes if it ends within 10 s of processor time and 2 GiB, with exit code 1 or 2
and one printable line, or with 0 where the damage did no harm, and if nothing outside of its output folder has changed.
`tests/test_fuzz.py` runs it.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import scipy.io
import yaml
from mini_coco import COCO_FROM_MPII, detections_of, write_mini_coco
from test_config import ORIGINAL_STYLE
from test_weights_files import pose_state
from tiny import tiny_description, write_tiny_onnx

import deploy
from simplepose import PosePredictor
from simplepose.build.data import build_evaluator, build_train_loader, build_valid_loader, build_valid_samples
from simplepose.build.model import load_config_and_weights, weights_metadata
from simplepose.commands import evaluate
from simplepose.config.load import dump_config, load_config
from simplepose.core.errors import run_command
from simplepose.core.images import read_image
from simplepose.core.skeletons import COCO
from simplepose.inference.box_sources import boxes_of_file
from simplepose.inference.sources import Frame
from simplepose.weights import write_weights

ROOT = Path(__file__).resolve().parent.parent
SECONDS, MEGABYTES = 10, 2048
DECODERS = "libpng |Corrupt JPEG|Premature end|Invalid |Unsupported |TIFF"  # what they say of a damaged image
HARMFUL = 70  # exit code of a case that ended in a traceback
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
# Values in place of one that was right.
HOSTILE = [
    None, True, 0, -1, 0.5, 2**31, 2**64, 10**30, int("9" * 400), 1e9, 1e308, -1e308, float("nan"), float("inf"),
    "", "abc", "a\0b", "\x1b[2J\x07", "\ud800", "x" * 5000, "../../../etc/passwd", "/dev/zero", "12", "NaN",
    [], [[]], {}, {"a": 1}, [1, 2], ["a", "b"], [None], [float("nan")] * 4, list(range(1001)), DEEP,
]  # fmt: skip
YAML_TEXTS = [
    "a0: &a0 [x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
    "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)),
    "&a [*a]", "[" * 50_000, "{a: " * 50_000, "- " * 50_000, "WORKERS: 2001-13-45", "WORKERS: !!int abc",
    "WORKERS: !!float ''", "WORKERS: !!timestamp x", "WORKERS: " + "9" * 5000, "WORKERS: 0x" + "f" * 100_000,
    "WORKERS: !!python/object/apply:os.system ['touch outside']", "WORKERS: 1:" + "59:" * 5000 + "1",
    "\x1b[2J", "a: \"\\x1b[2J\"", "OUTPUT_DIR: \"\\0\"", "OUTPUT_DIR: \"\\uD800\"", "? {a: b}\n: c",
    "x" * 100_000 + ": 1",
    "[" + "1," * 100_000 + "]", "---\n---\n", "!!binary x", "%YAML 9.9\n---\na: 1", "DATASET: {SKELETON: /dev/zero}",
    "DATASET: {DATASET: coco, SKELETON: pipe}", "MODEL.EXTRA.SIGMA: 1e9", "GPUS: [[[0]]]", "1: {2: 3}", "null: null",
]  # fmt: skip
JSON_TEXTS = [
    "[" * 200_000,
    '{"a":' * 200_000,
    "9" * 5000,
    "[1e999",
    "nul",
    '"\\ud800"',
    "[" + "{}," * 100 + "{}]",
    "{}",
    "[]",
]


class Case:
    """A damaged file and what reads it: `run` is called in the case's folder, `path` there is the damaged file."""

    def __init__(self, kind: str, path: str, damage: Callable[[Path], None], run: Callable[[], Any]):
        self.kind, self.path, self.damage, self.run = kind, path, damage, run


# ---- damage ------------------------------------------------------------------------------------------------------


def places_of(tree: Any, place: tuple = ()) -> Iterator[tuple]:
    """Every key and index in nested tables and lists, as a path from the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from places_of(value, (*place, key))


def damaged_tree(tree: Any, rng: np.random.Generator) -> Any:
    """One or two values replaced, removed, renamed or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.integers(1, 3)):
        places = list(places_of(tree))
        if not places:
            break
        depth = rng.choice(sorted({len(place) for place in places}))  # or nearly all were single numbers
        *above, last = [place for place in places if len(place) == depth][
            rng.integers(sum(len(p) == depth for p in places))
        ]
        parent = tree
        for key in above:
            parent = parent[key]
        action = rng.integers(8)
        if action == 0:
            del parent[last]
        elif action == 1 and isinstance(parent, dict):
            parent[f"{last}X"] = parent.pop(last)
        elif action == 2 and isinstance(parent, list):
            parent.insert(last, parent[last])
        else:
            parent[last] = copy.deepcopy(HOSTILE[rng.integers(len(HOSTILE))])
    return tree


def damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, overwritten, torn apart, or extended."""
    at = int(rng.integers(len(data) + 1))
    noise = rng.integers(0, 256, int(rng.integers(1, 40)), dtype=np.uint8).tobytes()
    return [
        data[:at],
        data[:at] + noise + data[at + len(noise) :],
        data[:at] + noise + data[at:],
        data[:at] + data[at + 9 :],
    ][rng.integers(4)]


def byte_damage(rng: np.random.Generator) -> Callable[[Path], None]:
    seed = int(rng.integers(2**32))
    return lambda path: path.write_bytes(damaged_bytes(path.read_bytes(), np.random.default_rng(seed)))


def tree_damage(rng: np.random.Generator, load: Callable, dump: Callable) -> Callable[[Path], None]:
    seed = int(rng.integers(2**32))

    def damage(path: Path) -> None:
        text = dump(damaged_tree(load(path.read_text(encoding="utf-8")), np.random.default_rng(seed)))
        path.write_text(text, encoding="utf-8")

    return damage


def json_damage(rng: np.random.Generator) -> Callable[[Path], None]:
    return tree_damage(rng, json.loads, json.dumps)


def yaml_damage(rng: np.random.Generator) -> Callable[[Path], None]:
    return tree_damage(rng, yaml.safe_load, yaml.safe_dump)


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(
        content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    )


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    os.truncate(path, 1 << 42)  # nothing is stored of it


NO_FILES = [Path.unlink, folder, pipe, endless, huge, text(b""), text(b"\0" * 1000), text(bytes(range(256)) * 4)]

# ---- the files, undamaged, and what reads them -------------------------------------------------------------------

CONFIG = ["WORKERS=0", "MODEL.DEPTH=18", "MODEL.IMAGE_SIZE=[64,96]", "OUTPUT_DIR=out"]


def write_good_files(good: Path) -> None:
    """One of each kind, which all readers take."""
    (good / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(ORIGINAL_STYLE)))
    face = {"name": "face", "joints": ["nose", "left_eye", "right_eye"], "sigmas": [0.1, 0.1, 0.1]}
    (good / "face.yaml").write_text(
        yaml.safe_dump({**face, "pairs": [["left_eye", "right_eye"]], "limbs": [["nose", "left_eye"]]})
    )
    with zipfile.ZipFile(ROOT / "data" / "mpii.zip") as archive:
        archive.extractall(good)
    write_mini_coco(good / "coco", COCO, COCO_FROM_MPII, {"val": 3})
    annotations = good / "coco" / "annotations" / "val.json"
    (good / "detections.json").write_text(json.dumps(detections_of(annotations)))
    people = json.loads(annotations.read_text())["annotations"]
    results = [
        {"score": 0.9, **{key: person[key] for key in ("image_id", "category_id", "keypoints")}} for person in people
    ]
    (good / "results.json").write_text(json.dumps(results))
    truth = scipy.io.loadmat(good / "mpii" / "annot" / "gt_valid.mat")
    scipy.io.savemat(good / "pred.mat", {"preds": truth["pos_gt_src"].transpose(2, 0, 1), "scores": np.ones((8, 16))})
    (good / "boxes.csv").write_text("image,x,y,w,h,score\na.jpg,1,2,30,40,0.5\na.jpg,5,5,50,60,0.9\n")
    (good / "boxes.json").write_text(
        json.dumps([{"image_id": "a", "category_id": 1, "bbox": [1, 2, 30, 40], "score": 1}])
    )
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    for ending in ("jpg", "png", "bmp", "tif"):
        cv2.imwrite(str(good / f"image.{ending}"), image)
    with zipfile.ZipFile(good / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(good / "image.jpg", "image.jpg")
    write_tiny_onnx(good / "tiny.onnx", tiny_description())
    config = load_config(None, [*CONFIG, "MODEL.EXTRA.NUM_DECONV_FILTERS=[4,4,4]"])
    for ending in ("pdparams", "pth", "safetensors"):
        write_weights(good / f"weights.{ending}", pose_state(18), weights_metadata(config))


def read_batches(*overrides: str) -> None:
    """What a training and a validation read of a data set, down to the last crop and target."""
    config = load_config(None, [*CONFIG, "TRAIN.BATCH_SIZE=4", *overrides])
    loaders = [build_valid_loader(config)]
    if config.DATASET.DATASET == "mpii" or config.TEST.USE_GT_BBOX:
        loaders.append(build_train_loader(config))
    for loader in loaders:
        for batch in loader.epoch():
            for name, values in vars(batch).items():
                if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise AssertionError(f"{name} of a batch is not finite")
    build_evaluator(config, build_valid_samples(config))


def run_evaluate(*arguments: str) -> int | None:
    sys.argv = ["evaluate.py", *arguments, "--json", "out/scores.json"]
    return evaluate.main()


def predict_in_boxes(path: str) -> None:
    image = np.zeros((90, 70, 3), np.uint8)
    boxes, scores = boxes_of_file(path)(Frame(0, "a.jpg", image))
    PosePredictor("tiny.onnx")(image, boxes, scores)


def run_deploy(path: str) -> int:
    try:
        deploy.PoseModel(path)(np.zeros((90, 70, 3), np.uint8), [[0, 0, 50, 60]])
    except deploy.DeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def describe_onnx(damage: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_tiny_onnx(path, damage(tiny_description()))

    return write


def describe_weights(damage: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        metadata = weights_metadata(load_config(None, [*CONFIG, "MODEL.EXTRA.NUM_DECONV_FILTERS=[4,4,4]"]))
        text = json.dumps(damage(metadata)).replace("\\ud800", "?")  # which our writers refuse
        write_weights(path, pose_state(18), json.loads(text))

    return write


def replace_in(metadata: dict, key: str, value: Any) -> dict:
    metadata["config"][key] = value
    return metadata


def mat_damage(rng: np.random.Generator) -> Callable[[Path], None]:
    """An array of another shape or type, or with other numbers."""
    seed = int(rng.integers(2**32))

    def damage(path: Path) -> None:
        rng = np.random.default_rng(seed)
        content = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
        name = sorted(content)[rng.integers(len(content))]
        array = content[name]
        number = array.dtype.kind in "fiu"
        others = [
            array[:-1], array[..., :-1], array[None], array.ravel(), np.zeros(0), np.zeros((2, 2)), "text", 1j,
            array.astype("O"), np.array([["a", 1]], dtype=object), scipy.sparse.eye(3).tocsc(), {"a": 1},
            array * np.nan if number else [[1.0]], array * 1e300 if number else [["a"]],
        ]  # fmt: skip
        content[name] = others[rng.integers(len(others))]
        scipy.io.savemat(path, content)

    return damage


def bomb(path: Path) -> None:
    """A zip member of 0.6 GB zeros in 0.6 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image.jpg", "w") as member:
        for _ in range(5):
            member.write(b"\0" * (1 << 27))


def encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)


def of_method_99(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + offset] = 99
    path.write_bytes(data)


def giant_png(path: Path) -> None:
    """30,000 x 30,000 pixels in a MB."""
    import zlib

    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(b"\0" * 90_001 * 100) for _ in range(300)) + rows.flush()
    header = (30_000).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(len(d).to_bytes(4, "big") + n + d + zlib.crc32(n + d).to_bytes(4, "big") for n, d in chunks)
    )


def cases(seed: int) -> Iterator[Case]:
    """All cases, the same for the same seed."""
    rng = np.random.default_rng(seed)

    def read_config():
        return dump_config(load_config("config.yaml", ["OUTPUT_DIR=out"]))

    for damage in (
        *NO_FILES,
        *map(text, YAML_TEXTS),
        *(yaml_damage(rng) for _ in range(50)),
        *(byte_damage(rng) for _ in range(5)),
    ):
        yield Case("config", "config.yaml", damage, read_config)
    keys = ["TRAIN.LR", "OUTPUT_DIR", "MODEL.IMAGE_SIZE", "GPUS", "TRAIN.LR_STEP", "TRAIN.SEED", "DATASET.SKELETON"]
    for value in YAML_TEXTS[:20]:
        override = f"{keys[rng.integers(len(keys))]}={value.partition(': ')[2] or value}"
        yield Case("override", "config.yaml", lambda path: None, lambda o=override: load_config(None, [o]))

    def read_skeleton():
        return load_config(None, ["DATASET.DATASET=coco", "DATASET.SKELETON=face.yaml"])

    for damage in (*NO_FILES, *map(text, YAML_TEXTS[:12]), *(yaml_damage(rng) for _ in range(25))):
        yield Case("skeleton", "face.yaml", damage, read_skeleton)

    for ending in ("pdparams", "pth", "safetensors"):
        path = f"weights.{ending}"

        def read_weights(path=path):
            return load_config_and_weights(None, [], {"TEST.MODEL_FILE": path})

        seeds = rng.integers(2**32, size=14).tolist()
        described = [describe_weights(lambda m, s=s: damaged_tree(m, np.random.default_rng(s))) for s in seeds]
        for name in ("pipe", "/dev/zero", "face.yaml", "a\0b"):
            described.append(describe_weights(lambda m, name=name: replace_in(m, "DATASET.SKELETON", name)))
        for damage in (*NO_FILES, *described, *(byte_damage(rng) for _ in range(8))):
            yield Case("weights", path, damage, read_weights)

    seeds = rng.integers(2**32, size=45).tolist()
    descriptions = [describe_onnx(lambda d, s=s: damaged_tree(d, np.random.default_rng(s))) for s in seeds]
    descriptions += [describe_onnx(lambda d, t=t: t) for t in JSON_TEXTS]
    for damage in (*NO_FILES, *descriptions, *(byte_damage(rng) for _ in range(6))):
        yield Case("onnx", "tiny.onnx", damage, lambda: PosePredictor("tiny.onnx")(np.zeros((90, 70, 3), np.uint8)))
        yield Case("deploy", "tiny.onnx", damage, lambda: run_deploy("tiny.onnx"))

    for path in ("boxes.json", "boxes.csv"):
        trees = [json_damage(rng) for _ in range(20)] if path.endswith("json") else []
        for damage in (*NO_FILES, *map(text, JSON_TEXTS), *trees, *(byte_damage(rng) for _ in range(8))):
            yield Case("boxes", path, damage, lambda path=path: predict_in_boxes(path))

    for path in ("valid.json", "train.json"):
        for damage in (*NO_FILES[:5], *map(text, JSON_TEXTS), *(json_damage(rng) for _ in range(30)), byte_damage(rng)):
            yield Case("mpii", f"mpii/annot/{path}", damage, lambda: read_batches("DATASET.ROOT=mpii"))
    coco = ["DATASET.DATASET=coco", "DATASET.ROOT=coco", "DATASET.TRAIN_SET=val", "DATASET.TEST_SET=val"]
    annotations = "coco/annotations/val.json"
    for damage in (*NO_FILES[:5], *map(text, JSON_TEXTS), *(json_damage(rng) for _ in range(60)), byte_damage(rng)):
        yield Case("coco", annotations, damage, lambda: read_batches(*coco, "TEST.USE_GT_BBOX=true"))
    for damage in (*map(text, JSON_TEXTS), *(json_damage(rng) for _ in range(25))):
        run = ("--dataset", "coco", "--gt", annotations, "--pred", "results.json")
        yield Case("coco truth", annotations, damage, lambda run=run: run_evaluate(*run))
        yield Case("results", "results.json", damage, lambda run=run: run_evaluate(*run))
        yield Case(
            "detections", "detections.json", damage, lambda: read_batches(*coco, "TEST.COCO_BBOX_FILE=detections.json")
        )

    mat = ("--dataset", "mpii", "--gt", "mpii/annot/gt_valid.mat", "--pred", "pred.mat")
    for path in (mat[3], mat[5]):
        for damage in (*NO_FILES, *(mat_damage(rng) for _ in range(25)), *(byte_damage(rng) for _ in range(15))):
            yield Case("mat", path, damage, lambda: run_evaluate(*mat))

    for ending in ("jpg", "png", "bmp", "tif"):
        for damage in (*NO_FILES, *(byte_damage(rng) for _ in range(8))):
            yield Case("image", f"image.{ending}", damage, lambda ending=ending: read_image(f"image.{ending}"))
    yield Case("image", "image.png", giant_png, lambda: read_image("image.png"))
    for damage in (*NO_FILES, bomb, encrypted, of_method_99, *(byte_damage(rng) for _ in range(25))):
        yield Case("zip", "pictures.zip", damage, lambda: read_image("pictures.zip@image.jpg"))
    for name in (
        "a\0b.jpg",
        "\ud800.jpg",
        "../../../etc/passwd",
        "pictures.zip@../image.jpg",
        "pictures.zip@\0",
        "x" * 5000,
    ):
        yield Case("image", "image.jpg", lambda path: None, lambda name=name: read_image(name))


# ---- running them ------------------------------------------------------------------------------------------------


def snapshot(root: Path) -> dict[str, Any]:
    """Everything below a folder but for out/: kind, size and time."""
    found = {}
    for path in sorted(root.rglob("*")):
        if "out" not in path.relative_to(root).parts:
            status = path.lstat()
            found[str(path)] = (
                status.st_mode,
                status.st_size if path.is_file() else 0,
                status.st_mtime_ns if path.is_file() else 0,
            )
    return found


def run_case(case: Case, place: Path) -> dict[str, Any]:
    """Run a case in a process of its own, in its folder; see `problems_of` for what it returns."""
    before = snapshot(place)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = HARMFUL
        try:
            for descriptor, name in ((0, os.devnull), (1, place / "out" / "stdout"), (2, place / "out" / "stderr")):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
            os.chdir(place)
            signal.alarm(6 * SECONDS)  # it waits for something, or the machine has much else to do
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
            logging.basicConfig(
                stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True
            )  # as in the commands
            used = int(re.search(r"VmSize:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
            resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20,) * 2)
            code = run_command(lambda: result if type(result := case.run()) is int else None)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else HARMFUL
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    said = [(place / "out" / name).read_bytes().decode("utf-8", "replace") for name in ("stdout", "stderr")]
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": round(time.monotonic() - started, 2),
        "cpu": round(usage.ru_utime + usage.ru_stime, 2),
        "megabytes": usage.ru_maxrss // 1024,
        "stdout": said[0][-3000:],
        "stderr": said[1][-3000:],
        "changed": sorted({key for key, _ in before.items() ^ snapshot(place).items()}),
    }


def problems_of(result: dict[str, Any]) -> list[str]:
    """What is wrong with how a case ended."""
    problems = []
    lines = [line for line in result["stderr"].splitlines() if not re.match(DECODERS, line)]
    if result["code"] in (-signal.SIGALRM, -signal.SIGXCPU):
        problems.append(f"it did not end within {SECONDS} s")
    elif result["code"] not in (0, 1, 2) or "Traceback" in result["stderr"]:
        problems.append(f"traceback: {lines[-1] if lines else result['code']}")
    elif result["code"] == 2 and not (len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 2100):
        problems.append(f"{len(lines)} lines instead of one: {lines}")
    elif result["code"] == 0 and lines:
        problems.append(f"it said {lines}")
    if result["megabytes"] > MEGABYTES:
        problems.append(f"it took {result['megabytes']} MB")
    if re.search("[\x00-\x08\x0b-\x1f\x7f]", result["stdout"] + result["stderr"]):
        problems.append("control characters reached the terminal")
    if result["changed"]:
        problems.append(f"changed: {result['changed']}")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="cases of this kind")
    parser.add_argument("--case", help="this one case; its folder stays as it is")
    parser.add_argument("--folder", type=Path, required=True, help="to work in; must not exist")
    args = parser.parse_args()
    warnings.simplefilter("default")
    cv2.setNumThreads(0)
    good, place = args.folder / "good", args.folder / "case"
    good.mkdir(parents=True)
    write_good_files(good)
    os.environ["TMPDIR"] = str(args.folder)
    for number, case in enumerate(cases(args.seed)):
        name = f"{case.kind}-{number}"
        if args.only not in (None, case.kind) or args.case not in (None, name):
            continue
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(good, place, copy_function=os.link)
        (place / "out").mkdir()
        os.mkfifo(place / "pipe")
        victim = place / case.path
        data = victim.read_bytes()
        victim.unlink()  # the good one stays
        victim.write_bytes(data)
        case.damage(victim)
        result = run_case(case, place)
        line = {"case": name, "kind": case.kind, "file": case.path, **result, "problems": problems_of(result)}
        print(json.dumps(line), flush=True)
        if args.case:
            break
    else:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
