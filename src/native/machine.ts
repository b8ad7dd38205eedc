// What native code says of the machine: its CPU, and what it can do at most.
import { addon } from './addon.js';
import { getThreads } from './tensor.js';

export interface CpuInfo {
  /** The path that is taken, as in `avx512bf16`. */
  readonly isa: string;
  readonly features: readonly string[];
  readonly threads: number;
  readonly model: string;
}
export const cpuInfo = (): CpuInfo => addon.cpuInfo();
/** Ops in the table of this build. */
export const opCount = (): number => addon.opNames.length;

export interface Limits {
  readonly threads: number;
  readonly gflops: number;
  readonly gbPerSecond: number;
}
/** The best dot product and reading memory, with `threads` at once. Takes about a second and blocks its thread. */
export function measureLimits(threads = getThreads()): Limits {
  const [gflops, gbPerSecond] = addon.measureLimits(threads, 2 ** 30);
  return { threads, gflops, gbPerSecond };
}
