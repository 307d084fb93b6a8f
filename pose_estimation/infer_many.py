"""The command `infer_many` of a checkout; what it does is in lib/simplepose/commands/infer_many.py."""

import _init_paths

if __name__ == "__main__":
    _init_paths.run(__file__)
