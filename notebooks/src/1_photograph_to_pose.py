# %% [markdown] lang="en"
# # From photograph to pose
# A ResNet, three deconvolutions, one heatmap per joint: this notebook follows one person through *Simple Baselines for Human Pose Estimation* and shows every
# picture on the way: box, crop, heatmaps, maximum, quarter step, and back to the photograph.
#
# The network is a tiny one that learns to find drawn figures in a minute. To follow a photograph of your own, name it and a trained network below.

# %% [markdown] lang="zh"
# # 从照片到姿态
# 一个 ResNet、三层反卷积、每个关节一张热图：这份 notebook 跟着一个人走完 *Simple Baselines for Human Pose Estimation* 的全过程，把途中的每张图都画出来：人体框、裁剪图、热图、最大值、四分之一格修正，最后回到原图。
#
# 这里用的是一个很小的网络，一分钟就能学会找卡通小人。想看自己的照片，在下面填上照片和训练好的网络即可。

# %% setup

# %%
import matplotlib.pyplot as plt
import numpy as np

from simplepose import InferenceSettings, PosePredictor
from simplepose.build.predictor import load_pose_network
from simplepose.core.codecs.gaussian import argmax_cells, flip_heatmaps
from simplepose.core.drawing import draw_pose
from simplepose.core.geometry import apply_affine, box_to_crop, crop_affine, invert_affine
from simplepose.core.images import crop_image, read_image
from simplepose.data.mpii import load_mpii

PHOTOGRAPH, BOX, WEIGHTS = None, None, None  # yours: "photo.jpg", (left, top, width, height), "posenet.onnx"

if WEIGHTS is None:
    if not Path("output/notebooks/mini").exists():
        run("make_mini.py", "--output", "output/notebooks/mini", "--train-images", 240, "--valid-images", 40, last=1)
    WEIGHTS = Path("output/notebooks/runs/mpii/pose_resnet_18/mini/model_best.pdparams")
    if not WEIGHTS.exists():
        run("train.py", "--cfg", "notebooks/mini.yaml", "TRAIN.RESUME=True", last=4)
if PHOTOGRAPH is None:
    person = load_mpii("output/notebooks/mini", "valid")[3]
    PHOTOGRAPH = person.image
    (left, top), (right, bottom) = person.joints.min(axis=0) - 12, person.joints.max(axis=0) + 8
    BOX = (left, top, right - left, bottom - top)

image = read_image(PHOTOGRAPH, apply_exif=True)  # (H, W, 3) uint8, BGR as OpenCV has it
network = load_pose_network(WEIGHTS)  # with the skeleton, the sizes and the colours that its file describes
size_wh = network.codec.image_size_wh


def show(axes, bgr, title=""):
    axes.imshow(bgr[..., ::-1])
    axes.set_title(title, fontsize=9)
    axes.axis("off")


figure, axes = plt.subplots(figsize=(4, 4), dpi=60)
show(axes, image, f"{image.shape[1]} x {image.shape[0]}")
_ = axes.add_patch(plt.Rectangle(BOX[:2], *BOX[2:], fill=False, color="white", lw=2))
# %% [markdown] lang="en"
# ## The box becomes a crop
# The box grows to the network's aspect ratio, and then by a quarter so that limbs stay inside. One affine matrix (2, 3) maps photograph pixels to crop pixels; the
# same matrix, inverted, will bring the joints back.

# %% [markdown] lang="zh"
# ## 从人体框到裁剪图
# 先把框补成网络输入的宽高比，再放大四分之一，免得手脚出框。照片像素到裁剪图像素是一个 (2, 3) 的仿射矩阵；同一个矩阵求逆，最后再把关节带回来。

# %%
center, size = box_to_crop(np.array(BOX), aspect_ratio=size_wh[0] / size_wh[1])
affine = crop_affine(center, size[0], 0.0, size_wh)
crop = crop_image(image, affine, size_wh)
print(np.round(affine, 3))
figure, axes = plt.subplots(figsize=(3, 3), dpi=60)
show(axes, crop, f"{crop.shape[1]} x {crop.shape[0]}")

# %% [markdown] lang="en"
# ## The network: one heatmap per joint
# The crop is normalised and goes through the network: (1, 3, H, W) in, (1, K, h, w) out, a quarter of the size on each side. Each map is bright where its joint may be.

# %% [markdown] lang="zh"
# ## 网络：每个关节一张热图
# 裁剪图归一化后送进网络：输入 (1, 3, H, W)，输出 (1, K, h, w)，边长是输入的四分之一。哪里可能是这个关节，那里就亮。

# %%
images = network.prepare(crop[None])
heatmaps = network.run(images)[0]
print(images.shape, "->", heatmaps.shape)

