"""The command `coco_files` of a checkout; what it does is in lib/simplepose/commands/coco_files.py."""

import _init_paths

if __name__ == "__main__":
    _init_paths.run(__file__)
