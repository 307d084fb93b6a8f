"""The command `reproduce` of a checkout; what it does is in lib/simplepose/commands/reproduce.py."""

import _init_paths

if __name__ == "__main__":
    _init_paths.run(__file__)
