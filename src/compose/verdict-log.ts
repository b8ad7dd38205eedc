// Verdicts on record: what the log holds of them, and the log as those see it who release. Digests alone: a
// content's is a MAC that nobody can guess from, and no word of a judge, a model or a user is in it.
import { randomBytes } from 'node:crypto';
import { versions } from '../base/machine.js';
import { channelLabel } from '../safeguard/contract.js';
import type { HeldSink, VerdictRecord } from '../safeguard/holdback/sink.js';
import { worst } from '../safeguard/screen.js';
import type { Verdict } from '../safeguard/types.js';
import type { VerdictEntry, VerdictSink } from '../safeguard/verdict-sink.js';
import type { Json, JsonObject } from '../verdict-log/canonical.js';
import type { CommitInfo, VerdictLog } from '../verdict-log/log.js';

/** Where verdicts go on record, as commands take it. */
export interface LogOptions {
  /** Folder; absent: nothing is recorded. */
  readonly log?: string | undefined;
  /** Private key that signs it; absent: one that is made in the folder. */
  readonly logKey?: string | undefined;
}
export interface OpenLog extends VerdictSink {
  readonly log: VerdictLog;
  /** The same for answers that are held: a record for each verdict over a beginning or the whole of a channel. */
  readonly held: HeldSink;
  /** What people do about held answers: who, what, to which text. */
  readonly reviews: {
    append(record: JsonObject): Promise<{ readonly receipt: string }>;
    digest: VerdictLog['digest'];
  };
  /** To be told. */
  readonly notices: readonly string[];
  close(): Promise<void>;
}

/** Fields of a verdict that are figures or words of ours, as far as it has them. */
const FIGURES = ['score', 'threshold', 'coverage', 'view', 'votes', 'contract'] as const;
type Told = Pick<Verdict, 'policy' | 'channel' | 'outcome' | 'rule' | 'cause' | 'digests' | 'latencyMs' | 'detectors'>;

const NONCE = 12;
let pool: Buffer = Buffer.alloc(0);
/** Of a record; drawn many at once, as a draw costs more than all the rest of it. */
function newNonce(): string {
  if (pool.length === 0) pool = randomBytes(256 * NONCE);
  const nonce = pool.toString('base64url', 0, NONCE);
  pool = pool.subarray(NONCE);
  return nonce;
}

/** What the log says of verdicts over one text or several. */
export function recordOf(
  {
    verdicts,
    action,
    subject = {},
  }: VerdictEntry | (Omit<VerdictEntry, 'verdicts'> & { readonly verdicts: readonly Told[] }),
  digest: VerdictLog['digest'],
): JsonObject {
  const nonce = newNonce();
  const contents: Record<string, string> = {};
  const policies: Record<string, JsonObject> = {};
  const named = new Map<string, string>();
  /** A model may name a channel as it likes: what is none of harmony's is `other`, `other.2`, … */
  const nameOf = (channel: string): string => {
    const known = named.get(channel);
    if (known !== undefined) return known;
    const label = channelLabel(channel);
    let name = label;
    for (let n = 2; contents[name] !== undefined; n++) name = `${label}.${n}`;
    named.set(channel, name);
    return name;
  };
  const told = verdicts.map((v): JsonObject => {
    const channel = nameOf(v.channel);
    contents[channel] ??= digest(nonce, v.digests.content);
    const { content: _, ...digests } = v.digests;
    policies[v.policy] ??= { ...digests };
    const figures = v as unknown as Readonly<Record<string, Json | undefined>>;
    return {
      channel,
      ms: v.latencyMs,
      outcome: v.outcome,
      policy: v.policy,
      ...(v.rule === null ? {} : { rule: v.rule }),
      ...(v.cause === null ? {} : { cause: v.cause }),
      ...detectorsOf(v),
      ...Object.fromEntries(FIGURES.flatMap((name) => (figures[name] === undefined ? [] : [[name, figures[name]]]))),
    };
  });
  return {
    action,
    at: new Date().toISOString(),
    contents,
    nonce,
    outcome: worst(verdicts),
    policies,
    subject: { ...subject },
    verdicts: told,
  };
}

/** What detectors found, or that they are off; those that found nothing are told by their digest. */
function detectorsOf({ detectors = {} }: Pick<Verdict, 'detectors'>): JsonObject {
  const said = Object.entries(detectors).filter(([, state]) => state !== 'clear');
  return said.length === 0 ? {} : { detectors: Object.fromEntries(said) };
}

type Entry = Parameters<typeof recordOf>[0];
function entryOf({ subject, choice, mode, whole, ...verdict }: VerdictRecord): Entry {
  const action = mode === 'shadow' ? 'shadow' : verdict.outcome === 'allow' ? 'release' : 'withhold';
  return { verdicts: [verdict], action, subject: { answer: subject, choice, whole } };
}

/**
 * @param by the command
 * @returns null: no log is asked for
 * @throws as openVerdictLog
 */
export async function openLog(
  { log: dir, logKey: key }: LogOptions,
  by: string,
  onCommit?: (commit: CommitInfo) => void,
): Promise<OpenLog | null> {
  if (dir === undefined) return null;
  const { openVerdictLog } = await import('../verdict-log/log.js');
  const log = await openVerdictLog({ dir, key, by, version: versions().temper, ...(onCommit ? { onCommit } : {}) });
  return {
    log,
    reviews: { append: (record) => log.append('review', record), digest: log.digest },
    notices: log.notices,
    held: { append: (record) => log.append('verdict', recordOf(entryOf(record), log.digest)) },
    append: (entry) => log.append('verdict', recordOf(entry, log.digest)),
    close: () => log.close(),
  };
}
