// The binomial and beta distributions, for any real number of successes. Probabilities are Loader's saddle-point form
// (2000), which keeps its digits where logarithms of gamma functions would cancel.

const LOG_2PI = 1.8378770664093453;

const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];
/** log Γ(x + 1), x ≥ 0 (Lanczos, g = 7). */
function logFactorial(x: number): number {
  let sum = LANCZOS[0] as number;
  for (let i = 1; i < 9; i++) sum += (LANCZOS[i] as number) / (x + i);
  const t = x + 7.5;
  return 0.5 * LOG_2PI + (x + 0.5) * Math.log(t) - t + Math.log(sum);
}
/** log n! less Stirling's formula. */
function stirlingError(n: number): number {
  if (n < 16) return n === 0 ? 0 : logFactorial(n) - (n + 0.5) * Math.log(n) + n - 0.5 * LOG_2PI;
  const m = 1 / (n * n);
  return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - (1 / 1188) * m) * m) * m) * m) / n;
}
/** x log(x/m) + m − x, which is small where x is near m. */
function deviance(x: number, m: number): number {
  if (Math.abs(x - m) < 0.1 * (x + m)) {
    const v = (x - m) / (x + m);
    let sum = (x - m) * v;
    let term = 2 * x * v;
    for (let j = 1; j < 1000; j++) {
      term *= v * v;
      const next = sum + term / (2 * j + 1);
      if (next === sum) break;
      sum = next;
    }
    return sum;
  }
  return x * Math.log(x / m) + m - x;
}

/** Γ(n+1) / (Γ(x+1) Γ(n−x+1)) · p^x · (1−p)^(n−x), 0 ≤ x ≤ n. */
export function binomialPmf(x: number, n: number, p: number, q = 1 - p): number {
  if (x < 0 || x > n) return 0;
  if (p === 0) return x === 0 ? 1 : 0;
  if (q === 0) return x === n ? 1 : 0;
  if (x === 0) return Math.exp(p < 0.1 ? n * Math.log1p(-p) : n * Math.log(q));
  if (x === n) return Math.exp(q < 0.1 ? n * Math.log1p(-q) : n * Math.log(p));
  const exponent =
    stirlingError(n) - stirlingError(x) - stirlingError(n - x) - deviance(x, n * p) - deviance(n - x, n * q);
  return Math.exp(exponent) * Math.sqrt(n / (2 * Math.PI * x * (n - x)));
}

/** Lentz's evaluation of the continued fraction of the incomplete beta function, x below (a+1)/(a+b+2). */
function betaFraction(a: number, b: number, x: number): number {
  const tiny = 1e-300;
  const safe = (v: number): number => (Math.abs(v) < tiny ? tiny : v);
  let c = 1;
  let d = 1 / safe(1 - ((a + b) * x) / (a + 1));
  let h = d;
  for (let m = 1; m < 1_000_000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / safe(1 + even * d);
    c = safe(1 + even / c);
    h *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / safe(1 + odd * d);
    c = safe(1 + odd / c);
    const step = d * c;
    h *= step;
    if (Math.abs(step - 1) < 1e-16) break;
  }
  return h;
}

/** I_x(a, b): the chance that a Beta(a, b) is at most x. a, b > 0. */
export function betaCdf(x: number, a: number, b: number): number {
  if (!(x > 0)) return 0;
  if (x >= 1) return 1;
  // x^a (1−x)^b / B(a, b)
  const front = (binomialPmf(a, a + b, x) * a * b) / (a + b);
  return x < (a + 1) / (a + b + 2) ? (front * betaFraction(a, b, x)) / a : 1 - (front * betaFraction(b, a, 1 - x)) / b;
}

/** The x with I_x(a, b) = p: Newton's steps inside a bracket that halves where they leave it. */
export function betaQuantile(p: number, a: number, b: number): number {
  if (!(p > 0)) return 0;
  if (p >= 1) return 1;
  let [low, high] = [0, 1];
  let x = a / (a + b);
  for (let i = 0; i < 200; i++) {
    const error = betaCdf(x, a, b) - p;
    if (error > 0) high = x;
    else low = x;
    const density = (binomialPmf(a, a + b, x) * a * b) / (a + b) / (x * (1 - x));
    const step = error / density;
    let next = x - step;
    if (!(next > low && next < high)) next = (low + high) / 2;
    if (Math.abs(next - x) <= 1e-16 * next || high - low <= 1e-16 * high) return next;
    x = next;
  }
  return x;
}

/** P(X ≤ k) of n tries at p; k is rounded down. */
export function binomialCdf(k: number, n: number, p: number): number {
  const at = Math.floor(k);
  if (at < 0) return 0;
  if (at >= n) return 1;
  if (p <= 0) return 1;
  if (p >= 1) return 0;
  // P(X ≤ k) = I_{1−p}(n−k, k+1)
  return betaCdf(1 - p, n - at, at + 1);
}
/** The least k with P(X ≤ k) ≥ probability. */
export function binomialQuantile(probability: number, n: number, p: number): number {
  if (!(probability > 0)) return 0;
  if (probability >= 1) return p <= 0 ? 0 : n;
  let [low, high] = [-1, n];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (binomialCdf(middle, n, p) >= probability) high = middle;
    else low = middle;
  }
  return high;
}
