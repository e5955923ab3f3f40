#!/usr/bin/env python3
"""Prints the polynomial of trainer-image/numerics/sigmoids.c for the normal distribution's tail, as C.

    python hack/golden/normal.py

Chebyshev interpolation of (1 + a)·exp(a²/2)·Φ(−a), 0 ≤ a ≤ 15, in t = (a − 5)/(a + 5), after Shepherd and Laframboise,
"Chebyshev approximation of (1 + 2x)·exp(x²)·erfc(x) in 0 ≤ x < ∞", Mathematics of Computation 36, 1981. Needs mpmath.
"""

import argparse

import mpmath as mp

CENTRE, MOST, DEGREE, NODES = 5, 15, 12, 80


def tail(t):
    a = CENTRE * (1 + t) / (1 - t)
    return (1 + a) * mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    mp.mp.dps = 50
    low, high = mp.mpf(-1), mp.mpf(MOST - CENTRE) / (MOST + CENTRE)
    angles = [mp.pi * (j + mp.mpf(1) / 2) / NODES for j in range(NODES)]
    values = [tail((low + high) / 2 + (high - low) / 2 * mp.cos(angle)) for angle in angles]
    series = [2 / mp.mpf(NODES) * sum(v * mp.cos(k * angle) for v, angle in zip(values, angles)) for k in range(NODES)]
    series[0] /= 2

    # Powers of t: T_k of the scaled argument by its recurrence.
    scale = [(low + high) / (low - high), 2 / (high - low)]  # s = scale[0] + scale[1]·t
    before, now = [mp.mpf(1)], scale
    total = [mp.mpf(0)] * (DEGREE + 1)
    for k in range(DEGREE + 1):
        polynomial = before
        for i, c in enumerate(polynomial):
            total[i] += series[k] * c
        after = [mp.mpf(0)] * (len(now) + 1)
        for i, c in enumerate(now):
            after[i] += 2 * scale[0] * c
            after[i + 1] += 2 * scale[1] * c
        for i, c in enumerate(before):
            after[i] -= c
        before, now = now, after
    rest = sum(abs(c) for c in series[DEGREE + 1:]) / min(values)
    print(f"/* relative error below {mp.nstr(rest, 3)} */")
    print("    " + ",\n    ".join(float(c).hex() for c in total))


if __name__ == "__main__":
    main()
