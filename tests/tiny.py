"""The smallest experiment that trains: two epochs of the bundled set in a second or two."""

from __future__ import annotations

import copy
from typing import Any

EXPERIMENT: dict[str, Any] = {
    "WORKERS": 1,
    "PRINT_FREQ": 1,
    "DATASET": {"DATASET": "mpii", "ROOT": "data", "ROT_FACTOR": 30},
    "MODEL": {"DEPTH": 18, "IMAGE_SIZE": 32, "EXTRA": {"SIGMA": 1, "NUM_DECONV_FILTERS": [8, 8, 8]}},
    "TRAIN": {"BATCH_SIZE": 4, "END_EPOCH": 2, "LR_STEP": [1], "OPTIMIZER": "sgd"},
    "TEST": {"BATCH_SIZE": 4},
}


def experiment(test_batch_size: int = 4, **train: Any) -> dict[str, Any]:
    """The experiment as a dictionary, with other values in TRAIN."""
    made = copy.deepcopy(EXPERIMENT)
    made["TRAIN"].update(train)
    made["TEST"]["BATCH_SIZE"] = test_batch_size
    return made
