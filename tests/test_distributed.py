"""Several processes, and two machines, on CPUs: the same gradient, the same scores, the same training after a stop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny import experiment

from simplepose.data.loader import DistributedBatches

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ROOT / "pose_estimation"
RUN = Path("mpii/pose_resnet_18/tiny")  # below OUTPUT_DIR
TINY = experiment(test_batch_size=3, BATCH_SIZE=2, CHECKPOINT_EVERY=0)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, bundled) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    shutil.copytree(bundled, folder / "data")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder


def launch_line(*arguments: object, launcher: tuple[str, ...] = ("--nproc_per_node", "2")) -> list[str]:
    log = ("--log_dir", "launched")
    return [sys.executable, "-m", "paddle.distributed.launch", *launcher, *log, *map(str, arguments)]


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PADDLE_", "FLAGS_", "OMP_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **settings}


def launch(workplace: Path, *arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        launch_line(*arguments, **options),
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )


@pytest.mark.parametrize(("length", "batch_size", "ranks"), [(10, 3, 1), (10, 3, 2), (10, 3, 3), (2, 4, 3), (12, 4, 3)])
def test_dealt_batches_are_those_of_one_process(length, batch_size, ranks):
    whole = DistributedBatches(length, batch_size).batches()
    assert [row for batch in whole for row in batch] == list(range(length))
    hands = [DistributedBatches(length, batch_size, rank, ranks) for rank in range(ranks)]
    assert sorted(batch for hand in hands for batch in hand.batches()) == whole
    assert all(len(hand) == len(hand.batches(5)) for hand in hands)


IN_EVERY_PROCESS = """
import sys
sys.path.insert(0, {lib!r})
from simplepose.machine.paddle_start import start_paddle
start_paddle()
import logging
import numpy as np, paddle
from simplepose.build.data import build_train_loader, build_valid_loader
from simplepose.build.model import build_model
from simplepose.config.load import load_config
from simplepose.machine import distributed
from simplepose.training.evaluation import evaluate
from simplepose.inference.network import InferenceSettings, paddle_network
from simplepose.training.losses import joints_mse_loss

rank, num_ranks = distributed.ranks()
paddle.set_device("cpu")
if num_ranks > 1:
    paddle.distributed.init_parallel_env()
