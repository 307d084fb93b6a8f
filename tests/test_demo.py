"""The demo page in a real browser, Debian's headless Chromium. Screenshots are kept in output/demo-screenshots/."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_graph import random_crops, random_network
from tiny import tiny_description, write_tiny_onnx

import deploy
from simplepose import PersonDetector, PosePredictor
from simplepose.build.predictor import load_pose_network
from simplepose.commands.parity import load_deployed
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import read_image
from simplepose.export.onnx import export_onnx
from simplepose.export.parity import compare
from simplepose.export.quantize import write_float16, write_int8
from simplepose.inference.network import GraphOptions, InferenceSettings

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = ROOT / "output" / "demo-screenshots"
NEEDED = {
    "chromium": shutil.which("chromium"),
    "chromedriver": shutil.which("chromedriver"),
    "npm ci --prefix demo --ignore-scripts": (ROOT / "demo/node_modules/onnxruntime-web").is_dir(),
}
SAME_PX = 0.1


class Page:
    """The page in a browser, used as a visitor uses it."""

    def __init__(self, driver, url: str, downloads: Path):
        self.driver, self.url, self.downloads = driver, url, downloads

    def open(self, query: str = "") -> None:
        self.driver.get(f"{self.url}/?backend=wasm{query}")
        self.wait(lambda: self.run("return document.body.dataset.ready"))
        self.settle()

    def run(self, script: str, *args):
        return self.driver.execute_script(script, *args)

    def wait(self, until, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (self.text("status"), self.mistake())
            time.sleep(0.05)

    def settle(self) -> None:
        self.wait(lambda: self.run("return document.getElementById('stage').ariaBusy !== 'true'"))

    def element(self, name: str):
        return self.driver.find_element("id", name)

    def text(self, name: str) -> str:
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def mistake(self) -> str:
        return self.element("mistake").text

    def choose(self, *files: Path) -> None:
        self.element("files").send_keys("\n".join(str(file) for file in files))
        self.settle()

    def click(self, name: str) -> None:
        self.run("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", name)
        self.element(name).click()
        self.settle()

    def set_box(self, box) -> None:
        self.run(
            "const inputs = document.querySelectorAll('#edges input');"
            "arguments[0].forEach((value, index) => inputs[index].value = value);"
            "inputs[0].dispatchEvent(new Event('change', {bubbles: true}))", [float(value) for value in box],
        )  # fmt: skip
        self.settle()

    def saved(self, button: str, ending: str) -> bytes:
        for old in self.downloads.iterdir():
            old.unlink()
        self.click(button)
        self.wait(lambda: list(self.downloads.glob(f"*{ending}")))
        return next(self.downloads.glob(f"*{ending}")).read_bytes()

    def people(self) -> list[dict]:
        return json.loads(self.saved("json", ".json"))["people"]

    def screenshot(self, name: str, width: int | None = None) -> None:
        if width:
            size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def serve(folder: Path, *arguments: str) -> tuple[subprocess.Popen, str]:
    line = [sys.executable, "demo/serve.py", "--port", "0", "--output", str(folder), *arguments]
    server = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for said in server.stdout:
        if found := re.search(r"http://localhost:\d+", said):
            return server, found[0]
    raise AssertionError("the server did not start")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    for name, found in NEEDED.items():
        if not found:
            pytest.skip(f"the page is tried in a browser only with {name}")
    options = webdriver.ChromeOptions()
    options.binary_location = NEEDED["chromium"]
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-background-networking", "--no-first-run", "--lang=en",
        "--window-size=1280,900", f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(NEEDED["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(driver, posenet, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    server, url = serve(tmp_path_factory.mktemp("site"), "--model", str(posenet[1]))
    yield Page(driver, url, downloads)
    server.terminate()
    server.wait()


def keypoints_of(person: dict) -> np.ndarray:
    return np.array([[joint["x"], joint["y"], joint["score"]] for joint in person["keypoints"].values()])


def assert_same(person: dict, predictor: PosePredictor, image, box) -> None:
    (pose,) = predictor(image, [box])
    found = keypoints_of(person)
    np.testing.assert_allclose(found[:, :2], pose.keypoints, atol=SAME_PX)
    np.testing.assert_allclose(found[:, 2], pose.scores, atol=2e-3)
    assert list(person["keypoints"]) == list(pose.joints)


@pytest.mark.slow
def test_keypoints_on_ten_photographs_are_the_predictors(page, real_data, run_command, tmp_path):
    weights, onnx = tmp_path / "net.pdparams", tmp_path / "net.onnx"
    original = real_data / "weights/pose_resnet_18_128x128_lspet.pth"
    size = ("--image-size", 128, 128, "--style", "pytorch")
    assert run_command("convert.py", "--from", original, "--to", weights, *size).returncode == 0
    assert run_command("export.py", "--model-file", weights, "--output", onnx).returncode == 0
    predictor = PosePredictor(onnx)
    page.open()
    page.choose(onnx, real_data / "detectors/nanodet_m.onnx")  # faster than searching each photograph for a person
    people = json.loads((real_data / "lspet/annot/valid.json").read_text())[::78][:10]
    for person in people:
        photograph = real_data / "lspet/images" / person["image"]
        page.choose(photograph)
        height, width = read_image(photograph).shape[:2]
        box = [0.1 * width, 0.05 * height, 0.8 * width, 0.9 * height]
        page.set_box(box)
        assert_same(page.people()[0], predictor, photograph, box)
    page.screenshot("real-network")
    assert not page.errors()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, Path]:
    """A random network for 64x96 crops in the forms that export.py writes."""
    pytest.importorskip("paddle2onnx", reason="without paddle2onnx nothing is exported to ONNX")
    folder = tmp_path_factory.mktemp("kinds")
    model, pose = random_network([64, 96])
    paths = {name: folder / f"{name}.onnx" for name in ("plain", "all", "float16", "int8")}
    everything = GraphOptions(preprocess=True, pixels="rgb", flip_test=True, decode=True)
    export_onnx(model, paths["plain"], pose, {})
    export_onnx(model, paths["all"], replace(pose, graph=everything), {})
    crops = pose.prepare(random_crops((64, 96), 8))

    def measure(file: Path):
        return compare(pose, load_pose_network(file), random_crops((64, 96), 2), InferenceSettings())

    write_float16(paths["plain"], paths["float16"], measure)
    write_int8(paths["plain"], paths["int8"], crops, "noise")
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "all", "float16", "int8"])
def test_every_kind_of_exported_file_finds_the_predictors_keypoints(page, kinds, kind):
    page.open()
    page.choose(kinds[kind])
    assert not page.mistake() and page.text("network").startswith(f"{kind}.onnx")
    photograph, box = ROOT / "images" / "test.jpg", (100, 20, 300, 400)
    page.set_box(box)
    if kind == "int8":  # eighths of a level decide where an untrained network's heatmaps are nearly level
        (pose,) = PosePredictor(kinds[kind])(photograph, [box])
        shifts = np.abs(keypoints_of(page.people()[0])[:, :2] - pose.keypoints).max(axis=1)
        assert (shifts <= SAME_PX).mean() > 0.7
    else:
        assert_same(page.people()[0], PosePredictor(kinds[kind]), photograph, box)
    if kind == "plain":
        page.click("flip")
        settings = InferenceSettings(flip_test=True)
        assert_same(page.people()[0], PosePredictor(kinds[kind], settings=settings), photograph, box)
    assert not page.errors()


def in_node(script: str, given: object = None) -> object:
    """What a script in demo/ prints as JSON; `given` is its variable of that name."""
    if not shutil.which("node"):
        pytest.skip("needs Node")
    read = 'import { readFileSync } from "node:fs"; const given = JSON.parse(readFileSync(0));'
    line = ["node", "--input-type=module", "--eval", read + script]
    finished = subprocess.run(
        line, cwd=ROOT / "demo", input=json.dumps(given), capture_output=True, text=True, check=True
    )
    return json.loads(finished.stdout)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("decoder", ["quarter", "dark"])
def test_crop_frames_and_decoding_are_the_librarys(decoder, unbiased):
    codec = HeatmapCodec((96, 128), (24, 32), 2, unbiased, decoder)
    rng = np.random.default_rng(0)
    heatmaps, _ = codec.encode(rng.uniform(-4, 132, (40, 2)), np.ones(40))
    heatmaps += rng.normal(0, 0.01, heatmaps.shape).astype(np.float32)
    heatmaps[0] = -1
    description = json.loads(json.dumps({**codec.description(), "graph": {"post_process": True}}))
    box = [10.5, 20, 33, 70]
    found = in_node(
        """
        import { cropScaleAndShift, decode } from "./js/pose.js";
        const { heatmaps, description, box } = given;
        const decoded = decode(Float32Array.from(heatmaps), description);
        console.log(JSON.stringify({ ...decoded, frame: cropScaleAndShift(box, description) }));
        """,
        {"heatmaps": heatmaps.ravel().tolist(), "description": description, "box": box},
    )
    keypoints, scores = codec.decode(heatmaps)
    np.testing.assert_allclose(found["keypoints"], keypoints, atol=1e-4)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
    scale, shift = deploy.crop_scale_and_shift(box, codec.image_size_wh, unbiased)
    np.testing.assert_allclose([found["frame"]["scale"], *found["frame"]["shift"]], [scale, *shift])


def test_the_worker_does_one_thing_after_the_other():
    """The first call waits for a runtime that is not there, the second could be refused at once."""
    script = """
    const answered = [];
    globalThis.self = { postMessage: ({ id }) => answered.push(id) };
    await import("./js/engine.js");
    self.onmessage({ data: { id: 1, call: "start", wanted: "wasm" } });
    self.onmessage({ data: { id: 2, call: "poses" } });
    while (answered.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    console.log(JSON.stringify(answered));
    """
    assert in_node(script) == [1, 2]


def test_scores_are_calibrated_as_the_library_does():
    pairs, scores = [0.1, 0.2, 0.5, 0.6, 0.9, 0.95], [0.0, 0.1, 0.3, 0.5, 0.7, 1.2]
    script = """
    import { calibrated } from "./js/pose.js";
    console.log(JSON.stringify(calibrated([...given.scores, NaN], { score_calibration: given.pairs })));
    """
    *found, unknown = in_node(script, {"pairs": pairs, "scores": scores})
    np.testing.assert_allclose(found, np.interp(scores, pairs[::2], pairs[1::2]))
    assert unknown is None  # NaN in JSON: that person gets no pose


def test_a_person_is_searched_for_as_in_the_library():
    """With a network that knows where a person of 40x100 pixels is, and sees them best at twice their height."""
    script = """
    import { findPerson, firstBoxes } from "./js/person.js";
    const joints = [[300, 100], [340, 100], [300, 200], [340, 200]], looks = [];
    const ask = async ([x, y, width, height]) => {
      const side = Math.max(width, height) * 1.25, middle = [x + width / 2, y + height / 2];
      const fit = Math.exp(-Math.abs(Math.log(side / 200)));
      const inside = (joint) => joint.every((value, axis) => Math.abs(value - middle[axis]) < side / 2);
      looks.push(side);
      return { keypoints: joints, scores: joints.map((joint) => inside(joint) * fit) };
    };
    const counts = [1, 0.7, 0.5, 0.35].map((part) =>
      firstBoxes([400, 200]).filter(([, , side]) => Math.abs(side * 1.25 - part * 400) < 1e-9).length);
    const nobody = await findPerson([640, 480], async () => ({ keypoints: joints, scores: [0.1, 0.1, 0.1, 0.1] }));
    console.log(JSON.stringify({ box: await findPerson([640, 480], ask), counts, nobody }));
    """
    found = in_node(script)
    np.testing.assert_allclose(found["box"], [298, 95, 44, 110])  # a tenth larger than the joints
    assert found["counts"] == [1, 2, 3, 10] and found["nobody"] == [0, 0, 640, 480]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "all", "float16", "int8"])
def test_the_runtime_gives_the_same_in_node(kinds, kind):
    """As a row of the parity report: parity.py --runtime Web."""
    if not shutil.which("node") or not (ROOT / "demo/node_modules").is_dir():
        pytest.skip("needs Node and npm ci --prefix demo --ignore-scripts")
    web, native = load_deployed(kinds[kind], "Web"), load_pose_network(kinds[kind])
    images = native.prepare(random_crops((64, 96), 2))
    outputs = [run(images) for run in (web.run, native.run)]
    for found, expected in zip(*(out if isinstance(out, list) else [out] for out in outputs)):
        np.testing.assert_allclose(found, expected, atol=2e-2 if kind == "int8" else 2e-3)


@pytest.mark.slow
def test_a_file_that_the_runtime_refuses_is_said_in_one_line(posenet, tmp_path):
    if not shutil.which("node") or not (ROOT / "demo/node_modules").is_dir():
        pytest.skip("needs Node and npm ci --prefix demo --ignore-scripts")
    import onnx

    network = onnx.load(str(posenet[1]))
    network.graph.node[0].op_type = "Convolution"  # there is no such operator
    onnx.save(network, str(tmp_path / "odd.onnx"))
    exported = load_deployed(tmp_path / "odd.onnx", "Web")
    with pytest.raises(UserError, match="onnxruntime-web fails on .*odd.onnx"):
        exported.run(np.zeros((1, 3, 96, 64), np.float32))


@pytest.mark.slow
def test_first_sight(page):
    """Opened with a network, it shows the example with a pose, and says how; everything has a name."""
    page.open()
    assert re.fullmatch(r"1 person in \d+ ms", page.text("status"))
    threads = page.run("return Math.min(navigator.hardwareConcurrency, 4)")
    assert re.search("1 thread" if threads == 1 else f"{threads} threads", page.text("machine"))
    assert page.run("return crossOriginIsolated")
    names = page.run(
        "return [...document.querySelectorAll('button, input, canvas, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility())"
        ".map(e => [e.outerHTML, e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim()])"
    )
    assert len(names) > 30 and not [html for html, name in names if not name]
    page.screenshot("desktop")
    page.screenshot("phone", width=390)
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    page.click("language")
    assert page.run("return document.documentElement.lang") == "zh-CN"
    page.screenshot("dark-chinese")
    page.click("language")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert not page.errors()


@pytest.mark.slow
def test_a_box_is_moved_by_keyboard_and_drawn_by_pointer(page, posenet):
    from selenium.webdriver import ActionChains, Keys

    predictor, photograph = PosePredictor(posenet[1]), ROOT / "images" / "test.jpg"
    page.open()
    page.set_box((60, 0, 400, 512))
    page.run("document.querySelector('.box').focus()")
    keys = ActionChains(page.driver)
    keys.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).perform()
    ActionChains(page.driver).key_up(Keys.SHIFT).perform()
    page.settle()
    (person,) = page.people()
    np.testing.assert_allclose(person["bbox"], [65.12, 5.12, 394.88, 512])  # a step is a hundredth of 512 pixels
    assert_same(person, predictor, photograph, person["bbox"])

    page.click("draw")
    frame = page.element("frame")
    scale = page.run("return document.getElementById('frame').getBoundingClientRect().width / 512")
    page.run("document.getElementById('frame').scrollIntoView({block: 'center'})")
    drag = ActionChains(page.driver).move_to_element_with_offset(frame, -100, -80).click_and_hold()
    drag.move_by_offset(50, 30).move_by_offset(100, 120).release().perform()
    page.settle()
    first, second = page.people()
    np.testing.assert_allclose(
        second["bbox"], np.array([256 - 100 / scale, 256 - 80 / scale, 150 / scale, 150 / scale]), atol=2
    )
    assert_same(first, predictor, photograph, first["bbox"])
    assert_same(second, predictor, photograph, second["bbox"])

    page.run("document.querySelectorAll('.box')[1].focus()")
    ActionChains(page.driver).send_keys(Keys.DELETE).perform()
    assert len(page.people()) == 1
    page.run("document.querySelector('#joints button').focus()")
    assert "right ankle" in page.text("heatmapCaption")
    picture = cv2.imdecode(np.frombuffer(page.saved("png", ".png"), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (512, 512, 3) and (picture != read_image(photograph)).any()
    assert not page.errors()


@pytest.mark.slow
def test_what_cannot_be_used_gets_one_sentence(page, posenet, tmp_path):
    page.open()

    def refused(content: bytes | Path, name: str) -> str:
        path = tmp_path / name
        path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        page.choose(path)
        assert page.mistake() and "\n" not in page.mistake()
        return page.mistake()

    network = posenet[1].read_bytes()
    assert "neither a picture nor a video" in refused(b"hello", "notes.txt")
    assert "not a picture" in refused(b"hello", "photo.jpg")
    assert "not a video" in refused(b"hello", "clip.mp4")
    assert "not an ONNX file" in refused(b"hello", "net.onnx")
    assert "not an ONNX file" in refused(network[: len(network) // 2], "half.onnx")
    for description, what in (
        ({**tiny_description(), "flip_permutation": [0] * 16}, "flip_permutation"),
        ({**tiny_description(), "heatmap_size_wh": [32, 48]}, "instead of"),
        ("{", "wrongly"),
    ):
        write_tiny_onnx(tmp_path / "stranger.onnx", description)
        assert what in refused(tmp_path / "stranger.onnx", "wrong.onnx")
    import onnx

    silent = onnx.load(str(posenet[1]))
    del silent.metadata_props[:]
    assert "neither describes" in refused(silent.SerializeToString(), "silent.onnx")
    huge = tmp_path / "huge.png"
    cv2.imwrite(str(huge), np.zeros((9000, 9000), np.uint8))
    page.choose(huge)
    assert "9000 × 9000" in page.mistake()
    page.set_box((600, 600, 10, 10))
    assert "does not touch" in page.mistake()
    page.set_box((0, 0, -1, 10))
    assert "above zero" in page.mistake()
    page.click("camera")
    assert "No camera" in page.mistake()
    page.screenshot("mistake")
    page.set_box((0, 0, 500, 500))  # and it still works
    assert not page.mistake() and len(page.people()) == 1
    assert not page.errors()


@pytest.mark.slow
def test_detected_people_and_nobody(page, real_data, tmp_path):
    photograph = next(iter(sorted((real_data / "coco/images/val2017").glob("*.jpg"))))
    page.open()
    page.choose(real_data / "detectors/nanodet_m.onnx")
    assert page.text("detector") == "nanodet"
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((300, 400, 3), 127, np.uint8))
    page.choose(tmp_path / "grey.png")
    assert page.text("status").startswith("Nobody") and page.run("return document.getElementById('json').disabled")
    page.screenshot("nobody")
    boxes, _ = PersonDetector(real_data / "detectors/nanodet_m.onnx")(read_image(photograph))
    page.choose(photograph)
    found = [person["bbox"] for person in page.people()]
    np.testing.assert_allclose(found, boxes, atol=1)
    assert not page.errors()


@pytest.mark.slow
def test_a_video_plays_with_its_poses(page, tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "clip.webm"), cv2.VideoWriter_fourcc(*"VP80"), 5, (256, 256))
    image = cv2.resize(read_image(ROOT / "images" / "test.jpg"), (256, 256))
    for shift in range(10):
        video.write(np.roll(image, shift, axis=1))
    video.release()
    page.open()
    page.choose(tmp_path / "clip.webm")
    shown = "return document.getElementById('view').ariaLabel"
    page.wait(lambda: page.run(shown) == "clip.webm, with the pose of 1 person drawn on it")
    assert not page.mistake() and page.element("play").is_displayed() and not page.errors()
    page.click("play")
    assert page.text("play") == "Play"
    page.screenshot("video")


def test_the_page_is_not_built_over_what_it_is_made_of(tmp_path):
    """Into its own folder, or where the network is: both look like a page that was built before."""
    shutil.copytree(ROOT / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "demo/node_modules/onnxruntime-web").mkdir(parents=True)
    shutil.copytree(ROOT / "demo/js", tmp_path / "site/js")
    (tmp_path / "site/net.onnx").write_bytes(b"a network")
    for arguments in (["--output", "demo"], ["--output", "site", "--model", "site/net.onnx"]):
        line = [sys.executable, "demo/serve.py", "--build-only", *arguments]
        finished = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert finished.returncode == 2 and "name another folder with --output" in finished.stderr
    assert (tmp_path / "demo/serve.py").is_file() and (tmp_path / "site/net.onnx").is_file()


def test_colours_have_the_contrast_that_small_text_needs():
    """WCAG 2: 4.5 to 1, in both themes."""

    def luminance(color: str) -> float:
        channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    style = (ROOT / "demo/style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    )
    for theme in (light, dark):
        theme = {"on-accent": "#ffffff", **theme}
        for text, ground in (
            ("ink", "ground"), ("ink", "paper"), ("ink", "track"), ("soft", "ground"), ("soft", "paper"),
            ("soft", "track"), ("on-accent", "accent"), ("wrong", "wrong-ground"),
        ):  # fmt: skip
            one, other = sorted((luminance(theme[text]), luminance(theme[ground])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (text, ground)
