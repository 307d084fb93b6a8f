// Every sentence of the page in both languages, and the joints' names in Chinese.

import { Mistake } from "./mistake.js";

const WORDS = {
  en: {
    other: "中文",
    subtitle: "human poses, found in your own browser",
    hint: "Drop a photograph, a short video or an .onnx file anywhere on this page",
    picture: "Picture", choose: "Choose a file", camera: "Camera", stopCamera: "Stop the camera", example: "Example",
    draw: "Draw a box", find: "Find people", play: "Play", pause: "Pause", seek: "Position in the video",
    box: "Box, in pixels", left: "left", top: "top", width: "width", height: "height", remove: "Remove",
    joints: "Joints", people: "People", nobody: "Nobody yet.",
    person: (number) => `Person ${number}`,
    boxLabel: (number) => `Box of person ${number}. Arrow keys move it, with Shift they change its size, Delete removes it.`,
    threshold: "Draw joints from score", flip: "Flip test: average with the mirrored crop, in twice the time",
    seen: "What the network sees", crop: "Crop", heatmap: "Heatmaps", maxima: "Pose on the crop",
    cropCaption: (width, height) => `The box, grown by a quarter and scaled to ${width} × ${height} pixels`,
    heatmapCaption: (count, columns, rows) => `${count} heatmaps of ${columns} × ${rows} cells, laid over each other; point at a joint for its own`,
    heatmapOf: (joint, score) => `The heatmap of ${joint}: its highest cell is the joint, that cell's value, ${score}, the score`,
    heatmapNone: "This file decodes in its graph and keeps its heatmaps to itself",
    maximaCaption: "The highest cells, a quarter of a cell towards the higher neighbour; then back to the picture",
    saveJson: "Save JSON", savePng: "Save PNG", networks: "Networks", network: "Poses", detector: "People", machine: "Runs on",
    none: "none: load a file of export.py", noDetector: "none: the network looks for one person itself",
    load: "Load .onnx", loadNote: "Any file of export.py describes itself. Detectors: NanoDet, YOLOX, FastestDet.",
    privacy: "Your pictures stay on this machine: nothing is sent anywhere.",
    paper: "Xiao, Wu, Wei: Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018. Their left is orange, their right blue.",
    wasm: (threads) => `processor (wasm, ${threads === 1 ? "1 thread" : `${threads} threads`})`,
    webgpu: () => "graphics processor (WebGPU)",
    oneThread: "one thread only: this host does not send COOP and COEP headers",
    starting: "Starting…", opening: (name) => `Opening ${name}…`, working: "Looking…",
    needsNetwork: "Load a network to find poses.",
    found: (count, ms) => `${count === 0 ? "Nobody found" : count === 1 ? "1 person" : `${count} people`} in ${ms} ms`,
    viewLabel: (name, count) => `${name}, with the pose${count === 1 ? "" : "s"} of ${count === 1 ? "1 person" : `${count} people`} drawn on it`,
    notOnnx: (name) => `${name} is not an ONNX file, or only part of one.`,
    wrongDescription: (name, why) => `${name} describes its network wrongly (${why}); export it again.`,
    notDescribed: (name) => `${name} neither describes its joints nor is a detector known here; write it with export.py.`,
    cannotLoad: (name, why) => `${name} cannot be loaded: ${why}`,
    cannotRun: (name, why) => `The network failed: ${why}`,
    notPicture: (name) => `${name} is not a picture that this browser can read.`,
    hugePicture: (name, width, height) => `${name} is too large (${width} × ${height} pixels); make it smaller than 67 megapixels.`,
    notVideo: (name) => `${name} is not a video that this browser can play.`,
    notKnown: (name) => `${name} is neither a picture nor a video nor an .onnx file.`,
    noCamera: () => "No camera: none is connected, or this page may not use it.",
    badBox: () => "A box needs four numbers, and a width and height above zero.",
    outside: () => "The box does not touch the picture.",
    notReady: () => "Load a network and a picture first.",
    noEngine: (name, why) => `ONNX Runtime does not start in this browser: ${why}`,
    failed: (name, why) => `That did not work: ${why}`,
  },
  zh: {
    other: "English",
    subtitle: "人体姿态，就在你自己的浏览器里算出来",
    hint: "把照片、短视频或 .onnx 文件拖到本页任意位置",
    picture: "图片", choose: "选择文件", camera: "摄像头", stopCamera: "关闭摄像头", example: "示例",
    draw: "画人体框", find: "自动找人", play: "播放", pause: "暂停", seek: "视频位置",
    box: "人体框（像素）", left: "左", top: "上", width: "宽", height: "高", remove: "删除",
    joints: "关键点", people: "人物", nobody: "还没有人。",
    person: (number) => `第 ${number} 人`,
    boxLabel: (number) => `第 ${number} 人的人体框。方向键移动，按住 Shift 改变大小，Delete 删除。`,
    threshold: "显示得分不低于", flip: "翻转测试：与镜像结果取平均，耗时加倍",
    seen: "网络看到的", crop: "裁剪图", heatmap: "热图", maxima: "裁剪图上的姿态",
    cropCaption: (width, height) => `人体框放大四分之一，缩放到 ${width} × ${height} 像素`,
    heatmapCaption: (count, columns, rows) => `${count} 张 ${columns} × ${rows} 的热图叠在一起；指向某个关节可单看一张`,
    heatmapOf: (joint, score) => `${joint}的热图：最高的一格就是关节，该格的值 ${score} 就是得分`,
    heatmapNone: "这个文件在计算图里完成解码，不输出热图",
    maximaCaption: "取最高的一格，再向较高的邻格移四分之一格；最后映射回原图",
    saveJson: "保存 JSON", savePng: "保存 PNG", networks: "网络", network: "姿态", detector: "人体检测", machine: "运行于",
    none: "未加载：请载入 export.py 导出的文件", noDetector: "未加载：由姿态网络自己找一个人",
    load: "载入 .onnx", loadNote: "export.py 导出的文件都自带说明。检测器支持 NanoDet、YOLOX、FastestDet。",
    privacy: "图片不离开这台电脑，不向任何地方发送数据。",
    paper: "Xiao, Wu, Wei: Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018。人物自己的左侧为橙色，右侧为蓝色。",
    wasm: (threads) => `处理器（wasm，${threads} 线程）`,
    webgpu: () => "显卡（WebGPU）",
    oneThread: "只有单线程：网站没有发送 COOP 和 COEP 头",
    starting: "正在启动……", opening: (name) => `正在打开 ${name}……`, working: "正在计算……",
    needsNetwork: "载入网络后即可估计姿态。",
    found: (count, ms) => `${count === 0 ? "没有找到人" : `${count} 人`}，用时 ${ms} 毫秒`,
    viewLabel: (name, count) => `${name}，图上画有 ${count} 人的姿态`,
    notOnnx: (name) => `${name} 不是 ONNX 文件，或者不完整。`,
    wrongDescription: (name, why) => `${name} 自带的说明有误（${why}），请重新导出。`,
    notDescribed: (name) => `${name} 没有关键点说明，也不是已知的检测器；请用 export.py 导出。`,
    cannotLoad: (name, why) => `${name} 无法加载：${why}`,
    cannotRun: (name, why) => `网络运行失败：${why}`,
    notPicture: (name) => `浏览器读不了图片 ${name}。`,
    hugePicture: (name, width, height) => `${name} 太大（${width} × ${height} 像素），请缩小到 6700 万像素以内。`,
    notVideo: (name) => `浏览器播放不了视频 ${name}。`,
    notKnown: (name) => `${name} 既不是图片、视频，也不是 .onnx 文件。`,
    noCamera: () => "没有可用的摄像头：未连接，或本页没有权限。",
    badBox: () => "人体框需要四个数，宽和高大于零。",
    outside: () => "人体框不在图片内。",
    notReady: () => "请先载入网络和图片。",
    noEngine: (name, why) => `ONNX Runtime 在这个浏览器里启动失败：${why}`,
    failed: (name, why) => `出错了：${why}`,
  },
};

const SIDES = { left: "左", right: "右" };
const PARTS = {
  ankle: "踝", knee: "膝", hip: "髋", wrist: "腕", elbow: "肘", shoulder: "肩", eye: "眼", ear: "耳", nose: "鼻",
  pelvis: "骨盆", thorax: "胸", upper_neck: "颈", neck: "颈", head_top: "头顶", head: "头",
};

export let language = "en";

export function setLanguage(name) {
  language = name in WORDS ? name : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", word(element.dataset.label));
}

export function word(name, ...details) {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...details) : found;
}

/** The sentence for an error about something of this name. */
export function sentence(error, name = "") {
  if (error instanceof Mistake) return word(error.sentence, name, ...error.details);
  return word("failed", name, error.message);
}

export function jointName(name) {
  const plain = name.replaceAll("_", " ");
  if (language !== "zh") return plain;
  const [, side, part] = name.match(/^(?:(left|right)_)?(.*)$/);
  return part in PARTS ? (SIDES[side] ?? "") + PARTS[part] : plain;
}
