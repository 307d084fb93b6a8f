// The page: what is shown, and what happens when somebody does something. Computing is the worker's, engine.js.

import { editBoxes } from "./boxes.js";
import { COLORS, cropCanvas, drawHeatmap, drawPose, heatmapCanvas, sidesOf } from "./drawing.js";
import { Mistake } from "./mistake.js";
import { boxOf } from "./person.js";
import { poseScore } from "./pose.js";
import { jointName, language, sentence, setLanguage, word } from "./words.js";

const $ = (id) => document.getElementById(id);
const HOVER_PX = 14; // so near is pointing at a joint
const FOLLOW_SCORE = 0.3; // below it the person counts as lost
const DETECT_EVERY = 15; // frames of a video

let description = null, networkName = "", detectorFamily = null, machine = null;
let source = null; // {name, width, height, image}: image is what is painted, live or not
let people = [], selected = 0, hovered = -1, pinned = -1;
let changed = null; // the person whose box is newer than the pose
let drawing = false, live = 0; // live: number of the running loop, 0 when there is none
let message = ["starting"]; // of the status line, in words

// ---- the worker ------------------------------------------------------------------------------------------------

const worker = new Worker(new URL("engine.js", import.meta.url), { type: "module" });
const waiting = new Map();
worker.onmessage = ({ data: { id, result, mistake, details } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (mistake) reject(new Mistake(mistake, ...details));
  else resolve(result);
};
worker.onerror = (event) => complain(new Mistake("noEngine", event.message ?? ""));

function ask(call, content = {}, transfer = []) {
  return new Promise((resolve, reject) => {
    const id = ++ask.count;
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, call, ...content }, transfer);
  });
}
ask.count = 0;

/** Do something while assistive technology, and whoever tests the page, sees that it is busy. */
async function during(work) {
  during.count++;
  $("stage").ariaBusy = "true";
  try {
    return await work();
  } finally {
    if (!--during.count) $("stage").ariaBusy = "false";
  }
}
during.count = 0;

// ---- files -----------------------------------------------------------------------------------------------------

async function openFiles(files) {
  hush();
  for (const file of files) {
    try {
      if (/\.onnx$/i.test(file.name)) await openNetwork(file.name, await file.arrayBuffer());
      else if (file.type.startsWith("image/")) await openPhotograph(file, file.name);
      else if (file.type.startsWith("video/")) await openVideo(file);
      else throw new Mistake("notKnown");
    } catch (error) {
      complain(error, file.name);
    }
  }
}

async function openNetwork(name, bytes) {
  const before = description ? message : ["needsNetwork"];
  say("opening", name);
  const opened = await ask("open", { bytes }, [bytes]).finally(() => say(...before));
  if (opened.kind === "network") {
    ({ description } = opened);
    networkName = name;
    $("flip").checked = description.graph.flip_test;
    machine.backend = opened.backend;
    people = [];
    pinned = hovered = -1;
  } else detectorFamily = opened.family;
  listNetworks();
  await findPeople();
}

async function openPhotograph(blob, name, box = null) {
  stopLive();
  const { width, height } = await ask("look", { source: blob });
  const image = await createImageBitmap(blob);
  setSource({ name, width, height, image });
  if (!box || !description || detectorFamily) return findPeople();
  changeBox(0, box);
  people[0].guessed = true;
  await followBoxes();
}

async function openVideo(file) {
  stopLive();
  const video = $("video");
  video.srcObject = null;
  video.src = URL.createObjectURL(file);
  try {
    await video.play();
  } catch {
    throw new Mistake("notVideo");
  }
  $("player").hidden = false;
  $("seek").hidden = !Number.isFinite(video.duration);
  follow(file.name);
}

async function openCamera() {
  if (live && $("video").srcObject) return stopLive();
  stopLive();
  const video = $("video");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    await video.play();
  } catch {
    video.srcObject = null;
    throw new Mistake("noCamera");
  }
  follow(word("camera"));
  listControls();
}

// ---- live pictures ---------------------------------------------------------------------------------------------

