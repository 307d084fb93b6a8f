# %% [markdown] lang="en"
# # Read a score: PCKh by hand
# "88.5 PCKh" means: 88.5 % of the labelled joints lie within half a head of where people put them. Here it is computed with pen and paper for two persons, then by the library.

# %% [markdown] lang="zh"
# # 读懂得分：手算 PCKh
# “88.5 PCKh” 的意思是：88.5 % 的已标注关节，与人工标注的距离不超过半个头。这里先用纸笔算两个人，再用库算一遍。

# %% setup

# %%
import matplotlib.pyplot as plt
import numpy as np

from simplepose.metrics.pckh import PckhGroundTruth, normalized_errors, pckh, person_hits

# %% [markdown] lang="en"
# ## How long is a head?
# MPII annotates a box around the head. Its diagonal times 0.6 is the head size: close to the distance from neck to head top. A box of 30 x 40 has the diagonal 50, so a head of 30 pixels.
# A joint counts as found when it is at most half of that away: 15 pixels.

# %% [markdown] lang="zh"
# ## 一个头有多长？
# MPII 标了头部框。对角线乘 0.6 就是头长，接近颈部到头顶的距离。30 x 40 的框，对角线 50，头长 30 像素。
# 误差不超过半个头长，即 15 像素，就算找到。

# %%
box_width, box_height = 30, 40
head_size = 0.6 * np.hypot(box_width, box_height)
print("head size", head_size, "-> within", 0.5 * head_size, "pixels")

# %% [markdown] lang="en"
# ## Two persons, four joints
# The second person stands further away: the head is 12 pixels, and 6 pixels are allowed. The second person's wrist is not labelled (hidden), and so counts neither way.

# %% [markdown] lang="zh"
# ## 两个人，四个关节
# 第二个人站得远：头长 12 像素，只允许差 6 像素。第二个人的手腕被遮挡，没有标注，不计入。

# %%
names = ("head", "rsho", "relb", "rwri")
true = np.array([[[50, 20], [40, 60], [30, 90], [25, 120]], [[200, 30], [195, 46], [190, 60], [0, 0]]], float)
found = true + [[[3, 4], [0, 14], [12, 16], [9, 12]], [[0, 6], [3, 4], [0, 7], [50, 50]]]
labelled = np.array([[True, True, True, True], [True, True, True, False]])
truth = PckhGroundTruth(names, true, labelled, head_sizes=np.array([30.0, 12.0]))

distance = np.hypot(*np.moveaxis(found - true, -1, 0))
print("pixels      ", *distance.round(1).tolist(), sep="\n")
print("in heads    ", *(distance / truth.head_sizes[:, None]).round(2).tolist(), sep="\n")
within = distance <= 0.5 * truth.head_sizes[:, None]
for joint, name in enumerate(names):
    hits, of = (within & labelled)[:, joint].sum(), labelled[:, joint].sum()
    print(f"{name}: {hits} of {of} = {100 * hits / of:.0f} %")
by_hand = 100 * (within & labelled).sum() / labelled.sum()
print(f"all: {(within & labelled).sum()} of {labelled.sum()} = {by_hand:.2f} %")

# %% [markdown] lang="en"
# The library says the same. `Mean` weights each joint by how often it is labelled, so it is not the mean of the columns.

# %% [markdown] lang="zh"
# 库给出同样的结果。`Mean` 按每个关节的标注次数加权，所以不等于各列的平均。

# %%
print("each joint:", dict(zip(names, pckh(found, truth, np.array([0.5]))[0].tolist())))
hits, counted = person_hits(found, truth)
print("each person:", hits.tolist(), "of", counted.tolist(), "-> Mean", (100 * hits.sum() / counted.sum()).round(2))
np.testing.assert_allclose(normalized_errors(found, truth)[labelled], (distance / truth.head_sizes[:, None])[labelled])
np.testing.assert_allclose(100 * hits.sum() / counted.sum(), by_hand)

# %% [markdown] lang="en"
# ## The threshold is a choice
# Half a head is generous: with 0.1 the same predictions look very different. The original prints a column "Mean@0.1" that is taken at 0.11; here both carry their own names.
# A curve over all thresholds says more than one number.

# %% [markdown] lang="zh"
# ## 阈值是人定的
# 半个头很宽松：换成 0.1，同样的预测看上去完全不同。原作代码打印的 “Mean@0.1” 其实取自 0.11；这里两者各有其名。
# 看整条曲线比看一个数更清楚。

# %%
rng = np.random.default_rng(0)
true = rng.uniform(50, 200, (500, 4, 2))
many = PckhGroundTruth(names, true, np.ones((500, 4), bool), np.full(500, 30.0))
thresholds = np.arange(0, 0.51, 0.01)
figure, axes = plt.subplots(figsize=(5, 3.2), dpi=80)
for sigma in (2, 5, 10):
    curve = pckh(true + rng.normal(0, sigma, true.shape), many, thresholds).mean(axis=1)
    axes.plot(
        thresholds, curve, label=f"error of {sigma} px a coordinate: {curve[-1]:.0f} at 0.5, {curve[10]:.0f} at 0.1"
    )
axes.axvline(0.1, color="gray", ls=":")
axes.set(xlabel="threshold, heads", ylabel="PCKh, %", ylim=(0, 101))
axes.legend(fontsize=8)
axes.grid(alpha=0.3)

# %% [markdown] lang="en"
# ## What the number does not say
# It forgives a missing person (there is a box for everybody), it does not look at scores, and a data set whose head sizes are made differently does not compare. A wrist that is half a head off is a
# long way off for a sports coach. Look at the pictures, too.

# %% [markdown] lang="zh"
# ## 这个数没有说的
# 它不管漏检（每个人都给了框），不看得分，头长定义不同的数据集之间也不能比。手腕差半个头，对体育教练来说已经差得很远。图还是要看的。
