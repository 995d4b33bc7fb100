"""Holds what real hosts took against what simulated ones took: tests/sim/fidelity.

compare.py NAME TOLERANCE BLOB_BYTES WIRE_PERCENT REAL SIMULATED...

REAL is what `note_results` of tests/sim/fidelity wrote, SIMULATED are reports of `shoal simulate --json`, one a seed; of
their figures the median counts. Prints the table, and last a line "<name>=<largest difference in percent>". Exit status 1
if a quantile of the completion times differs by more than TOLERANCE percent.
"""

import json
import statistics
import sys

QUANTILES = {"p50": 0.5, "p90": 0.9, "max": 1.0}


def quantile(times, share):
    """By the nearest rank, as the simulator's."""
    return sorted(times)[max(0, -(-round(len(times) * share * 1000) // 1000) - 1)]


def real(path):
    """Seconds of each host, the bytes of the wire that the origin sent, and how many pieces came twice.

    Of the wire, since the metric does not count a piece that was cancelled when half of it was sent."""
    origin, *agents = [line.split() for line in open(path)]
    seconds = [float(agent[2]) for agent in agents]
    return seconds, int(origin[8]), sum(int(agent[6]) for agent in agents)


def simulated(path):
    report = json.load(open(path))
    assert report["unfinished"] == 0, f"{path}: {report['unfinished']} hosts did not finish"
    return [host["complete"] - host["start"] for host in report["hosts"]], report["origin_copies"]


def main():
    name, tolerance, blob, wire_percent, path, *reports = sys.argv[1:]
    seconds, sent, twice = real(path)
    simulations = [simulated(report) for report in reports]
    worst = 0.0
    print(f"{name:<12} {'real s':>9} {'simulated s':>12} {'difference':>11}   seeds")
    for label, share in QUANTILES.items():
        mine = quantile(seconds, share)
        theirs = [quantile(times, share) for times, _ in simulations]
        median = statistics.median(theirs)
        difference = (median / mine - 1) * 100
        worst = max(worst, abs(difference))
        seeds = " ".join(f"{time:.2f}" for time in theirs)
        print(f"  {label:<10} {mine:9.2f} {median:12.2f} {difference:+10.1f}%   {seeds}")
    copies = statistics.median(copies for _, copies in simulations)
    print(f"  {'copies':<10} {sent * 100 / int(wire_percent) / int(blob):9.2f} {copies:12.2f}   (the origin sent; {twice} pieces came twice to a real host)")
    print(f"{name}={worst:.1f}%")
    sys.exit(worst > float(tolerance))


main()
