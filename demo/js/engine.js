// The worker: holds the networks and the current picture, and computes, so that the page never freezes.
// Messages are {id, call, ...arguments}; answers {id, result} or {id, mistake, details}.

import { detectorBoxes, detectorInput, recognise } from "./detectors.js";
import { Mistake } from "./mistake.js";
import { readDescription } from "./onnx_file.js";
import { findPerson } from "./person.js";
import { averageWithMirrored, calibrated, crop, cropScaleAndShift, decode, networkInput } from "./pose.js";

const MAX_THREADS = 4;
const MAX_PIXELS = 2 ** 26; // of a picture; beyond, browsers fail one by one
const UNCHANGED = { colorSpaceConversion: "none", premultiplyAlpha: "none" }; // pixels as OpenCV reads them

let ort, backend; // "webgpu" or "wasm"
let network, detector, picture; // picture: {data, width, height, canvas}

const calls = {
  /** Load ONNX Runtime. `wanted`: "wasm" leaves a graphics processor alone, "webgpu" takes even an emulated one. */
  async start({ wanted }) {
    const adapter = wanted === "wasm" ? null : await navigator.gpu?.requestAdapter().catch(() => null);
    backend = adapter && (wanted === "webgpu" || !adapter.info?.isFallbackAdapter) ? "webgpu" : "wasm";
    ort = await import(backend === "webgpu" ? "../ort/ort.webgpu.min.mjs" : "../ort/ort.wasm.min.mjs");
    ort.env.wasm.wasmPaths = new URL("../ort/", import.meta.url).href;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
    return { backend, threads: ort.env.wasm.numThreads };
  },

  /** Open a network or a detector of a file's bytes (ArrayBuffer). */
  async open({ bytes }) {
    const description = readDescription(new Uint8Array(bytes));
    const start = performance.now();
    const opened = await openSession(bytes);
    const outputs = opened.session.outputMetadata.map(({ shape }) => shape);
    if (description) {
      const candidate = { ...opened, description };
      await run(candidate, { data: blankInput(description), shape: inputShape(description) }); // compiles, and checks
      await network?.session.release();
      network = candidate;
      return { kind: "network", description, backend: opened.backend, ms: performance.now() - start };
    }
    const family = recognise(outputs);
    if (!family) {
      await opened.session.release();
      throw new Mistake("notDescribed");
    }
    await detector?.session.release();
    detector = { ...opened, family };
    return { kind: "detector", family, backend: opened.backend, ms: performance.now() - start };
  },

  /** Make a Blob or an ImageBitmap the current picture. */
  async look({ source }) {
    const bitmap = source instanceof Blob ? await decodeFile(source) : source;
    const { width, height } = bitmap;
    let canvas = picture?.canvas;
    if (canvas?.width !== width || canvas?.height !== height) canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.clearRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    try {
      picture = { data: context.getImageData(0, 0, width, height).data, width, height, canvas };
    } catch {
      throw new Mistake("hugePicture", width, height);
    }
    return { width, height };
  },

  /** The poses in boxes of the current picture; without boxes people are found first. */
  async poses({ boxes, flipTest, live }) {
    if (!network || !picture) throw new Mistake("notReady");
    const start = performance.now();
    const ask = (box) => poseInBox(box, flipTest);
    let people;
    if (boxes) people = await inTurn(boxes, ask);
    else if (detector) {
      const found = await detect();
      people = (await inTurn(found, ({ box }) => ask(box))).map((person, index) => ({ ...person, boxScore: found[index].score }));
    } else people = [await ask(await findPerson([picture.width, picture.height], (box) => poseInBox(box, false), live))];
    return { people: people.filter(({ scores }) => scores.every(Number.isFinite)), ms: performance.now() - start };
  },
};

// One call after the other: no other picture or network takes the place of one that is being worked on.
let last = Promise.resolve();
self.onmessage = ({ data }) => (last = last.then(() => answer(data)));

