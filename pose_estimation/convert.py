"""The command `convert` of a checkout; what it does is in lib/simplepose/commands/convert.py."""

import _init_paths

if __name__ == "__main__":
    _init_paths.run(__file__)
