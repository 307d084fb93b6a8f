# %% [markdown] lang="en"
# # Your own keypoints in thirty minutes: a network that reads the clock
# Keypoints are not only joints. Here a network learns three points of a clock: the centre and the tips of both hands. From them anybody can read the time.
# The same four steps serve for hands, animals or machine parts: skeleton, annotations, training, use. No Python is needed for the middle two.

# %% [markdown] lang="zh"
# # 三十分钟用上自己的关键点：一个会看钟的网络
# 关键点不只是人体关节。这里让网络学会钟面上的三个点：中心、时针尖、分针尖。有了它们，谁都能读出时间。
# 手、动物、机器零件都是同样的四步：骨架、标注、训练、使用。中间两步不用写 Python。

# %% setup

# %% [markdown] lang="en"
# ## 1. The skeleton, in YAML
# A clock has no left and right, so there are no `pairs`, and mirroring must be off: a mirrored clock shows another time.

# %% [markdown] lang="zh"
# ## 1. 骨架：一个 YAML 文件
# 钟没有左右之分，所以没有 `pairs`，而且必须关掉镜像增强：镜子里的钟是另一个时间。

# %%
import json

import cv2
import matplotlib.pyplot as plt
import numpy as np

work = Path("output/notebooks/clock")
for folder in ("annotations", "images/train", "images/val"):
    (work / folder).mkdir(parents=True, exist_ok=True)
_ = (work / "clock.yaml").write_text(
    """name: clock
joints: [center, hour, minute]
limbs: [[center, hour], [center, minute]]
sigmas: 0.05
"""
)

# %% [markdown] lang="en"
# ## 2. Pictures and annotations, in COCO's form
# Real data comes from a labelling tool. Here a few lines draw clocks and know where the points are.

# %% [markdown] lang="zh"
# ## 2. 图片和标注：COCO 格式
# 真实数据来自标注工具。这里用几行代码画钟，点在哪里自然知道。


# %%
def tip(center, length, turn):
    return center + length * np.array([np.sin(2 * np.pi * turn), -np.cos(2 * np.pi * turn)])


def draw_clock(rng, minutes):
    """A clock at a time of day: (96, 96, 3) BGR, its box, its points (3, 2)."""
    image = np.full((96, 96, 3), rng.integers(60, 230, 3), np.uint8)
    center, radius = rng.uniform(42, 54, 2), rng.uniform(28, 38)
    points = np.array([center, tip(center, 0.5 * radius, minutes / 720), tip(center, 0.85 * radius, minutes / 60)])

    def at(point):
        return tuple(np.rint(point * 16).astype(int).tolist())

    face, ink = rng.integers(200, 256, 3).tolist(), rng.integers(0, 90, 3).tolist()
    cv2.circle(image, at(center), round(radius * 16), face, -1, cv2.LINE_AA, 4)
    cv2.circle(image, at(center), round(radius * 16), ink, 2, cv2.LINE_AA, 4)
    for mark in range(12):
        cv2.circle(image, at(tip(center, 0.9 * radius, mark / 12)), 16, ink, -1, cv2.LINE_AA, 4)
    cv2.line(image, at(center), at(points[1]), ink, 5, cv2.LINE_AA, 4)
    cv2.line(image, at(center), at(points[2]), (40, 40, 220), 3, cv2.LINE_AA, 4)  # red
    noisy = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    return noisy, [*(center - radius), 2 * radius, 2 * radius], points


def write_set(name, count, seed):
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(count):
        image, box, points = draw_clock(rng, rng.uniform(0, 720))
        cv2.imwrite(str(work / f"images/{name}/{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 96})
        keypoints = np.column_stack([points, [2, 2, 2]]).ravel().tolist()
        annotations.append({"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints})
        annotations[-1].update(bbox=box, area=box[2] * box[3])
    categories = [{"id": 1, "name": "clock", "keypoints": ["center", "hour", "minute"]}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (work / f"annotations/{name}.json").write_text(json.dumps(content))


write_set("train", 480, seed=0)
write_set("val", 40, seed=1)
figure, axes = plt.subplots(1, 6, figsize=(11, 2), dpi=55)
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
    "train.py", "--cfg", "notebooks/mini.yaml", "DATASET.DATASET=coco", f"DATASET.SKELETON={work}/clock.yaml",
    f"DATASET.ROOT={work}", "DATASET.TEST_SET=val", "DATASET.FLIP=false", "DATASET.SCALE_FACTOR=0.1",
    "TEST.USE_GT_BBOX=true", "TRAIN.END_EPOCH=8", last=6,
)  # fmt: skip

# %% [markdown] lang="en"
# ## 4. Use it
# The weights describe their skeleton, so nothing has to be said again. From the points to the time is geometry: the minute hand gives the minutes, the hour hand the hour that fits best.

# %% [markdown] lang="zh"
# ## 4. 使用
# 权重里带着骨架，不用再说一遍。从点到时间只是几何：分针给出分钟，时针给出最吻合的小时。

# %%
from simplepose import PosePredictor

predictor = PosePredictor("output/notebooks/runs/coco/pose_resnet_18/mini/model_best.pdparams")


def turn(start, end):
    return np.arctan2(end[0] - start[0], start[1] - end[1]) / (2 * np.pi) % 1


def read_time(points):
    center, hour, minute = points
    minutes = 60 * turn(center, minute)
    hours = np.arange(12)
    off = np.abs((turn(center, hour) - (hours + minutes / 60) / 12 + 0.5) % 1 - 0.5)
    return 60 * hours[off.argmin()] + minutes


rng = np.random.default_rng(2)
errors = []
figure, axes = plt.subplots(1, 6, figsize=(11, 2.4), dpi=55)
for number in range(60):
    true = rng.uniform(0, 720)
    image, box, points = draw_clock(rng, true)
    (pose,) = predictor(image, [box])
    found = read_time(pose.keypoints)
    errors.append(abs((found - true + 360) % 720 - 360))
    if number < 6:
        axes[number].imshow(pose.draw(image.copy())[..., ::-1])
        times = [f"{int(at // 60)}:{int(at % 60):02d}" for at in (true, found)]
        axes[number].set_title(" -> ".join(times), fontsize=9)
        axes[number].axis("off")
print(f"median error {np.median(errors):.1f} minutes; within 5 minutes: {np.mean(np.array(errors) < 5):.0%}")

# %% [markdown] lang="en"
# ## And now yours
# Replace the drawing by your annotation file and your YAML. Pages to read next: *keypoints of your own* and *export and deployment* in `docs/en`.

# %% [markdown] lang="zh"
# ## 轮到你了
# 把画图部分换成自己的标注文件和 YAML。接着可以读 `docs/zh` 里的“自己的关键点”和“导出与部署”。
