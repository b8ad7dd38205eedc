// Verdicts of a screening that was stopped: kept beside the output, and taken again by the next run where policy, text
// and judge are the same by their digests. Nothing that was paid for is asked twice.
import { readdir, readFile, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { parseJson } from '../../base/json.js';
import { isAlive } from '../../base/temporary.js';
import { CONTRACT_NAMES } from '../contracts/contract.js';
import type { KnownVerdict } from '../screen.js';
import type { Verdict } from '../types.js';

const digest = z.string().min(1);
/** Only what was judged: an `unjudged` is asked again. Keys stand in the order of a fresh verdict. */
const Kept = z.strictObject({
  id: z.string(),
  line: z.int(),
  expect: z.string().nullish(),
  policy: z.string(),
  channel: z.string(),
  digests: z.strictObject({ policy: digest, content: digest, judge: digest, detectors: digest.optional() }),
  outcome: z.enum(['allow', 'block']),
  rule: z.string().nullable(),
  rationale: z.string(),
  cause: z.null(),
  detail: z.literal(''),
  latencyMs: z.number(),
  score: z.number().optional(),
  threshold: z.number().optional(),
  contract: z.enum(CONTRACT_NAMES).optional(),
  detectors: z.record(z.string(), z.enum(['clear', 'block', 'off'])).optional(),
});

/** Where verdicts of a stopped run lie. */
export const keptPath = (output: string): string => `${output}.part`;
/** Where this process writes before it is done. */
export const ownPart = (output: string): string => `${output}.${process.pid}.part`;

/** Parts of `output` that no living process writes: those of a run that was stopped, or killed. */
async function leftovers(output: string): Promise<readonly string[]> {
  const [folder, name] = [dirname(output), basename(output)];
  const names = await readdir(folder).catch(() => [] as string[]);
  return names
    .filter((entry) => {
      if (entry === `${name}.part`) return true;
      if (!entry.startsWith(`${name}.`) || !entry.endsWith('.part')) return false;
      const pid = entry.slice(name.length + 1, -5);
      return /^[0-9]{1,10}$/.test(pid) && !isAlive(Number(pid));
    })
    .map((entry) => join(folder, entry));
}

export interface KeptVerdicts {
  readonly count: number;
  /** The verdict over that text, wherever in the file it stood. */
  readonly find: KnownVerdict;
  /** Removes the files they came from: the output, or a new part, holds them now. */
  remove(): Promise<void>;
}

/** What runs that were stopped left of `output`. Lines that were cut, or are no verdict, are passed over. */
export async function readKept(output: string): Promise<KeptVerdicts> {
  const files = await leftovers(output);
  const found = new Map<string, Verdict>();
  const key = (policy: string, channel: string, digests: Verdict['digests']): string =>
    JSON.stringify([policy, channel, digests.policy, digests.content, digests.judge]);
  for (const file of files)
    for (const line of (await readFile(file, 'utf8').catch(() => '')).split('\n')) {
      const row = parse(line);
      if (row) found.set(key(row.policy, row.channel, row.digests), row);
    }
  return {
    count: found.size,
    find: (policy, channel, digests) => found.get(key(policy, channel, digests)),
    async remove() {
      for (const file of files) await rm(file, { force: true });
    },
  };
}

function parse(line: string): Verdict | null {
  try {
    // Detectors look again: what they said then is theirs.
    const { id: _, line: __, expect: ___, detectors: ____, ...kept } = Kept.parse(parseJson(line));
    const { policy, channel, digests, contract, score, threshold, ...rest } = kept;
    const { detectors: _____, ...own } = digests;
    const scored = { ...(score === undefined ? {} : { score }), ...(threshold === undefined ? {} : { threshold }) };
    const verdict: Verdict = { policy, channel, digests: own, ...(contract ? { contract } : {}), ...rest, ...scored };
    return (verdict.outcome === 'block') === (verdict.rule !== null) ? verdict : null;
  } catch {
    return null;
  }
}
