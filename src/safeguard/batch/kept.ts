// Verdicts of runs before: of one that was stopped or killed, in parts beside the output, and of one that was complete,
// in the output itself. The next run takes those whose policy, text and judge are the same by their digests. Nothing
// that was paid for is asked twice. Of each verdict 16 bytes are held: where it stands.
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { parseJson } from '../../base/json.js';
import { isAlive } from '../../base/temporary.js';
import type { VerdictRow } from '../agreement.js';
import { CONTRACT_NAMES } from '../contracts/contract.js';
import type { KnownVerdict } from '../screen.js';
import type { Verdict } from '../types.js';
import { VIEW_NAMES } from '../views/index.js';
import { lineBatches } from './lines.js';
import { type Asked, VerdictIndex } from './verdict-index.js';
import { verdictLine } from './verdict-line.js';

const digest = z.string().min(1);
/** Only what was judged: an `unjudged` is asked again. Keys stand in the order of a fresh verdict; others are kept. */
const Kept = z.looseObject({
  row: z.int().optional(),
  id: z.string(),
  line: z.int(),
  file: z.string().optional(),
  expect: z.string().nullish(),
  policy: z.string(),
  channel: z.string(),
  digests: z.looseObject({ policy: digest, content: digest, judge: digest, detectors: digest.optional() }),
  outcome: z.enum(['allow', 'block']),
  rule: z.string().nullable(),
  rationale: z.string(),
  cause: z.null(),
  detail: z.literal(''),
  latencyMs: z.number(),
  score: z.number().optional(),
  threshold: z.number().optional(),
  coverage: z
    .strictObject({ characters: z.int(), judged: z.int(), windows: z.int(), views: z.array(z.enum(VIEW_NAMES)) })
    .optional(),
  view: z.enum(VIEW_NAMES).optional(),
  votes: z.strictObject({ allow: z.int(), block: z.int(), unjudged: z.int() }).optional(),
  backend: z.string().optional(),
  contract: z.enum(CONTRACT_NAMES).optional(),
  detectors: z.record(z.string(), z.enum(['clear', 'block', 'off'])).optional(),
});

/** Where verdicts of a stopped run lie. */
export const keptPath = (output: string): string => `${output}.part`;
const own = new Set<string>();
/**
 * Where this process writes before it is done: a name that is not there. A process before it may have had the same
 * number, as in containers they all do.
 */
export function ownPart(output: string): string {
  for (let n = 0; ; n++) {
    const name = `${output}.${process.pid}${n === 0 ? '' : `-${n}`}.part`;
    if (own.has(name) || existsSync(name)) continue;
    own.add(name);
    return name;
  }
}
/** It is done, or what it left is the next run's. */
export const letGo = (part: string): void => void own.delete(part);

/** Parts of `output` that no living process writes: those of a run that was stopped, or killed. */
async function leftovers(output: string): Promise<readonly string[]> {
  const [folder, name] = [dirname(output), basename(output)];
  const names = await readdir(folder).catch(() => [] as string[]);
  return names
    .filter((entry) => {
      if (entry === `${name}.part`) return true;
      if (!entry.startsWith(`${name}.`) || !entry.endsWith('.part')) return false;
      const pid = /^([0-9]{1,10})(?:-[0-9]{1,6})?$/.exec(entry.slice(name.length + 1, -5))?.[1];
      if (pid === undefined) return false;
      return Number(pid) === process.pid ? !own.has(join(folder, entry)) : !isAlive(Number(pid));
    })
    .map((entry) => join(folder, entry));
}

export interface KeptVerdicts {
  /** How many there are. */
  readonly count: number;
  /** The verdict over that text, wherever in the files it stands. */
  readonly find: KnownVerdict;
  /** Removes the parts: the output holds them now. */
  remove(): Promise<void>;
  close(): void;
}

/** Whether a verdict is one on that: all digests that are asked for, whatever they are of, are its. */
export function isSame(asked: Asked, v: Verdict): boolean {
  if (v.policy !== asked.policy || v.channel !== asked.channel) return false;
  const own: Readonly<Record<string, unknown>> = v.digests;
  const names = Object.keys(asked.digests);
  return (
    names.length === Object.keys(own).length &&
    names.every((name) => own[name] === (asked.digests as Readonly<Record<string, unknown>>)[name])
  );
}

/**
 * What runs before left of `output`. Lines that were cut, or are no verdict, are passed over.
 * @param whole takes the output of a complete run, too
 */
