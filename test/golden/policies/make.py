# Makes calibration.json: figures of made-up scores, computed by numpy and scipy, for test/safeguard/statistics.test.ts.
# python3 test/golden/policies/make.py   (numpy 2.4.6, scipy 1.17.1)
import json
import os

import numpy as np
from scipy import stats

RESAMPLES, SEED, FPR, BINS = 400, 7, 0.05, 10


def figures(score, y, verdict):
    """F1 of the verdicts; recall at FPR, ECE and the threshold of the highest F1 of the scores."""
    tp, fp, fn = (verdict & y).sum(), (verdict & ~y).sum(), (~verdict & y).sum()
    f1 = 2 * tp / (2 * tp + fp + fn)
    alarms = lambda t: ((score >= t) & ~y).sum() / (~y).sum()
    recall = max(((score >= t) & y).sum() / y.sum() for t in np.append(score, np.inf) if alarms(t) <= FPR)
    p = 1 / (1 + np.exp(-score))
    bins = np.minimum(BINS - 1, np.floor(p * BINS)).astype(int)
    ece = sum(abs(p[bins == b].sum() - y[bins == b].sum()) for b in range(BINS)) / len(y)
    distinct = np.unique(score)
    cuts = np.concatenate([[distinct[0] - 1], (distinct[1:] + distinct[:-1]) / 2, [distinct[-1] + 1]])
    of = np.array([2 * ((score >= t) & y).sum() / ((score >= t).sum() + y.sum()) for t in cuts])
    threshold = cuts[np.argmax(of)]  # the lowest of equals
    return np.array([f1, recall, ece, threshold])


class Indices:
    """mulberry32, its 32 bits scaled: as src/safeguard/policies/statistics.ts draws."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self, n):
        m = 0xFFFFFFFF
        self.state = (self.state + 0x6D2B79F5) & m
        t = self.state
        t = ((t ^ (t >> 15)) * (t | 1)) & m
        t ^= (t + ((t ^ (t >> 7)) * (t | 61))) & m
        return int(((t ^ (t >> 14)) & m) / 2**32 * n)


def bca(score, y, verdict, strata):
    """BCa as scipy.stats.bootstrap has it for several samples (ties count half), on the draws of Indices."""
    point = figures(score, y, verdict)
    draw = Indices(SEED)
    boots = []
    for _ in range(RESAMPLES):
        rows = [s[draw(len(s))] for s in strata for _ in range(len(s))]
        boots.append(figures(score[rows], y[rows], verdict[rows]))
    boots = np.array(boots)
    cubes, squares = 0, 0
    for s in strata:
        n = len(s)
        left = []
        for row in s:
            keep = np.array([i for i in range(len(y)) if i != row])
            left.append(figures(score[keep], y[keep], verdict[keep]))
        left = np.array(left)
        influence = (n - 1) * (left.mean(axis=0) - left) / n
        cubes += (influence**3).sum(axis=0)
        squares += (influence**2).sum(axis=0)
    out = []
    for k in range(4):
        b, v = boots[:, k], point[k]
        share = ((b < v).sum() + (b == v).sum() / 2) / len(b)
        a = cubes[k] / (6 * squares[k] ** 1.5) if squares[k] > 0 else 0.0
        z0 = stats.norm.ppf(share)
        end = lambda z: stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
        z = stats.norm.ppf(0.025)
        low, high = np.quantile(b, end(z)), np.quantile(b, end(-z))
        out.append({"value": v, "low": min(low, v), "high": max(high, v)})
    return out


def scipy_f1(y, verdict):
    """F1's interval by scipy.stats.bootstrap itself, with its own draws: equal up to the chance of drawing."""
    def f1(pos, neg):
        tp, fn, fp = pos.sum(), (1 - pos).sum(), neg.sum()
        return 2 * tp / (2 * tp + fp + fn)
    got = stats.bootstrap(
        (verdict[y].astype(float), verdict[~y].astype(float)), f1, vectorized=False, n_resamples=4000, method="BCa",
        rng=np.random.default_rng(3),
    )
    return [float(got.confidence_interval.low), float(got.confidence_interval.high)]


def case(name, n, share, shift, noise, seed, ties=False):
    rng = np.random.default_rng(seed)
    y = np.arange(n) < round(n * share)
    score = np.where(y, shift, -shift) + rng.normal(0, noise, n)
    score = np.round(score * 2) / 2 if ties else np.round(score, 6)
    order = rng.permutation(n)
    y, score = y[order], score[order]
    verdict = score >= 0.3
    # In the order in which rows of an expectation are first seen.
    first = bool(y[0])
    strata = [np.flatnonzero(y == first), np.flatnonzero(y != first)]
    f1, recall, ece, threshold = bca(score, y, verdict, strata)
    return {
        "name": name,
        "score": score.tolist(),
        "violates": y.tolist(),
        "blocked": verdict.tolist(),
        "f1": f1,
        "recallAtFpr": recall,
        "ece": ece,
        "threshold": threshold,
        "scipyF1": scipy_f1(y, verdict),
    }


rates = []
for k, n in [(0, 10), (10, 10), (1, 30), (29, 30), (37, 64), (450, 1000), (1, 1), (0, 1), (3, 100000)]:
    ci = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    rates.append({"k": k, "n": n, "low": float(ci.low), "high": float(ci.high)})
ps = [1e-5, 1e-3, 0.025, 0.2, 0.5, 0.777, 0.975, 0.99999]
golden = {
    "fpr": FPR,
    "resamples": RESAMPLES,
    "seed": SEED,
    "wilson": rates,
    "normal": [{"p": p, "x": float(stats.norm.ppf(p))} for p in ps],
    "cases": [
        case("apart", 40, 0.5, 1.5, 1.0, 1),
        case("mixed", 90, 0.4, 0.7, 1.6, 2),
        case("ties", 60, 0.5, 1.0, 1.5, 3, ties=True),
    ],
}
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "calibration.json")
with open(path, "w") as f:
    json.dump(golden, f, default=float)
    f.write("\n")
