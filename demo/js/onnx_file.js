// What an ONNX file says of itself: the description that export.py stores in its metadata_props.
// onnxruntime-web does not hand out metadata, so the few bytes of protobuf around it are read here.

import { Mistake } from "./mistake.js";

const METADATA_KEY = "simplepose";
const METADATA_PROPS = 14, KEY = 1, VALUE = 2; // field numbers of ModelProto and StringStringEntryProto
const MULTIPLE = 32, MAX_SIDE = 4096, MAX_JOINTS = 1000, MAX_SIGMA = 64;
const PLAIN_GRAPH = {
  preprocess: false, pixels: "bgr", flip_test: false, shift_heatmap: true, decode: false, post_process: true,
  dynamic_size: false,
};

/** The description in a file (Uint8Array), checked; null if there is none. */
export function readDescription(bytes) {
  let text;
  try {
    text = metadata(bytes).get(METADATA_KEY);
  } catch {
    throw new Mistake("notOnnx");
  }
  if (text === undefined) return null;
  try {
    const description = JSON.parse(text);
    description.graph = { ...PLAIN_GRAPH, ...description.graph }; // older files have none
    check(description);
    return { unbiased: false, decoder: "quarter", ...description };
  } catch (error) {
    throw new Mistake("wrongDescription", String(error.message).slice(0, 200));
  }
}

function metadata(bytes) {
  const text = new TextDecoder("utf-8", { fatal: true });
  const entries = [...fields(bytes)].filter(([number]) => number === METADATA_PROPS);
  return new Map(entries.map(([, entry]) => {
    const pair = new Map(fields(entry));
    return [text.decode(pair.get(KEY)), text.decode(pair.get(VALUE))];
  }));
}

/** Number and content of each field of a protobuf message that holds bytes. */
function* fields(data) {
  let position = 0;
  const varint = () => {
    for (let value = 0, factor = 1; factor < 2 ** 64; factor *= 128) {
      if (position >= data.length) throw new Error("cut off");
      const byte = data[position++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    throw new Error("not protobuf");
  };
  while (position < data.length) {
    const tag = varint(), wireType = tag % 8;
    if (wireType === 2) {
      const size = varint();
      if (position + size > data.length) throw new Error("cut off");
      yield [Math.floor(tag / 8), data.subarray(position, position + size)];
      position += size;
    } else if (wireType === 0) varint();
    else if (wireType === 1) position += 8;
    else if (wireType === 5) position += 4;
    else throw new Error("not protobuf");
  }
}

/** Refuse what a stranger may have written; the same rules as deploy.py's. */
function check(description) {
  const require = (holds, otherwise) => {
    if (!holds) throw new Error(otherwise);
  };
  const { skeleton, flip_permutation: permutation, input, graph } = description;
  const { joints } = skeleton;
  require(joints.length > 0 && joints.length <= MAX_JOINTS && joints.every((name) => typeof name === "string"), "joints");
  require([...permutation].sort((a, b) => a - b).every((joint, index) => joint === index)
    && permutation.length === joints.length, "flip_permutation");
  for (const pair of [...skeleton.pairs, ...skeleton.limbs]) {
    require(pair.length === 2 && pair.every((name) => joints.includes(name)), "pairs, limbs");
  }
  const [width, height] = description.image_size_wh, [columns, rows] = description.heatmap_size_wh;
  require([width, height, columns, rows].every((side) => Number.isInteger(side) && side > 0 && side <= MAX_SIDE), "sizes");
  require(width % MULTIPLE === 0 && height % MULTIPLE === 0 && width * rows === height * columns, "sizes");
  require(["rgb", "bgr"].includes(input.channels) && ["rgb", "bgr"].includes(graph.pixels), "rgb, bgr");
  require(input.mean.length === 3 && input.std.length === 3, "mean, std");
  require([...input.mean, ...input.std, input.divisor].every((number) => number > 0 && number < 1e6), "mean, std, divisor");
  require(typeof (description.unbiased ?? false) === "boolean", "unbiased");
  require(["quarter", "dark"].includes(description.decoder ?? "quarter"), "decoder");
  require(description.sigma > 0 && description.sigma <= MAX_SIGMA, "sigma");
  const pairs = description.score_calibration ?? [];
  const rises = (start, apart) => pairs.every((value, at) => at % 2 !== start || at < 2 || value - pairs[at - 2] >= apart);
  require(pairs.length % 2 === 0 && pairs.every((number) => Math.abs(number) < 1e6), "score_calibration");
  require(pairs.every((number, at) => typeof number === "number" && (at % 2 === 0 || (number >= 0 && number <= 1))), "score_calibration");
  require(rises(0, Number.MIN_VALUE) && rises(1, 0), "score_calibration");
  require(Object.keys(graph).every((name) => name in PLAIN_GRAPH && typeof graph[name] === typeof PLAIN_GRAPH[name]), "graph");
}