/** Find poses in the video's frames, one after the other, until another source is opened. */
async function follow(name) {
  const video = $("video"), mine = ++follow.count;
  live = mine;
  let image = null, shownAt = -1;
  for (let frame = 0; live === mine; frame++) {
    await new Promise(requestAnimationFrame);
    if (!video.videoWidth || (video.currentTime === shownAt && !video.srcObject)) continue;
    shownAt = video.currentTime;
    if (image?.width !== video.videoWidth || image?.height !== video.videoHeight) {
      image = new OffscreenCanvas(video.videoWidth, video.videoHeight);
      setSource({ name, width: image.width, height: image.height, image });
    }
    try {
      const bitmap = await createImageBitmap(video);
      const next = new OffscreenCanvas(bitmap.width, bitmap.height);
      next.getContext("2d").drawImage(bitmap, 0, 0);
      await ask("look", { source: bitmap }, [bitmap]);
      const boxes = detectorFamily && frame % DETECT_EVERY === 0 ? [] : people.map(nextBox).filter(Boolean);
      const options = { boxes: boxes.length ? boxes : null, flipTest: $("flip").checked, live: true };
      const found = description ? await ask("poses", options) : { people: [] };
      if (live !== mine) return;
      source.image = next;
      show(found);
    } catch (error) {
      stopLive();
      complain(error, name);
    }
    if (Number.isFinite(video.duration)) $("seek").value = (1000 * video.currentTime) / video.duration;
  }
}
follow.count = 0;

/** Where a person of the last frame is looked for in this one; null if lost. */
function nextBox(person) {
  return poseScore(person.scores) >= FOLLOW_SCORE ? boxOf(person, [source.width, source.height]) : null;
}

function stopLive() {
  live = 0;
  const video = $("video");
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
  $("player").hidden = true;
  listControls();
}

// ---- poses -----------------------------------------------------------------------------------------------------

function setSource(made) {
  source = made;
  people = [];
  selected = 0;
  hovered = pinned = -1;
  $("stage").classList.add("filled");
  $("frame").style.aspectRatio = `${made.width} / ${made.height}`;
  $("frame").style.setProperty("--shape", made.width / made.height);
  listControls();
  listPeople();
  paint();
}

/** Look for people in the picture: by the detector, or else by the network itself. */
async function findPeople() {
  if (!description || !source) return say(description || !machine ? "" : "needsNetwork");
  say("working");
  const found = await ask("poses", { boxes: null, flipTest: $("flip").checked });
  for (const person of found.people) person.guessed = !detectorFamily;
  show(found);
}

/** Give a person a new box, or (index: their number) add one; returns the person's index. Their pose follows. */
function changeBox(index, box) {
  const [x, y, width, height] = box;
  if (!box.every(Number.isFinite) || width <= 0 || height <= 0) return complain(new Mistake("badBox")), index;
  if (x >= source.width || y >= source.height || x + width <= 0 || y + height <= 0) return complain(new Mistake("outside")), index;
  hush();
  if (index >= people.length) {
    people = people.filter(({ guessed }) => !guessed); // whom the network boxed itself makes room for a drawn box
    index = people.push({ boxScore: 1, keypoints: [], scores: [] }) - 1;
  }
  people[index] = { ...people[index], box, guessed: false };
  selected = index;
  listBoxes();
  changed = people[index];
  if (description && !during.count) trying(followBoxes)();
  return index;
}

/** Compute the pose of the person whose box changed, until no newer change waits. */
async function followBoxes() {
  while (changed) {
    const { box } = changed;
    changed = null;
    const found = await ask("poses", { boxes: [box], flipTest: $("flip").checked });
    people = people.map((person) => (person.box === box ? { ...person, ...found.people[0] } : person));
    show({ people, ms: found.ms });
  }
}

function removePerson(index) {
  people.splice(index, 1);
  selected = Math.min(selected, Math.max(0, people.length - 1));
  show({ people });
  boxes.focus(selected);
}

function show({ people: found, ms }) {
  people = found;
  selected = Math.min(selected, Math.max(0, people.length - 1));
  if (ms !== undefined) say("found", people.length, Math.round(ms));
  listPeople();
  paint();
}

// ---- what is shown ---------------------------------------------------------------------------------------------

function say(...words) {
  message = words;
  $("status").textContent = words[0] ? word(...words) : "";
}

