// The CUDA backend compiled for the host (native/emulation) as a backend library: everything above the kernels is
// tested as on a GPU. `npm run build:native -- --tests` builds it; where TEMPER_CUDA_LIBRARY names the real one,
// model.test.ts and train.test.ts run on the GPU. Import this file before anything opens a device.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/base/machine.js';

export const emulatedLibrary = join(packageRoot, 'build', 'temper_cuda_emulated.so');
if (!existsSync(emulatedLibrary)) throw new Error(`${emulatedLibrary} is missing; run npm run build:native -- --tests`);
process.env.TEMPER_CUDA_LIBRARY ??= emulatedLibrary;

/** The largest |a − b| over the largest |b|. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0,
    scale = 0;
  for (let i = 0; i < b.length; i++) {
    const d = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (!(d <= worst)) worst = d; // NaN too
    scale = Math.max(scale, Math.abs(b[i] ?? 0));
  }
  return worst / (scale || 1);
}