config = load_config("tiny.yaml", ["TRAIN.BATCH_SIZE=" + str(4 // num_ranks)])
results = {{}}

# The gradient of the first step; batch norm in eval mode, or each process would normalise by its own half.
paddle.seed(rank)  # the wrapper hands the first process's weights to the others
model = build_model(config)
loader = build_train_loader(config)
trained = paddle.DataParallel(model) if num_ranks > 1 else model
model.final_layer.weight.set_value(model.final_layer.weight * 300)
trained.eval()
batch = next(loader.epoch(0))
loss = joints_mse_loss(
    trained(paddle.to_tensor(batch.images)), paddle.to_tensor(batch.heatmaps), paddle.to_tensor(batch.weights)
)
loss.backward()
for name, parameter in model.named_parameters():
    if not parameter.stop_gradient:
        results["gradient " + name] = parameter.grad.numpy()

# The same in two halves, of which the first keeps its gradient to itself; with the backbone frozen and not.
def backward(rows):
    images, target, weights = (paddle.to_tensor(a[rows]) for a in (batch.images, batch.heatmaps, batch.weights))
    (joints_mse_loss(trained(images), target, weights) / 2).backward()
middle = len(batch.images) // 2
whole, model = model, build_model(config)  # two wrappers around one network would both count its gradients
model.set_state_dict(whole.state_dict())
trained = paddle.DataParallel(model, find_unused_parameters=True) if num_ranks > 1 else model
trained.eval()
for frozen in (False, True):
    model.freeze_backbone(frozen)
    for parameter in model.parameters():
        parameter.clear_gradient(False)
    if num_ranks > 1:
        with trained.no_sync():
            backward(slice(0, middle))
    else:
        backward(slice(0, middle))
    backward(slice(middle, None))
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient:
            results[f"halves {{frozen}} " + name] = parameter.grad.numpy()
model.freeze_backbone(False)

# Statistics that differ between processes, as after some steps of training, are those of the first one.
model.backbone.bn1._mean.set_value(model.backbone.bn1._mean + rank)
distributed.share_statistics(model)
results["mean"] = model.backbone.bn1._mean.numpy()

# Validation of any number of samples.
class Evaluator:
    def __init__(self):
        self.found = []
    def add(self, indices, joints, scores):
        self.found.append(np.column_stack([indices, joints.reshape(len(indices), -1), scores]))
for count in (1, 2, 4, 7, 8):
    loader = build_valid_loader(config)
    loader.dataset.samples = loader.dataset.samples[:count]
    loader.sampler.length = count
    evaluator = Evaluator()
    figures, _ = evaluate(paddle_network(model), loader, evaluator, InferenceSettings(flip_test=True), 100)
    results[f"predictions {{count}}"] = np.concatenate(evaluator.found)
    results[f"figures {{count}}"] = np.array([figures["valid_loss"], figures["valid_accuracy"]])

# Everybody gets what the first process has.
results["any_rank"] = np.array(distributed.any_rank(rank == 1, False, True))
distributed.wait_for_all()
results["broadcast"] = np.array(distributed.broadcast({{"rank": rank, "array": np.arange(3) + rank}})["array"])
np.savez(f"results_{{num_ranks}}_{{rank}}.npz", **results)
"""


@pytest.fixture(scope="module")
def results(workplace) -> tuple[dict, dict, dict]:
    """What one process found, and what each of two."""
    script = workplace / "every.py"
    script.write_text(IN_EVERY_PROCESS.format(lib=str(ROOT / "lib")))
    alone = subprocess.run([sys.executable, script], cwd=workplace, capture_output=True, text=True, env=environment())
    assert alone.returncode == 0, alone.stderr
    both = launch(workplace, script)
    assert both.returncode == 0, both.stdout + both.stderr
    return tuple(dict(np.load(workplace / f"results_{name}.npz")) for name in ("1_0", "2_0", "2_1"))


def test_two_processes_have_the_gradient_of_one_with_twice_the_batch(results):
    alone, first, second = results
    names = [name for name in alone if name.startswith(("gradient", "halves"))]
    assert len(names) > 130
    for name in names:
        np.testing.assert_array_equal(first[name], second[name])
        scale = np.abs(alone[name]).max()
        assert scale > 0, name
        np.testing.assert_allclose(first[name], alone[name], atol=1e-5 * scale, rtol=0, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 4, 7, 8])
def test_shared_validation_is_that_of_one_process_to_the_last_digit(results, count):
    alone, *both = results
    assert alone[f"predictions {count}"][:, 0].tolist() == list(range(count))
    for found in both:
        np.testing.assert_array_equal(found[f"predictions {count}"], alone[f"predictions {count}"])
        np.testing.assert_array_equal(found[f"figures {count}"], alone[f"figures {count}"])


def test_the_first_process_shares_what_it_has(results):
    _, first, second = results
    np.testing.assert_array_equal(first["mean"], second["mean"])
    assert first["any_rank"].tolist() == second["any_rank"].tolist() == [True, False, True]
    assert first["broadcast"].tolist() == second["broadcast"].tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def straight(workplace) -> Path:
    """The run folder of two processes that nobody interrupted."""
    finished = launch(workplace, COMMANDS / "train.py", "--cfg", "tiny.yaml", "OUTPUT_DIR=straight")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return workplace / "straight" / RUN


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "history.json").read_text())


@pytest.mark.slow
def test_both_stop_after_the_same_step_and_go_on(workplace, straight):
    """The launcher hands the signal on to one process after the other, three times each."""
    output = "OUTPUT_DIR=stopped"
    line = launch_line(COMMANDS / "train.py", "--cfg", "tiny.yaml", output, "TRAIN.CHECKPOINT_EVERY=1")
    folder = workplace / "stopped" / RUN
    with subprocess.Popen(line, cwd=workplace, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        end = time.monotonic() + 100
        while not (folder / "checkpoint").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=100)
    logs = "".join(path.read_text() for path in folder.glob("*_train.log"))
    stopped = re.search(r"=> stopped at (epoch \d(, iteration \d)?);", logs)
    assert stopped, said
    rest = launch(workplace, COMMANDS / "train.py", "--cfg", "tiny.yaml", output, "TRAIN.RESUME=true")
    assert rest.returncode == 0, rest.stdout + rest.stderr
    assert f" at {stopped[1]}" in rest.stdout
    assert history(folder) == history(straight)
    assert (folder / "final_state.pdparams").read_bytes() == (straight / "final_state.pdparams").read_bytes()


@pytest.mark.slow
def test_valid_scores_the_same_and_one_process_writes(workplace, straight, run_command):
    args = ("--cfg", "tiny.yaml", "--model-file", straight / "final_state.pdparams", "--flip-test")
    alone = run_command("valid.py", *args, "OUTPUT_DIR=valid1", cwd=workplace)
    assert alone.returncode == 0, alone.stderr
    both = launch(
        workplace, COMMANDS / "valid.py", *args, "OUTPUT_DIR=valid2",
        launcher=("--nproc_per_node", "2", "--backend", "gloo"),
    )  # fmt: skip
    assert both.returncode == 0, both.stdout + both.stderr
    one, two = ((workplace / name / RUN) for name in ("valid1", "valid2"))
    assert (one / "metrics.json").read_text() == (two / "metrics.json").read_text()
    assert (one / "pred.mat").read_bytes()[128:] == (two / "pred.mat").read_bytes()[128:]  # behind the time it was made
    assert len(list(two.glob("*_valid.log"))) == 1


@pytest.mark.slow
def test_a_process_that_dies_takes_the_job_down_with_its_traceback(workplace):
    (workplace / "dies.py").write_text(
        f"import sys\nsys.path[:0] = [{str(COMMANDS)!r}, {str(ROOT / 'lib')!r}]\n"
        "from simplepose.machine import distributed\nfrom simplepose.commands import train\n"
        "from simplepose.training import watchers\nbefore = distributed.any_rank\nsteps = []\n"
        "def any_rank(*flags):\n"
        "    steps.append(0)\n"
        "    if distributed.ranks()[0] == 1 and len(steps) == 2:\n"
        "        raise RuntimeError('this process dies')\n"
        "    return before(*flags)\n"
        "watchers.any_rank = any_rank\n"
        "train.main()\n"
    )
    begin = time.monotonic()
    finished = launch(workplace, "dies.py", "--cfg", "tiny.yaml", "OUTPUT_DIR=dead")
    assert finished.returncode != 0
    assert time.monotonic() - begin < 60
    said = finished.stdout + finished.stderr
    assert "RuntimeError: this process dies" in said
    assert "Epoch: [0][0/" in said


@pytest.fixture
def two_machines():
    """Two network namespaces with a cable between them."""
    names, tag = ("a", "b"), f"sp{os.getpid() % 10000}"
    commands = [
        *(f"netns add {tag}{name}" for name in names),
        f"link add {tag}va type veth peer name {tag}vb",
        *(f"link set {tag}v{name} netns {tag}{name}" for name in names),
        *(f"-n {tag}{name} addr add 10.88.0.{i}/24 dev {tag}v{name}" for i, name in enumerate(names, 1)),
        *(f"-n {tag}{name} link set lo up" for name in names),
        *(f"-n {tag}{name} link set {tag}v{name} up" for name in names),
    ]
    try:
        for command in commands:
            try:
                made = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip("two machines: network namespaces need iproute2")
            if made.returncode != 0:
                pytest.skip(f"two machines: network namespaces need root ({made.stderr.strip()})")
        yield tag
    finally:
        for name in names:
            if shutil.which("ip"):
                subprocess.run(["ip", "netns", "del", f"{tag}{name}"], capture_output=True)


@pytest.mark.slow
def test_two_machines_train_together_and_go_on_without_a_shared_folder(workplace, straight, two_machines):
    homes = [workplace / f"machine{i}" for i in range(2)]
    for home in homes:
        home.mkdir()
        shutil.copytree(workplace / "data", home / "data")
        shutil.copy(workplace / "tiny.yaml", home)

    def run(*arguments: str) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        machines = []
        for i, (home, name) in enumerate(zip(homes, "ab")):
            where = ("--master", f"10.88.0.1:{port}", "--host", f"10.88.0.{i + 1}", "--nnodes", "2", "--rank", str(i))
            line = launch_line(
                COMMANDS / "train.py", "--cfg", "tiny.yaml", *arguments, launcher=(*where, "--nproc_per_node", "1")
            )
            machines.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", f"{two_machines}{name}", *line],
                    cwd=home,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment(GLOO_SOCKET_IFNAME=f"{two_machines}v{name}"),
                )
            )
        said = [machine.communicate(timeout=100)[0] for machine in machines]
        assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
        return said

    run("TRAIN.END_EPOCH=1")
    assert not (homes[1] / "output").exists()  # the first process alone writes
    (said, _) = run("TRAIN.RESUME=true")
    assert "at epoch 1" in said
    assert history(homes[0] / "output" / RUN) == history(straight)
