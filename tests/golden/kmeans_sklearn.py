#!/usr/bin/env python3
"""Writes kmeans_sklearn.txt: the inertia of scikit-learn's KMeans in f64 after some iterations from the first k rows.

    python3 tests/golden/kmeans_sklearn.py > tests/golden/kmeans_sklearn.txt     (scikit-learn 1.9)

The rows are those of tests/training/kmeans.rs: three numbers of a linear congruential generator each, added, and every row moved
to one of 10 places. Format: `n d k iterations inertia`, one run a line.
"""
import numpy
from sklearn.cluster import KMeans


def rows(n, d):
    state, out = 1, numpy.empty((n, d))
    def draw():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 40) / 2**24 - 0.5
    for i in range(n):
        for t in range(d):
            out[i, t] = draw() + draw() + draw() + (i * 7 + t) % 10 / 4
    return out.astype("float32").astype("float64")


for n, d, k, iterations in [(3000, 8, 16, 10), (2000, 2, 50, 10), (1500, 64, 10, 3), (2500, 5, 100, 10), (400, 3, 1, 4)]:
    x = rows(n, d)
    fit = KMeans(k, init=x[:k], n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(x)
    print(n, d, k, iterations, repr(float(fit.inertia_)))
