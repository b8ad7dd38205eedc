// Deciding on files, as the main thread does it: a promise. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import type { PairCells } from './cells.js';
import type { DiscordantPair } from './decide.js';
import type { Decision, Subject } from './decision.js';
import type { Metric } from './suite.js';

export interface DecideRequest {
  readonly outcomes: string;
  readonly suite: string;
  readonly lock?: string | undefined;
  readonly labels?: string | undefined;
  /** Where to write the judged pairs that differ, as labels that wait for a person’s word. */
  readonly discordant?: string | undefined;
  readonly subject?: Subject | null | undefined;
  readonly version: string;
}
export interface Decided {
  readonly decision: Decision;
  /** Pairs written to `discordant`. */
  readonly discordant: number;
}
export interface PairsRequest {
  readonly outcomes: string;
  readonly suite: string;
}
/** A judged pair that differs, as people are asked about it. */
export interface AskedPair {
  readonly pair: DiscordantPair;
  readonly cells: PairCells;
  readonly metric: Metric;
}
export type DecideCalls = {
  readonly pairs: { readonly request: PairsRequest; readonly event: never; readonly result: readonly AskedPair[] };
  readonly decide: { readonly request: DecideRequest; readonly event: DecideProgress; readonly result: Decided };
};
/** Metrics and slices that are decided, and how many there are. */
export type DecideProgress = readonly [done: number, of: number];
export interface DecidingOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, of: number) => void) | undefined;
}
/** decideFiles in a thread. @throws as decideFiles · the signal's reason */
export const decideOnFiles = (request: DecideRequest, { signal, onProgress }: DecidingOptions = {}): Promise<Decided> =>
  runInThread<DecideCalls, 'decide'>('gate/decide-worker.js', 'decide', request, {
    signal,
    onEvent: ([done, of]) => onProgress?.(done, of),
  });
/** discordantOf in a thread. @throws as discordantOf · the signal's reason */
export const pairsOnFiles = (request: PairsRequest, signal?: AbortSignal): Promise<readonly AskedPair[]> =>
  runInThread<DecideCalls, 'pairs'>('gate/decide-worker.js', 'pairs', request, { signal });
