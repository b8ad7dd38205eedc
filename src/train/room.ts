// How a run uses the memory there is: decided by dry steps, which count what each way would take.

import { backendOf } from '../native/backends.js';
import type { DryRunReport } from '../native/plan.js';
import type { Place } from '../native/tensor.js';
import { type MemoryModes, type MemoryUse, usesOf } from './memory-use.js';

/** Memory that a run may take, bytes; NaN: not known. */
export interface Room {
  readonly host: number;
  /** Of a GPU, all of it that may be taken, by whomever. */
  readonly device: number;
}
/** Of a device's memory: the rest is for blocks that come in another order than in the dry step. */
const SHARE_OF_DEVICE = 0.95;
/** Of what a step leaves of the host's memory beside the mapped files: other programs want some too. */
const SHARE_OF_HOST = 0.5;

/**
 * The first way whose dry step fits the device, else the last one, and how much may be kept in what that leaves.
 * @param tokens of the largest batch that `dry` runs
 * @returns needed: bytes of the device, rounding and gaps included, with nothing kept
 */
export function chooseUse(
  modes: MemoryModes,
  place: Place,
  tokens: number,
  room: Room,
  dry: (use: MemoryUse) => Pick<DryRunReport, 'totalPeak' | 'mappedBytes' | 'device'>,
): { readonly use: MemoryUse; readonly needed: number } {
  const { recompute = 'auto' } = modes,
    { ownMemory } = backendOf(place);
  // What is in use must leave a share of the device, and what is held for it, with rounding and gaps, must fit.
  const left = ({ totalPeak, mappedBytes, device }: ReturnType<typeof dry>): number =>
    ownMemory
      ? Math.min(room.device * SHARE_OF_DEVICE - device.totalPeak, room.device - device.heldPeak)
      : SHARE_OF_HOST * (room.host - totalPeak - mappedBytes);
  const uses = usesOf(modes, place);
  for (const [i, use] of uses.entries()) {
    const report = dry(use),
      bytes = left(report);
    if (ownMemory && bytes < 0 && i + 1 < uses.length) continue;
    // Of room that is not known nothing is kept.
    const keepBytes = recompute === 'always' ? 0 : recompute === 'never' ? Infinity : Math.max(0, bytes) || 0;
    return {
      use: { ...use, keepBytes, tokens },
      needed: report.device.heldPeak,
    };
  }
  throw new RangeError('usesOf gave none');
}
