"""The command `mean_pose` of a checkout; what it does is in lib/simplepose/commands/mean_pose.py."""

import _init_paths

if __name__ == "__main__":
    _init_paths.run(__file__)
