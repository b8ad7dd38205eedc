// What an open device can do at most, measured on it: the speed of light that steps and benches are held to.

import { deviceRoom, synchronize } from './device.js';
import type { Limits } from './machine.js';
import { ops, type Precision } from './ops.js';
import { type Place, releaseCached, Scope } from './tensor.js';

/** Side of the largest square product: 1.1 TFLOP, 1.5 ms of an H200. */
const LARGEST = 8192;
const SMALLEST = 64;
/** A product that takes longer says enough: the clock, and what a launch costs, are a small part of it. */
const LONG_SECONDS = 0.001;
/** Bytes of a product of side n: x and y in f32, w in bf16, and what is rounded of x on the way. */
const bytesOf = (n: number): number => n * n * (4 + 4 + 2 + 2);

/**
 * The open device's best dense product and its copy of memory, bytes read and written counted. Products grow until one
 * takes a millisecond, so that a slow device answers soon as well, and take at most half of the memory that is left.
 * @param precision 1: of bf16 operands, as a model computes by default; 0: of f32
 */
export function measureDeviceLimits(place: Place, precision: Precision = 1, largest = LARGEST): Limits {
  const best = (run: () => void): number => {
    const times = Array.from({ length: 6 }, () => {
      synchronize();
      const from = performance.now();
      run();
      synchronize();
      return performance.now() - from;
    });
    return Math.min(...times.slice(1)) / 1000;
  };
  const room = deviceRoom();
  let gflops = 0,
    gbPerSecond = 0;
  for (let n = Math.min(SMALLEST, largest); n <= largest; n *= 2) {
    if (n > SMALLEST && bytesOf(n) > room / 2) break;
    using s = new Scope('workspace', place);
    const x = s.empty('f32', [n, n]),
      y = s.empty('f32', [n, n]),
      w = s.empty('bf16', [n, n]);
    ops.random_normal(x, 1, 1);
    ops.random_normal(w, 2, 1);
    const product = best(() => ops.linear_fwd(y, null, x, w, null, null, null, 0, 0, 0, precision, 0)),
      copy = best(() => ops.cast(y, x));
    gflops = Math.max(gflops, (2 * n ** 3) / product / 1e9);
    // The largest alone: what fits a cache would be no limit of memory.
    gbPerSecond = (2 * x.bytes) / copy / 1e9;
    if (product > LONG_SECONDS) break;
  }
  releaseCached();
  return { threads: 0, gflops, gbPerSecond };
}
