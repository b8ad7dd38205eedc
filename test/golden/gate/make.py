# Makes statistics.json: what test/gate/statistics.test.ts holds src/gate/statistics to.
# python3 test/golden/gate/make.py   (numpy 2.4, scipy 1.17, mpmath 1.3)
# scipy has neither Tango's interval nor McNemar's mid-p. Tango's is found here by roots alone: of the derivative of the
# likelihood for the nuisance parameter, then of score = ±z for each bound. McNemar's is scipy's exact binomial test,
# less the chance of what was seen. The bootstrap is scipy.stats.bootstrap itself, made to draw what ours draws.
import hashlib
import json
import os

import mpmath
import numpy as np
from scipy import optimize, stats


def nuisance(b, c, n, delta):
    """Likeliest share of pairs against, where the shares differ by delta: root of the score, in between its poles."""
    low, high = max(0.0, -delta), (1 - delta) / 2
    rest = n - b - c

    def slope(q):  # of the log-likelihood, times its denominators, which are positive inside
        return b * q * (1 - 2 * q - delta) + c * (q + delta) * (1 - 2 * q - delta) - 2 * rest * q * (q + delta)

    inside = np.nextafter(low, 1), np.nextafter(high, 0)
    if b + c == 0 or high <= low:
        return low
    # At a pole the product is 0 whatever the likelihood does beside it.
    near = low + 1e-12 * max(1e-3, high - low)
    if slope(near) <= 0:
        return low
    if slope(inside[1]) >= 0:
        return high
    return optimize.brentq(slope, near, inside[1], xtol=1e-18, rtol=8.9e-16)


def tango(b, c, n, level):
    z = stats.norm.ppf((1 + level) / 2)
    found = (b - c) / n

    def score(delta):
        variance = max(0.0, 2 * nuisance(b, c, n, delta) + delta * (1 - delta))
        return (found - delta) * np.sqrt(n) - np.sign(found - delta) * z * np.sqrt(variance)

    def bound(end):
        # The score turns its sign once between what was found and the end.
        outside = abs(found - end) * np.sqrt(n) > z * np.sqrt(max(0.0, 2 * nuisance(b, c, n, end) + end * (1 - end)))
        if not outside:
            return end
        start = found + np.sign(end - found) * 1e-13
        return optimize.brentq(score, start, end, xtol=1e-16, rtol=8.9e-16, maxiter=1000)

    return [bound(-1.0), bound(1.0)]


def mid_p(k, n, level):
    tail = (1 - level) / 2
    below = lambda p: stats.binom.cdf(k - 1, n, p) + stats.binom.pmf(k, n, p) / 2 - tail
    above = lambda p: stats.binom.sf(k, n, p) + stats.binom.pmf(k, n, p) / 2 - tail
    root = lambda f: optimize.brentq(f, 0, 1, xtol=1e-17, rtol=8.9e-16)
    return [0.0 if k == 0 else root(above), 1.0 if k == n else root(below)]


def mcnemar(b, c):
    if b + c == 0:
        return [1.0, 1.0]
    exact = stats.binomtest(b, b + c, 0.5).pvalue
    return [exact, min(1.0, 2 * stats.binom.cdf(min(b, c), b + c, 0.5) - stats.binom.pmf(min(b, c), b + c, 0.5))]


def mean_bound(sums, counts, most, alpha):
    """Gaffke's bound, exactly: the chance that a sum of exponentials lies above 0, by partial fractions."""
    mpmath.mp.dps = 80
    sums, counts = [mpmath.mpf(float(s)) for s in sums], [mpmath.mpf(float(c)) for c in counts]

    def above(mean):
        a = [s - mean * c for s, c in zip(sums, counts)] + [max(counts) * (most - mean)]
        parts = (mpmath.fprod(1 / (1 - y / x) for j, y in enumerate(a) if j != i) for i, x in enumerate(a) if x > 0)
        return mpmath.fsum(parts)

    low, high = (mpmath.fsum(sums) + max(counts) * most) / (mpmath.fsum(counts) + max(counts)), mpmath.mpf(most)
    for _ in range(48):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > alpha else (low, middle)
    return float(high)


M = 0xFFFFFFFF