function complain(error, name = "") {
  console.debug(error);
  $("mistake").textContent = sentence(error, name);
  $("mistake").hidden = false;
}

function hush() {
  $("mistake").hidden = true;
}

const marked = () => (hovered >= 0 ? hovered : pinned);

function paint() {
  if (!source) return;
  const canvas = $("view"), ratio = window.devicePixelRatio, shown = $("frame").getBoundingClientRect();
  const width = Math.max(1, Math.round(shown.width * ratio)), height = Math.max(1, Math.round(shown.height * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), scale = width / source.width;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, source.width, source.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source.image, 0, 0);
  const person = people[selected];
  if (person?.heatmaps && marked() >= 0) {
    context.save();
    const { scale: zoom, shift } = person.frame;
    context.transform(1 / zoom, 0, 0, 1 / zoom, -shift[0] / zoom, -shift[1] / zoom);
    drawHeatmap(context, heatmapCanvas(person.heatmaps, description.heatmap_size_wh, marked()), description.image_size_wh);
    context.restore();
  }
  people.forEach((one, index) => {
    if (one.scores.length) drawPose(context, one, description.skeleton, minScore(), limbWidth(one), index === selected ? marked() : -1);
  });
  canvas.ariaLabel = word("viewLabel", source.name, people.length);
  paintCrop();
  listBoxes();
}

/** Thickness follows the person's size in the picture, but stays readable on the screen. */
function limbWidth({ keypoints }) {
  const spread = [0, 1].map((axis) => Math.max(...keypoints.map((point) => point[axis])) - Math.min(...keypoints.map((point) => point[axis])));
  const pixel = source.width / Math.max(1, $("frame").clientWidth);
  return Math.min(Math.max(Math.max(...spread) / 75, 1.6 * pixel), 6 * pixel);
}

const minScore = () => Number($("threshold").value);

/** Crop, heatmaps and pose side by side: the method in three pictures. */
function paintCrop() {
  const person = people[selected];
  $("seen").hidden = !person?.crop;
  if (!person?.crop) return;
  const { skeleton, image_size_wh: size, heatmap_size_wh: cells } = description, joint = marked();
  const pixels = cropCanvas(person.crop, size);
  const begin = (id, smooth) => {
    const canvas = $(id), zoom = Math.ceil(384 / size[0]);
    Object.assign(canvas, { width: size[0] * zoom, height: size[1] * zoom });
    const context = canvas.getContext("2d");
    context.setTransform(zoom, 0, 0, zoom, 0, 0);
    context.imageSmoothingEnabled = smooth;
    context.drawImage(pixels, 0, 0);
    return context;
  };
  begin("crop", false); // its pixels, as they are
  $("cropCaption").textContent = word("cropCaption", ...size);
  const heatmap = begin("heatmap", true);
  heatmap.fillStyle = "rgb(0 0 0 / 60%)";
  heatmap.fillRect(0, 0, ...size);
  if (person.heatmaps) drawHeatmap(heatmap, heatmapCanvas(person.heatmaps, cells, joint), size);
  $("heatmapCaption").textContent = !person.heatmaps ? word("heatmapNone")
    : joint < 0 ? word("heatmapCaption", skeleton.joints.length, ...cells)
      : word("heatmapOf", jointName(skeleton.joints[joint]), person.scores[joint].toFixed(2));
  const { scale, shift } = person.frame;
  const keypoints = person.keypoints.map(([x, y]) => [x * scale + shift[0], y * scale + shift[1]]);
  drawPose(begin("maxima", true), { keypoints, scores: person.scores }, skeleton, minScore(), size[0] / 64, joint);
}

