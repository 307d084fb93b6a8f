"""Names of the files in a training's run folder."""

CHECKPOINT = "checkpoint"  # the newest; checkpoint.1 is the one before
BEST_WEIGHTS = "model_best.pdparams"
LAST_WEIGHTS = "final_state.pdparams"
HISTORY = "history.json"
