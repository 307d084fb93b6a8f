"""The command `data_tools` of a checkout; what it does is in lib/simplepose/commands/data_tools.py."""

import _init_paths

if __name__ == "__main__":
    _init_paths.run(__file__)
