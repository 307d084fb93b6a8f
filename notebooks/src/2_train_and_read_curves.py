# %% [markdown] lang="en"
# # Train, and read the curves
# A network is trained on a few hundred drawn figures, from scratch, in a minute or two on a CPU. What matters is not the score but how to read what training tells you.

# %% [markdown] lang="zh"
# # 训练，并读懂曲线
# 在几百个卡通小人上从零训练一个网络，CPU 上一两分钟。重要的不是得分，而是学会看训练告诉你的东西。

# %% setup

# %%
import json

import matplotlib.pyplot as plt

if not Path("output/notebooks/mini").exists():
    run("make_mini.py", "--output", "output/notebooks/mini", "--train-images", 240, "--valid-images", 40, last=1)
run("train.py", "--cfg", "notebooks/mini.yaml", last=6)

# %% [markdown] lang="en"
# ## Curves
# - **Loss** on training and validation. Both fall together: it learns. Training falls and validation rises: it learns by heart; more data or augmentation helps.
# - **Learning rate**: a warm-up of ten iterations, too short to be seen here, then a cosine to 0. Most of the gain comes late, when it is small.
# - **PCKh**: what you care about. It can stay low while the loss already falls: first the network learns to say "almost nothing" everywhere, then where the joints are.

# %% [markdown] lang="zh"
# ## 曲线
# - **损失**：训练和验证各一条。一起下降说明在学习；训练降而验证升，是在死记硬背，需要更多数据或增强。
# - **学习率**：预热十次迭代（图上看不出来），随后余弦下降到 0。大部分提升出现在后期学习率很小的时候。
# - **PCKh**：真正关心的指标。损失已经下降时它可能还很低：网络先学会处处输出接近零，再学会关节在哪里。

# %%
history = json.loads(Path("output/notebooks/runs/mpii/pose_resnet_18/mini/history.json").read_text())
epochs = [record["epoch"] for record in history]
figure, (loss, rate, score) = plt.subplots(1, 3, figsize=(11, 3), dpi=80)
for name in ("train_loss", "valid_loss"):
    loss.plot(epochs, [record[name] for record in history], "o-", label=name)
rate.plot(epochs, [record["lr"] for record in history], "o-", color="gray", label="lr")
for name in ("Head", "Hip", "Wrist", "Mean"):
    score.plot(epochs, [record[name] for record in history], "o-", lw=3 if name == "Mean" else 1, label=name)
for axes, title in ((loss, "loss"), (rate, "learning rate"), (score, "PCKh@0.5, %")):
    axes.set(title=title, xlabel="epoch")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
figure.tight_layout()

# %% [markdown] lang="en"
# ## Compare with knowing nothing
# Every score needs a baseline. The cheapest one puts the mean training pose into each box and does not look at the picture at all. A network below it has learnt nothing.

# %% [markdown] lang="zh"
# ## 与什么都不学相比
# 每个得分都需要基线。最便宜的基线是把训练集的平均姿态放进每个框，完全不看图片。比它还低，就是什么都没学到。

# %%
run("mean_pose.py", "--cfg", "notebooks/mini.yaml", last=3)
run("valid.py", "--cfg", "notebooks/mini.yaml", "--flip-test", last=3)

# %% [markdown] lang="en"
# ## Try it
# Change one thing at a time and train again: `TRAIN.LR=0.0001`, `TRAIN.LR=0.01`, `TRAIN.END_EPOCH=3`, `DATASET.FLIP=false`, `TRAIN.EPSILON=1e-8` (Adam's; watch how much later it starts).
# Any key can be appended to the command. Interrupted trainings resume with `TRAIN.RESUME=True`. `visualdl --logdir output/notebooks/log` shows the curves while it trains.

# %% [markdown] lang="zh"
# ## 动手试试
# 每次只改一处，再训练一遍：`TRAIN.LR=0.0001`、`TRAIN.LR=0.01`、`TRAIN.END_EPOCH=3`、`DATASET.FLIP=false`、`TRAIN.EPSILON=1e-8`（Adam 的 epsilon，看看起步晚多少）。
# 任何配置键都可以加在命令后面。中断的训练用 `TRAIN.RESUME=True` 恢复。`visualdl --logdir output/notebooks/log` 可以边训练边看曲线。