export async function readKept(output: string, whole: boolean, signal?: AbortSignal): Promise<KeptVerdicts> {
  const parts = await leftovers(output);
  const isFile =
    whole &&
    (await stat(output).then(
      (s) => s.isFile(),
      () => false,
    ));
  const files: { readonly path: string; readonly fd: number }[] = [];
  const index = new VerdictIndex();
  for (const path of [...(isFile ? [output] : []), ...parts]) {
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch {
      continue; // what cannot be read is not there
    }
    files.push({ path, fd });
    await scan(path, (verdict, at) => index.set(verdict, files.length - 1, at), signal);
  }
  const window = new Window(files.map((f) => f.fd));
  return {
    count: index.size,
    find(policy, channel, digests) {
      const asked: Asked = { policy, channel, digests };
      const place = index.get(asked);
      if (!place) return undefined;
      const found = verdictIn(window.lineAt(place.file, place.at));
      return found && isSame(asked, found) ? found : undefined;
    },
    async remove() {
      for (const part of parts) await rm(part, { force: true });
    },
    close() {
      for (const { fd } of files.splice(0)) closeSync(fd);
    },
  };
}

/** Every verdict that may count, with the place of its line. */
async function scan(
  path: string,
  found: (verdict: Pick<Verdict, 'policy' | 'channel' | 'digests'>, at: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  let at = 0;
  try {
    for await (const batch of lineBatches(path, { signal }))
      for (const { bytes, error } of batch) {
        if (error || !bytes) return; // no file of verdicts
        const from = at;
        at += bytes.length + 1;
        const verdict = glance(bytes);
        if (verdict) found(verdict, from);
      }
  } catch {
    signal?.throwIfAborted();
  }
}
/** What a line is a verdict on, if it looks like one; `verdictIn` decides when it is asked for. */
function glance(bytes: Buffer): Pick<Verdict, 'policy' | 'channel' | 'digests'> | null {
  if (bytes[0] !== 0x7b) return null;
  let value: Partial<Verdict> | null;
  try {
    value = JSON.parse(bytes.toString('utf8')) as Partial<Verdict> | null;
  } catch {
    return null;
  }
  const { outcome, policy, channel, digests } = value ?? {};
  const isJudged = outcome === 'allow' || outcome === 'block';
  if (!isJudged || typeof policy !== 'string' || typeof channel !== 'string') return null;
  if (typeof digests !== 'object' || digests === null) return null;
  const parts: readonly unknown[] = [digests.policy, digests.content, digests.judge];
  return parts.every((d) => typeof d === 'string') ? { policy, channel, digests } : null;
}

/** As parseJson, but at once where the text is what is written of its value, as what is written here is. */
function parseLine(line: string): unknown {
  const value: unknown = JSON.parse(line);
  return verdictLine({} as VerdictRow, value as Verdict) === line ? value : parseJson(line);
}

/** The verdict in a line as it was written; undefined: it holds none that may be used again. */
export function verdictIn(line: string): Verdict | undefined {
  try {
    // Detectors look again: what they said then is theirs.
    const { row: _r, id: _, line: __, file: _f, expect: ___, detectors: ____, ...kept } = Kept.parse(parseLine(line));
    const { policy, channel, digests, contract, ...rest } = kept;
    const { detectors: _____, ...own } = digests;
    const verdict = { policy, channel, digests: own, ...(contract ? { contract } : {}), ...rest } as Verdict;
    return (verdict.outcome === 'block') === (verdict.rule !== null) ? verdict : undefined;
  } catch {
    return undefined;
  }
}

const WINDOW = 1 << 20;
/** Lines of files by their places, which mostly follow one another. */
class Window {
  readonly #bytes = Buffer.allocUnsafe(WINDOW);
  #file = -1;
  #from = 0;
  #length = 0;
  constructor(readonly fds: readonly number[]) {}

  /** '' where the line is longer than a window. */
  lineAt(file: number, at: number): string {
    for (let tries = 0; tries < 2; tries++) {
      const from = at - this.#from;
      if (file === this.#file && from >= 0 && from < this.#length) {
        const end = this.#bytes.subarray(0, this.#length).indexOf(10, from);
        if (end >= 0) return this.#bytes.toString('utf8', from, end);
        if (this.#length < WINDOW && tries > 0) return this.#bytes.toString('utf8', from, this.#length);
      }
      this.#length = readSync(this.fds[file] as number, this.#bytes, 0, WINDOW, at);
      [this.#file, this.#from] = [file, at];
    }
    return '';
  }
}