extent = (-0.5, size_wh[0] - 0.5, size_wh[1] - 0.5, -0.5)
figure, grid = plt.subplots(2, 8, figsize=(9.6, 2.8), dpi=55)
for axes, name, heatmap in zip(grid.flat, network.skeleton.joints, heatmaps):
    show(axes, crop, name)
    axes.imshow(heatmap, cmap="inferno", alpha=0.75, extent=extent, vmin=0, vmax=heatmaps.max())
figure.tight_layout(pad=0.3)

# %% [markdown] lang="en"
# ## The maximum, and a quarter of a cell
# The joint is the highest cell. A cell is four pixels wide, so the paper takes one more step: a quarter of a cell towards the higher neighbour, on each axis.
# The value of the highest cell is the joint's score.

# %% [markdown] lang="zh"
# ## 最大值，再移四分之一格
# 最高的一格就是关节。一格有四个像素宽，所以论文再走一小步：在每个轴上朝较高的邻格移动四分之一格。最高格的值就是这个关节的得分。

# %%
joint = int(heatmaps.reshape(len(heatmaps), -1).max(axis=1).argmax())
cells, scores = argmax_cells(heatmaps[None])
refined, _ = network.codec.decode(heatmaps[None])
refined = refined[0] / network.codec.stride_xy  # in cells again
x, y = cells[0, joint].astype(int)
rows, columns = slice(max(0, y - 2), y + 3), slice(max(0, x - 2), x + 3)
print(network.skeleton.joints[joint], "cell", cells[0, joint], "->", refined[joint], "score", scores[0, joint].round(3))
print(np.round(heatmaps[joint, rows, columns], 2))

figure, axes = plt.subplots(figsize=(3.4, 3.4), dpi=60)
axes.imshow(heatmaps[joint], cmap="inferno")
axes.plot(x, y, "s", mfc="none", mec="white", ms=18, label="arg-max")
axes.plot(*refined[joint], "c+", ms=12, mew=2, label="quarter step")
axes.set(xlim=(x - 5, x + 5), ylim=(y + 5, y - 5), title=network.skeleton.joints[joint])
_ = axes.legend(fontsize=8)
# %% [markdown] lang="en"
# ## Back to the photograph
# Cells times the stride are crop pixels; the inverse affine makes photograph pixels of them.

# %% [markdown] lang="zh"
# ## 回到照片
# 格子乘步长得到裁剪图像素，再用逆仿射变换回到照片像素。

# %%
joints_in_crop = refined * network.codec.stride_xy
keypoints = apply_affine(invert_affine(affine), joints_in_crop)
drawn_crop, drawn = np.repeat(np.repeat(crop, 4, axis=0), 4, axis=1), image.copy()  # its pixels, four times as large
draw_pose(drawn_crop, 4 * joints_in_crop, scores[0], network.skeleton)
draw_pose(drawn, keypoints, scores[0], network.skeleton)
figure, (left_axes, right_axes) = plt.subplots(1, 2, figsize=(8, 4), dpi=60)
show(left_axes, drawn_crop)
show(right_axes, drawn)

# %% [markdown] lang="en"
# ## The flip test
# The mirrored crop gives a second opinion: its heatmaps are mirrored back, left and right exchanged, moved by one cell (a mirrored pixel falls almost a cell short),
# and averaged with the first.

# %% [markdown] lang="zh"
# ## 翻转测试
# 把裁剪图镜像后再问一次：热图翻回来，左右互换，再移一格（镜像后的像素差将近一格），与第一次的结果取平均。

# %%
mirrored = network.run(np.ascontiguousarray(images[..., ::-1]))
back = flip_heatmaps(mirrored, network.skeleton.flip_permutation, shift=True)[0]
figure, axes = plt.subplots(1, 3, figsize=(8, 2.8), dpi=60)
for one, heatmap, title in zip(axes, (heatmaps, back, (heatmaps + back) / 2), ("crop", "mirrored", "average")):
    one.imshow(heatmap[joint], cmap="inferno", vmin=0, vmax=1)
    one.set_title(f"{title}: {heatmap[joint].max():.2f}", fontsize=9)
    one.axis("off")

# %% [markdown] lang="en"
# ## The same in two lines
# `PosePredictor` does all of the above; the keypoints are the same to the last bit.

# %% [markdown] lang="zh"
# ## 两行代码做同样的事
# `PosePredictor` 包含以上全部步骤，关节逐位相同。

# %%
(pose,) = PosePredictor(network, InferenceSettings())(image, [BOX])
print("largest difference in pixels:", np.abs(pose.keypoints - keypoints).max())
assert np.abs(pose.keypoints - keypoints).max() < 1e-6
