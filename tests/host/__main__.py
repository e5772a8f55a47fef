"""python3 -m host root RELEASE [LAYER...]: builds a cached root and prints its path."""

import sys

from .roots import LAYERS, RELEASES, cached_root


def main(arguments):
    if len(arguments) < 2 or arguments[0] != "root":
        print(f"usage: python3 -m host root {'|'.join(RELEASES)} [{'|'.join(LAYERS)}]...", file=sys.stderr)
        return 2
    print(cached_root(*arguments[1:]))
    return 0


sys.exit(main(sys.argv[1:]))