class Stream:
    """sfc32, as src/gate/statistics/random.ts has it."""

    def __init__(self, *of):
        text = json.dumps(list(of), separators=(",", ":"))
        self.s = list(np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u4").astype(int))

    def __call__(self):
        a, b, c, d = map(int, self.s)
        t = (a + b + d) & M
        self.s = [b ^ (b >> 9), (c + (c << 3)) & M, ((((c << 21) | (c >> 11)) & M) + t) & M, (d + 1) & M]
        return t


class Drawn(np.random.Generator):
    """Gives scipy.stats.bootstrap the indices that ours draws, stratum after stratum."""

    def __new__(cls, *_):
        return super().__new__(cls, np.random.PCG64(0))

    def __init__(self, sizes, resamples, seed, purpose):
        super().__init__(np.random.PCG64(0))
        self.tables = [np.empty((resamples, n), dtype=int) for n in sizes]
        self.at = 0
        for r in range(resamples):
            if r % 256 == 0:
                stream = Stream(seed, purpose, r // 256)
            for table, n in zip(self.tables, sizes):
                for i in range(n):
                    table[r, i] = ((stream() ^ 0x80000000) * n) >> 32

    def integers(self, low, high=None, size=None, dtype=None, endpoint=False):
        table = self.tables[self.at]
        self.at += 1
        assert table.shape == tuple(size), (table.shape, size)
        return table


def bootstrap(data, statistic, level, resamples, seed, purpose, paired):
    sizes = [len(data[0])] if paired else [len(d) for d in data]
    rng = Drawn(sizes, resamples, seed, purpose)
    result = stats.bootstrap(
        data, statistic, n_resamples=resamples, confidence_level=level, method="BCa", paired=paired, rng=rng,
        vectorized=False,
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def main():
    rng = np.random.default_rng(5)
    out = {}
    ps = [1e-300, 1e-20, 1e-10, 1e-4, 0.00135, 0.025, 0.05, 0.31, 0.5, 0.77, 0.95, 0.975, 0.99865, 1 - 1e-10]
    out["student"] = [
        [p, df, float(stats.t.ppf(p, df))] for p in (0.75, 0.9, 0.95, 0.975, 0.9995) for df in (0.5, 1, 4, 29.5, 59, 1e5)
    ]
    out["normalQuantile"] = [[p, float(stats.norm.ppf(p))] for p in ps]
    out["normalCdf"] = [[x, float(stats.norm.cdf(x))] for x in [-37, -12.5, -5, -3.01, -2.99, -1, 0, 0.3, 2, 3.5, 8, 30]]
    shapes = [(1, 1), (0.5, 0.5), (0.4, 7.3), (3, 98), (1, 300), (60, 4), (2.25, 40.75), (501, 500), (12, 99989), (5e4, 5e4)]
    out["betaQuantile"] = [
        [p, a, b, float(stats.beta.ppf(p, a, b))] for a, b in shapes for p in (1e-6, 0.025, 0.05, 0.5, 0.95, 0.975, 0.999)
    ]
    out["betaCdf"] = [[x, a, b, float(stats.beta.cdf(x, a, b))] for a, b in shapes for x in (0.001, 0.02, 0.3, 0.5, 0.97)]
    tries = [(0, 1, 0.5), (3, 10, 0.3), (10, 10, 0.9), (0, 400, 0.01), (57, 100, 0.5), (999, 2000, 0.51), (120, 100000, 0.001)]
    out["binomial"] = [
        [k, n, p, float(stats.binom.pmf(k, n, p)), float(stats.binom.cdf(k, n, p)), int(stats.binom.ppf(0.9, n, p))]
        for k, n, p in tries
    ]
    rates = [(0, 1), (1, 1), (0, 30), (30, 30), (1, 100), (7, 313), (0, 1000), (250, 450), (99, 100), (50, 50000)]
    out["rates"] = []
    for k, n in rates:
        for level in (0.9, 0.95):
            test = stats.binomtest(k, n)
            exact, score = test.proportion_ci(level, "exact"), test.proportion_ci(level, "wilson")
            out["rates"].append([k, n, level, exact.low, exact.high, score.low, score.high, *mid_p(k, n, level)])
    pairs = [
        (0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 100), (100, 0, 100), (0, 100, 100), (50, 50, 100), (1, 1, 2), (3, 0, 50),
        (0, 3, 50), (5, 5, 40), (12, 4, 300), (4, 12, 300), (43, 8, 44 + 9), (1, 7, 857), (300, 290, 2000), (9, 30, 40000),
        (25, 0, 30), (7, 25, 32), (2, 1, 5),
    ]
    pairs = [(b, c, max(n, b + c)) for b, c, n in pairs]
    out["pairs"] = []
    for b, c, n in pairs:
        for level in (0.9, 0.95, 0.99):
            out["pairs"].append([b, c, n, level, *tango(b, c, n, level), *mcnemar(b, c)])

    out["bootstrap"] = []
    R, seed = 999, 11

    def case(name, strata, statistic, level, paired):
        low, high = bootstrap(strata, statistic, level, R, seed, name, paired)
        lists = [[float(v) for v in s] for s in strata]
        out["bootstrap"].append({"name": name, "columns": lists, "level": level, "low": low, "high": high})

    mean = lambda x: np.mean(x)
    case("lognormal", (rng.lognormal(0, 1, 40),), mean, 0.9, False)
    # Sums of whole numbers: a tie is a tie in every order of adding.
    case("ties", (rng.integers(-3, 4, 60),), mean, 0.95, False)
    case("rare", (np.r_[np.zeros(70), np.ones(4), -np.ones(1)],), mean, 0.9, False)
    case("two", (np.array([0.25, 0.75]),), mean, 0.9, False)
    counts = rng.integers(1, 6, 30)
    case("families", (rng.normal(0.1, 1, 30) * counts, counts.astype(float)), lambda s, m: np.sum(s) / np.sum(m), 0.95, True)
    x, y = rng.random(35), rng.random(20)
    case("product", (x, y), lambda a, b: np.mean(a) * np.mean(b), 0.95, False)
    out["resamples"], out["seed"] = R, seed

    # Rogan and Gladen by the delta method, all of whose derivatives are found numerically.
    def slopes(f, at):
        at = np.array(at, dtype=np.longdouble)
        step = np.longdouble(1e-6)
        return np.array([float((f(at + e) - f(at - e)) / (2 * step)) for e in np.eye(len(at)) * step])

    rate_of = lambda q, se, sp: (q + sp - 1) / (se + sp - 1)
    ends = lambda k, n, level: np.array(stats.binomtest(k, n).proportion_ci(level, "wilson"))
    counted = ((100, 90, 100, 95), (60, 60, 80, 80), (50, 30, 50, 35))
    observed = ((0.05, 0.06, 400, -0.01, 0.033), (0.0, 0.0, 300, -0.009, 0.009), (0.4, 0.2, 90, -0.3, -0.1))
    share = lambda x, n: np.clip(x, 0.5, n - 0.5) / n
    variance = lambda x, n: share(x, n) * (1 - share(x, n)) / n
    clip = lambda v, least: float(np.clip(v, least, 1))
    out["corrected"], out["correctedApart"], out["correctedRate"] = [], [], []
    for level in (0.9, 0.95):
        z = stats.norm.ppf((1 + level) / 2)
        for base, adapter, n, low, high in observed:
            raw = adapter - base
            for i, (pos, hit, neg, ok) in enumerate(counted):
                d = raw / (hit / pos + ok / neg - 1)
                by = slopes(lambda x: raw / (x[0] + x[1] - 1), [hit / pos, ok / neg])
                judging = z * z * (by**2 @ [variance(hit, pos), variance(ok, neg)])
                factor = d / raw if raw else 1 / (hit / pos + ok / neg - 1)
                lo = d - np.sqrt(((raw - low) * factor) ** 2 + judging)
                hi = d + np.sqrt(((high - raw) * factor) ** 2 + judging)
                out["corrected"].append([level, base, adapter, n, low, high, pos, hit, neg, ok, *(clip(v, -1) for v in (d, lo, hi))])

                # Each arm with counts of its own: all of q0, q1 and four shares; covariance from the width seen.
                pos1, hit1, neg1, ok1 = counted[(i + 1) % 3]
                at = [base, adapter, hit / pos, ok / neg, hit1 / pos1, ok1 / neg1]
                f = lambda x: rate_of(x[1], x[4], x[5]) - rate_of(x[0], x[2], x[3])
                d, by = float(f(np.array(at))), slopes(f, at)
                # What a rate outside [0, 1] would make of the judge's errors is not told.
                for q, shares, own in ((base, (2, 3), slice(2, 4)), (adapter, (4, 5), slice(4, 6))):
                    se, sp = (at[s] for s in shares)
                    p = np.clip(rate_of(q, se, sp), 0, 1)
                    by[own] = np.array([-p, 1 - p]) / (se + sp - 1)
                judging = z * z * (by[2:] ** 2 @ [variance(hit, pos), variance(ok, neg), variance(hit1, pos1), variance(ok1, neg1)])
                v0, v1 = base * (1 - base) / n, adapter * (1 - adapter) / n
                found = []
                for side, width in ((-1, raw - low), (1, high - raw)):
                    whole = (width / z) ** 2
                    # Of difference and mean, whose correlation is at most 1.
                    mean = max(0.0, (v0 + v1) / 2 - whole / 4)
                    both = np.clip((v1 - v0) / 2, -np.sqrt(whole * mean), np.sqrt(whole * mean))
                    to = np.array([(by[1] - by[0]) / 2, by[0] + by[1]])
                    spread = to @ np.array([[whole, both], [both, mean]]) @ to
                    found.append(d + side * np.sqrt(z * z * spread + judging))
                counts = [pos, hit, neg, ok, pos1, hit1, neg1, ok1]
                out["correctedApart"].append([level, base, adapter, n, low, high, *counts, *(clip(v, -1) for v in (d, *found))])
        for value, low, high in ((0.06, 0.03, 0.1), (0.0, 0.0, 0.01), (0.4, 0.31, 0.5)):
            for pos, hit, neg, ok in counted:
                at = [value, hit / pos, ok / neg]
                r = rate_of(*at)
                j, p = at[1] + at[2] - 1, np.clip(r, 0, 1)
                # Least and greatest of each, moved alone, to first order.
                (se0, se1), (sp0, sp1) = ends(hit, pos, level), ends(ok, neg, level)
                to = np.array([1, -p, 1 - p]) / j
                lo = np.linalg.norm(to * (np.array([low, se1, sp0]) - at))
                hi = np.linalg.norm(to * (np.array([high, se0, sp1]) - at))
                out["correctedRate"].append([level, value, low, high, pos, hit, neg, ok, *(clip(v, 0) for v in (r, r - lo, r + hi))])

    # Prompts for a power, by the score test's two variances.
    out["power"] = []
    for margin, d in ((0.02, 0.02), (0.02, 0.04), (0.02, 0.1), (0.03, 0.04), (0.01, 0.02), (0.05, 0.3)):
        for power in (0.8, 0.9):
            za, zb = stats.norm.ppf(0.95), stats.norm.ppf(power)
            q = nuisance(d / 2, d / 2, 1, margin)
            at = np.sqrt(2 * q + margin * (1 - margin))
            # Half a pair more got worse: the root of a function of n.
            short = lambda n: (margin - 0.5 / n) * np.sqrt(n) - za * at - zb * np.sqrt(d)
            score = optimize.brentq(short, 1, 1e7, xtol=1e-9)
            plain = ((za + zb) / margin) ** 2 * d
            out["power"].append([margin, d, power, int(np.ceil(score)), int(np.ceil(plain))])

    # Sums and sizes of clusters below the greatest mean; no two alike, which partial fractions need.
    draw = np.random.default_rng(7)
    out["boundedMean"] = []
    for n, most, sizes in ((5, 1.0, 1), (20, 1.0, 1), (30, 3.0, 1), (25, 1.0, 6), (80, 1.0, 1)):
        counts = draw.integers(1, sizes + 1, n).astype(float)
        for values in (draw.normal(0, 0.1, n), 1 - draw.random(n) ** 0.1, draw.normal(-0.05, 0.01, n)):
            sums = np.round(np.minimum(values, most * 0.99) * counts, 6)
            columns = [[float(v) for v in column] for column in (sums, counts)]
            bounds = [[alpha, mean_bound(sums, counts, most, alpha)] for alpha in (0.005, 0.05, 0.25)]
            out["boundedMean"].append({"columns": columns, "most": most, "bounds": bounds})

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "statistics.json")
    with open(path, "w") as file:
        json.dump(out, file)
        file.write("\n")
    print(os.path.getsize(path), {k: len(v) for k, v in out.items() if isinstance(v, list)})


main()