function listPeople() {
  $("nobody").hidden = people.length > 0;
  const group = $("people");
  group.hidden = people.length < 2;
  group.replaceChildren(...people.map(({ scores }, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${word("person", index + 1)} · ${poseScore(scores).toFixed(2)}`;
    button.setAttribute("aria-pressed", index === selected);
    button.onclick = () => select(index);
    return button;
  }));
  listJoints();
}

/** One row a joint; rows are made once for a skeleton, so that focus stays where it is while scores change. */
function listJoints() {
  const list = $("joints"), person = people[selected], skeleton = description?.skeleton;
  list.hidden = !person?.scores.length;
  if (list.hidden) return;
  const key = `${language} ${skeleton.joints}`;
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    const sides = sidesOf(skeleton);
    list.replaceChildren(...skeleton.joints.map((name, joint) => {
      const row = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.innerHTML = "<i></i><span></span><b><s></s></b><output></output>";
      button.style.setProperty("--side", COLORS[sides[joint]]);
      button.querySelector("span").textContent = jointName(name);
      for (const on of ["pointerenter", "focus"]) button.addEventListener(on, () => hover(joint));
      for (const off of ["pointerleave", "blur"]) button.addEventListener(off, () => hover(-1));
      button.onclick = () => {
        pinned = pinned === joint ? -1 : joint;
        hover(hovered);
      };
      row.append(button);
      return row;
    }));
  }
  [...list.children].forEach((row, joint) => {
    const score = person.scores[joint], button = row.firstChild;
    button.setAttribute("aria-pressed", pinned === joint);
    button.classList.toggle("below", score < minScore());
    button.classList.toggle("marked", marked() === joint);
    button.querySelector("s").style.width = `${100 * Math.min(Math.max(score, 0), 1)}%`;
    button.querySelector("output").textContent = score.toFixed(2);
  });
}

function hover(joint) {
  hovered = joint;
  listJoints();
  paint();
}

function select(index) {
  selected = index;
  listPeople();
  paint();
}

function listBoxes() {
  boxes.show(people.map(({ box }) => box), selected);
  const person = people[selected], inputs = $("edges").querySelectorAll("input");
  $("edges").disabled = !person || live > 0;
  inputs.forEach((input, index) => {
    if (document.activeElement !== input) input.value = person ? Number(person.box[index].toFixed(2)) : "";
  });
  for (const id of ["json", "png"]) $(id).disabled = !people.length;
}

function listControls() {
  $("camera").textContent = word(live && $("video").srcObject ? "stopCamera" : "camera");
  $("camera").setAttribute("aria-pressed", Boolean(live && $("video").srcObject));
  $("play").textContent = word($("video").paused ? "play" : "pause");
  $("draw").setAttribute("aria-pressed", drawing);
  $("draw").disabled = $("find").disabled = !source || live > 0;
  $("frame").classList.toggle("drawing", drawing);
}

function listNetworks() {
  if (description) {
    const [width, height] = description.image_size_wh, depth = description.config?.["MODEL.DEPTH"];
    $("network").textContent = [networkName, depth && `PoseResNet-${depth}`, `${width} × ${height}`,
      `${description.skeleton.name}, ${description.skeleton.joints.length}`, description.precision].filter(Boolean).join(" · ");
    $("flip").disabled = description.graph.decode || description.graph.flip_test;
  }
  if (detectorFamily) $("detector").textContent = detectorFamily;
  if (!machine) return;
  $("machine").textContent = word(machine.backend, machine.threads) + (crossOriginIsolated ? "" : ` (${word("oneThread")})`);
}

// ---- to take away ----------------------------------------------------------------------------------------------

/** The people in the form that infer.py writes. */
function record() {
  return {
    image: source.name, size: [source.width, source.height], model_file: networkName,
    people: people.filter(({ scores }) => scores.length).map(({ box, boxScore, keypoints, scores }) => ({
      bbox: box, box_score: boxScore, pose_score: poseScore(scores), score: boxScore * poseScore(scores),
      keypoints: Object.fromEntries(description.skeleton.joints.map((name, joint) => [name, { x: keypoints[joint][0], y: keypoints[joint][1], score: scores[joint] }])),
    })),
  };
}

async function drawn() {
  const canvas = new OffscreenCanvas(source.width, source.height), context = canvas.getContext("2d");
  context.drawImage(source.image, 0, 0);
  for (const person of people) if (person.scores.length) drawPose(context, person, description.skeleton, minScore(), limbWidth(person));
  return canvas.convertToBlob({ type: "image/png" });
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${source.name.replace(/\.\w+$/, "")}_pose.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- what people do --------------------------------------------------------------------------------------------

const trying = (work) => async (event) => {
  hush();
  try {
    await during(() => work(event));
  } catch (error) {
    complain(error, networkName);
  }
};

const boxes = editBoxes($("frame"), $("boxes"), {
  size: () => source && [source.width, source.height],
  enabled: () => source && !live,
  label: (number) => word("boxLabel", number),
  onChange: (index, box) => changeBox(index, box),
  onSelect: (index) => index !== selected && index < people.length && select(index),
  onRemove: removePerson,
  drawing: () => drawing,
});

$("choose").onclick = $("load").onclick = () => $("files").click();
$("files").onchange = ({ target }) => {
  const chosen = [...target.files];
  target.value = "";
  during(() => openFiles(chosen));
};
$("camera").onclick = trying(openCamera);
$("find").onclick = trying(findPeople);
$("draw").onclick = ({ detail }) => {
  if (detail === 0) { // by keyboard: a box in the middle, to be moved with the arrow keys
    changeBox(people.length, [source.width / 4, source.height / 4, source.width / 2, source.height / 2]);
    boxes.focus(selected);
  } else drawing = !drawing;
  listControls();
};
$("frame").addEventListener("pointerup", () => {
  drawing = false;
  listControls();
});
$("edges").addEventListener("change", () => {
  changeBox(selected, [...$("edges").querySelectorAll("input")].map((input) => (input.value === "" ? NaN : Number(input.value))));
});
$("remove").onclick = () => removePerson(selected);
$("threshold").oninput = () => {
  $("level").textContent = minScore().toFixed(2);
  listJoints();
  paint();
};
$("flip").onchange = trying(async () => {
  if (live || !people.length) return;
  const before = people, found = await ask("poses", { boxes: before.map(({ box }) => box), flipTest: $("flip").checked });
  show({ ...found, people: found.people.map((person, index) => ({ ...before[index], ...person, boxScore: before[index].boxScore })) });
});
$("play").onclick = () => ($("video").paused ? $("video").play() : $("video").pause());
for (const change of ["play", "pause"]) $("video").addEventListener(change, listControls);
$("seek").oninput = ({ target }) => ($("video").currentTime = ($("video").duration * target.value) / 1000);
$("json").onclick = () => save(new Blob([JSON.stringify(record(), null, 1)], { type: "application/json" }), "json");
$("png").onclick = trying(async () => save(await drawn(), "png"));
$("frame").addEventListener("pointermove", (event) => {
  if (!source || boxes.isDragging() || event.pointerType === "touch") return;
  const place = $("frame").getBoundingClientRect(), scale = place.width / source.width;
  let nearest = [HOVER_PX, -1, -1];
  people.forEach(({ keypoints, scores }, index) => keypoints.forEach(([x, y], joint) => {
    const distance = Math.hypot(place.left + x * scale - event.clientX, place.top + y * scale - event.clientY);
    if (scores[joint] >= minScore() && distance < nearest[0]) nearest = [distance, index, joint];
  }));
  const [, index, joint] = nearest;
  if (joint >= 0 && index !== selected) select(index);
  if (joint !== hovered) hover(joint);
});
$("frame").addEventListener("pointerleave", () => hovered >= 0 && hover(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  during(() => openFiles([...event.dataTransfer.files]));
});
$("language").onclick = () => {
  localStorage.setItem("language", language === "zh" ? "en" : "zh");
  speak();
};
new ResizeObserver(paint).observe($("frame"));

function speak() {
  setLanguage(localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
  $("language").textContent = word("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  $("level").textContent = minScore().toFixed(2);
  listControls();
  listNetworks();
  listPeople();
  say(...message);
  paint();
}

async function begin() {
  speak();
  try {
    const parameters = new URLSearchParams(location.search);
    machine = await ask("start", { wanted: parameters.get("backend") });
    listNetworks();
    const { network, example } = await (await fetch("site.json")).json(); // written by serve.py
    const openExample = async () => openPhotograph(await (await fetch(example.file)).blob(), example.file, example.box);
    $("example").onclick = trying(openExample);
    if (network) {
      await openNetwork(network, await (await fetch(encodeURIComponent(network))).arrayBuffer());
      await openExample();
    } else say("needsNetwork");
  } catch (error) {
    complain(error);
  }
  document.body.dataset.ready = "yes";
}
during(begin);
