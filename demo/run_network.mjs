// Runs an ONNX file with the page's onnxruntime-web in Node, for pose_estimation/parity.py: node run_network.mjs FILE
// A request on standard input is a line {"type", "shape"} and the tensor's bytes; an answer a line [shape, ...] and the
// bytes of the outputs, float32.

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(process.argv[2]), { executionProviders: ["wasm"], logSeverityLevel: 3 });
let received = Buffer.alloc(0);
for await (const part of process.stdin) {
  received = Buffer.concat([received, part]);
  const end = received.indexOf("\n");
  if (end < 0) continue;
  const { type, shape } = JSON.parse(received.subarray(0, end));
  const size = shape.reduce((product, side) => product * side, type === "float32" ? 4 : 1);
  if (received.length < end + 1 + size) continue;
  const bytes = new Uint8Array(received.subarray(end + 1, end + 1 + size)).buffer;
  received = received.subarray(end + 1 + size);
  const tensor = new ort.Tensor(type, type === "float32" ? new Float32Array(bytes) : new Uint8Array(bytes), shape);
  const outputs = Object.values(await session.run({ [session.inputNames[0]]: tensor }));
  process.stdout.write(`${JSON.stringify(outputs.map(({ dims }) => dims))}\n`);
  for (const { data } of outputs) process.stdout.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}
