"""Many seeds, one after another; names each that breaks a promise, with its story.

python -m tests.simulation.soak --seeds 1000 [--first 0]
"""

import argparse
import contextlib
import sys
import time

from tests.simulation.simulation import simulate
from tests.simulation.story import draw_story


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description="Simulates regions.")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    options = parser.parse_args()
    began, fallen = time.process_time(), []
    done = 0
    # Ended by Ctrl-C it says what it has seen until then.
    with contextlib.suppress(KeyboardInterrupt):
        for seed in range(options.first, options.first + options.seeds):
            broken = simulate(seed)
            done += 1
            if broken:
                fallen.append(seed)
                print(f"seed {seed}:", *broken, draw_story(seed), sep="\n  ", flush=True)
    per_s = done / (time.process_time() - began)
    print(f"{done} seeds, {per_s:.2f} per second of CPU, fallen: {fallen or 'none'}")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
