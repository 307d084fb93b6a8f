# %% [markdown] lang="en"
# # Your own keypoints in thirty minutes: cat faces
# Keypoints are not only joints of people. Here a network learns five points of a cat's face, and from them how far the cat tilts its head.
# The same four steps serve for hands, animals or machine parts: skeleton, annotations, training, use. Only the last one needs Python.

# %% [markdown] lang="zh"
# # 三十分钟用上自己的关键点：猫脸
# 关键点不只是人体关节。这里让网络学会猫脸上的五个点，再由它们算出猫的头歪了多少。
# 手、动物、机器零件都是同样的四步：骨架、标注、训练、使用。只有最后一步需要写 Python。

# %% setup

# %% [markdown] lang="en"
# ## 1. The skeleton, in YAML
# `pairs` are what a mirror exchanges; left and right are the cat's own, so its left eye is on the right of the picture.

# %% [markdown] lang="zh"
# ## 1. 骨架：一个 YAML 文件
# `pairs` 是镜像时要互换的点；左右以猫自己为准，所以左眼在图的右边。

# %%
import json

import cv2
import matplotlib.pyplot as plt
import numpy as np

print(Path("experiments/custom/cat_face.yaml").read_text())
work = Path("output/notebooks/cats")
for folder in ("annotations", "images/train", "images/val"):
    (work / folder).mkdir(parents=True, exist_ok=True)

# %% [markdown] lang="en"
# ## 2. Pictures and annotations, in COCO's form
# Real data comes from a labelling tool. Here a few lines draw cats and know where the points are.

# %% [markdown] lang="zh"
# ## 2. 图片和标注：COCO 格式
# 真实数据来自标注工具。这里用几行代码画猫，点在哪里自然知道。

# %%
JOINTS = ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
FACE = np.array([[0, 0.25], [0.38, -0.15], [-0.38, -0.15], [0.72, -1.05], [-0.72, -1.05]])  # in head radii
EARS = np.array([[[0.2, -0.9], [0.95, -0.35], [0.72, -1.05]], [[-0.2, -0.9], [-0.95, -0.35], [-0.72, -1.05]]])


def draw_cat(rng, tilt_deg):
    """A cat that tilts its head so far, clockwise on the screen: (96, 96, 3) BGR, its box, its points (5, 2)."""
    center, radius, angle = rng.uniform(42, 54, 2), rng.uniform(20, 27), np.radians(tilt_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def at(points):
        return center + radius * np.asarray(points) @ turn.T

    def cell(point):
        return tuple(np.rint(np.asarray(point) * 16).astype(int).tolist())  # sixteenths of a pixel

    fur, eyes, dark = rng.integers(90, 230, 3).tolist(), rng.integers(60, 256, 3).tolist(), (30, 30, 40)
    image = np.full((96, 96, 3), rng.integers(40, 250, 3), np.uint8)
    for ear in EARS:
        cv2.fillPoly(image, [np.array([cell(point) for point in at(ear)])], fur, cv2.LINE_AA, 4)
    cv2.circle(image, cell(center), round(radius * 16), fur, -1, cv2.LINE_AA, 4)
    points = at(FACE)
    for eye in points[1:3]:
        cv2.circle(image, cell(eye), round(0.16 * radius * 16), eyes, -1, cv2.LINE_AA, 4)
        cv2.circle(image, cell(eye), round(0.08 * radius * 16), dark, -1, cv2.LINE_AA, 4)
    cv2.circle(image, cell(points[0]), round(0.09 * radius * 16), (120, 120, 230), -1, cv2.LINE_AA, 4)
    for side in (-1, 1):
        for end in (0.2, 0.35, 0.5):
            hair = at([[0.2 * side, 0.33], [0.95 * side, end]])
            cv2.line(image, cell(hair[0]), cell(hair[1]), dark, 1, cv2.LINE_AA, 4)
    return image, [*(center - 1.2 * radius), 2.4 * radius, 2.4 * radius], points


def write_set(name, count, seed):
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(count):
        image, box, points = draw_cat(rng, rng.uniform(-35, 35))
        cv2.imwrite(str(work / f"images/{name}/{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 96})
        keypoints = np.column_stack([points, [2] * 5]).ravel().tolist()  # x, y, visible
        annotations.append({"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints})
        annotations[-1].update(bbox=box, area=box[2] * box[3])
    categories = [{"id": 1, "name": "cat", "keypoints": JOINTS}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (work / f"annotations/{name}.json").write_text(json.dumps(content))


write_set("train", 320, seed=0)
write_set("val", 40, seed=1)
figure, axes = plt.subplots(1, 6, figsize=(11, 2), dpi=60)
for number, one in enumerate(axes):
    one.imshow(cv2.imread(str(work / f"images/train/{number}.png"))[..., ::-1])
    one.axis("off")

# %% [markdown] lang="en"
# ## 3. Train
# One command. The example to copy for real work is `experiments/custom/resnet18/128x128_d256x3_adam_lr1e-3.yaml`; here the notebooks' small network does.

# %% [markdown] lang="zh"
# ## 3. 训练
# 一条命令。真正使用时可以照抄 `experiments/custom/resnet18/128x128_d256x3_adam_lr1e-3.yaml`；这里用 notebook 的小网络就够了。

# %%
run(
    "train.py", "--cfg", "notebooks/mini.yaml", "DATASET.DATASET=coco", f"DATASET.ROOT={work}", "DATASET.TEST_SET=val",
    "DATASET.SKELETON=experiments/custom/cat_face.yaml", "DATASET.SCALE_FACTOR=0.1", "TEST.USE_GT_BBOX=true",
    "TRAIN.END_EPOCH=6", last=6,
)  # fmt: skip

# %% [markdown] lang="en"
# ## 4. Use it
# The weights describe their skeleton, so nothing has to be said again. From two eyes to a tilted head is geometry.

# %% [markdown] lang="zh"
# ## 4. 使用
# 权重里带着骨架，不用再说一遍。从两只眼睛到歪头的角度只是几何。

# %%
from simplepose import PosePredictor

predictor = PosePredictor("output/notebooks/runs/coco/pose_resnet_18/mini/model_best.pdparams")


def tilt_of(keypoints):
    across = keypoints[JOINTS.index("left_eye")] - keypoints[JOINTS.index("right_eye")]
    return np.degrees(np.arctan2(across[1], across[0]))


rng = np.random.default_rng(2)
errors = []
figure, axes = plt.subplots(1, 6, figsize=(11, 2.4), dpi=60)
for number in range(60):
    true = rng.uniform(-35, 35)
    image, box, points = draw_cat(rng, true)
    (pose,) = predictor(image, [box])
    errors.append(abs(tilt_of(pose.keypoints) - true))
    if number < 6:
        axes[number].imshow(pose.draw(image.copy())[..., ::-1])
        axes[number].set_title(f"{true:.0f}° -> {tilt_of(pose.keypoints):.0f}°", fontsize=9)
        axes[number].axis("off")
print(f"head tilt: median error {np.median(errors):.1f}°, largest {max(errors):.1f}°")

# %% [markdown] lang="en"
# ## And now yours
# Replace the drawing by your annotation file and your YAML. Pages to read next: *keypoints of your own* and *export and deployment* in `docs/en`.

# %% [markdown] lang="zh"
# ## 轮到你了
# 把画图部分换成自己的标注文件和 YAML。接着可以读 `docs/zh` 里的“自己的关键点”和“导出与部署”。