async function answer({ id, call, ...rest }) {
  try {
    self.postMessage({ id, result: await calls[call](rest) });
  } catch (error) {
    const known = error instanceof Mistake;
    self.postMessage({ id, mistake: known ? error.sentence : "failed", details: known ? error.details : [String(error.message ?? error)] });
  }
}

async function inTurn(items, work) {
  const made = [];
  for (const item of items) made.push(await work(item));
  return made;
}

async function decodeFile(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, UNCHANGED);
  } catch {
    throw new Mistake("notPicture");
  }
  if (bitmap.width * bitmap.height <= MAX_PIXELS) return bitmap;
  const { width, height } = bitmap;
  bitmap.close();
  throw new Mistake("hugePicture", width, height);
}

async function openSession(bytes) {
  for (const provider of backend === "webgpu" ? ["webgpu", "wasm"] : ["wasm"]) {
    try {
      const session = await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: [provider], logSeverityLevel: 3 });
      return { session, backend: provider };
    } catch (error) {
      if (provider === "wasm") throw new Mistake("cannotLoad", String(error.message).split("\n")[0].slice(0, 200));
    }
  }
}

const inputShape = ({ image_size_wh: [width, height], graph }) => (graph.preprocess ? [1, height, width, 3] : [1, 3, height, width]);

function blankInput({ image_size_wh: [width, height], graph }) {
  return graph.preprocess ? new Uint8Array(width * height * 3) : new Float32Array(width * height * 3);
}

/** The outputs of a network: heatmaps, or keypoints and scores. */
async function run({ session, description }, { data, shape }) {
  const [joints, [columns, rows]] = [description.skeleton.joints.length, description.heatmap_size_wh];
  const expected = description.graph.decode ? [[1, joints, 2], [1, joints]] : [[1, joints, rows, columns]];
  let outputs;
  try {
    outputs = await session.run({ [session.inputNames[0]]: new ort.Tensor(data, shape) });
  } catch (error) {
    throw new Mistake("cannotRun", String(error.message).split("\n")[0].slice(0, 200));
  }
  const found = session.outputNames.map((name) => outputs[name]);
  if (String(found.map(({ dims }) => dims.join("x"))) !== String(expected.map((dims) => dims.join("x")))) {
    throw new Mistake("wrongDescription", `${found.map(({ dims }) => dims.join("x"))} instead of ${expected.map((dims) => dims.join("x"))}`);
  }
  return found.map((tensor) => tensor.data);
}

async function poseInBox(box, flipTest) {
  const { description } = network, size = description.image_size_wh;
  const frame = cropScaleAndShift(box, description);
  const pixels = crop(picture, frame, size);
  const outputs = await run(network, networkInput(pixels, size, description));
  let heatmaps = null, found;
  if (description.graph.decode) {
    const [points, scores] = outputs;
    found = { scores: [...scores], keypoints: Array.from(scores, (_, joint) => [points[2 * joint], points[2 * joint + 1]]) };
  } else {
    [heatmaps] = outputs;
    if (flipTest && !description.graph.flip_test) {
      const [mirrored] = await run(network, networkInput(pixels, size, description, true));
      averageWithMirrored(heatmaps, mirrored, description);
    }
    found = decode(heatmaps, description);
  }
  const { scale, shift } = frame;
  const keypoints = found.keypoints.map(([x, y]) => [(x - shift[0]) / scale, (y - shift[1]) / scale]);
  return { box, boxScore: 1, keypoints, scores: calibrated(found.scores, description), heatmaps, crop: pixels, frame };
}

async function detect() {
  const input = detectorInput(picture, detector.family, detector.session.inputMetadata[0].shape);
  const outputs = await detector.session.run({ [detector.session.inputNames[0]]: new ort.Tensor(input.data, input.shape) });
  return detectorBoxes(detector.family, detector.session.outputNames.map((name) => outputs[name]), input, picture);
}
