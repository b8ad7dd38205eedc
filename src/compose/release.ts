// Nothing leaves without the gate: exports and pushes as commands and the library have them. What has no PASS for
// exactly these digests is refused, unless its project wants no gate or somebody answers for it by name.
import { rmSync } from 'node:fs';
import { runInThread } from '../base/channel.js';
import { ConfigError, GateError, IntegrityError, type TemperError } from '../base/errors.js';
import { type ExportOptions, exportRun } from '../export/export.js';
import type { GateNote, GateNotes } from '../export/gate-note.js';
import { type PushRequest, type PushResult, push } from '../export/push.js';
import type { ExportRequest, ExportResult } from '../export/run-export.js';
import type { PullHooks } from '../hub/pull.js';
import { localOf } from '../hub/pull.js';
import { pullForRecipe } from '../runs/references.js';
import { isReleased, type Standing } from '../runs/standing.js';
import { type Signed, sign } from './attest.js';
import type { StandingRequest, Stands } from './gate-standing.js';

/** What the thread answers. */
export type StandingCalls = {
  readonly standings: {
    readonly request: StandingRequest;
    readonly event: never;
    readonly result: Readonly<Record<string, Stands>>;
  };
  readonly export: {
    readonly request: { readonly dir: string };
    readonly event: never;
    readonly result: Stands | null;
  };
};

/** Against the gate: somebody answers for it. */
export interface Override {
  /** Private key, as `temper key new` makes one. */
  readonly signer: string;
  readonly reason: string;
}
export interface ReleaseRequest extends Omit<ExportRequest, 'gate'> {
  /** Folders of the gate's evidence; default: gate/ in the run, or in the adapter's folder. */
  readonly gate?: readonly string[] | undefined;
  readonly override?: Override | undefined;
  /** It is made for a gate to judge: nothing is asked, and it cannot be pushed. */
  readonly candidate?: boolean | undefined;
  /** Private key, PEM, by which each folder is signed, its statements first, as `temper sign` does it. */
  readonly sign?: string | undefined;
}
export interface ReleaseResult extends ExportResult {
  /** By format. */
  readonly gate: Readonly<Record<string, Pick<Standing, 'status' | 'reasons' | 'override'>>>;
  /** By format; empty: it was not to be signed. */
  readonly signed: Readonly<Record<string, Signed>>;
}

const inThread = async <K extends keyof StandingCalls>(
  name: K,
  request: StandingCalls[K]['request'],
  signal?: AbortSignal,
): Promise<StandingCalls[K]['result']> =>
  runInThread<StandingCalls, K>('compose/gate-worker.js', name, request, { signal });

/** How it stands, by name of each format. @throws as openSource · the signal's reason */
export const standings = (request: StandingRequest, signal?: AbortSignal): Promise<Readonly<Record<string, Stands>>> =>
  inThread('standings', request, signal);
/**
 * How an export stands; null: the folder is none.
 * @throws {IntegrityError} bad_provenance, gate_stale, gate_override
 */
export const standingOfExport = (dir: string, signal?: AbortSignal): Promise<Stands | null> =>
  inThread('export', { dir }, signal);

/** Why it stays, as an error. @param next what to do, a clause */
export function refusal(what: string, { status, reasons, decision, folder }: Standing, next: string): TemperError {
  const message = `${what}: has no PASS of the release gate: ${reasons.join('; ') || status}; ${next}`;
  const details = { status, decision, folder, reasons };
  if (status === 'stale') return new IntegrityError('gate_stale', message, details);
  if (status === 'damaged') return new IntegrityError('gate_damaged', message, details);
  if (status === 'absent') return new GateError('gate_absent', message, details);
  return new GateError('gate_failed', message, details);
}

interface NextOptions {
  readonly ofRun: boolean;
  /** It is to be merged. */
  readonly merge: boolean;
}
function nextStep(what: string, { status }: Standing, { ofRun, merge }: NextOptions): string {
  const candidate = merge ? ' --merged DIR, with DIR of temper export --candidate' : '';
  const gate = `hold it: temper gate ${what} --suite FILE${candidate}`;
  const off = ofRun ? ', or say `gate: off` in its recipe' : '';
  const release = 'export with --override-gate --signer KEY --reason TEXT';
  return status === 'failed'
    ? `look at report.html beside the decision, or answer for it: ${release}`
    : `${gate}${off}, or answer for it: ${release}`;
}

/** An override, signed for each subject that needs one. */
async function overridden(stands: Stands, { signer, reason }: Override): Promise<GateNote> {
  const [{ signOverride }, { readSigner }, { keyId }] = await Promise.all([
    import('../gate/override.js'),
    import('../verdict-log/keys.js'),
    import('../verdict-log/dsse.js'),
  ]);
  const key = readSigner(signer),
    time = new Date().toISOString();
  const { subject, standing } = stands;
  if (subject === null) return { subject, standing };
  const envelope = signOverride({ subject, standing, signer: key, reason, time });
  return {
    subject,
    standing: { ...standing, status: 'overridden', override: { signer: keyId(key), reason, time } },
    override: `${JSON.stringify(envelope, null, 2)}\n`,
  };
}

/**
 * Exports what the gate let out.
 * @throws {GateError} gate_absent, gate_failed · {IntegrityError} gate_stale, gate_damaged · as exportRun, and as sign
 */
export async function exportReleased(
  { gate, override, candidate = false, sign: key, ...request }: ReleaseRequest,
  options: ExportOptions = {},
): Promise<ReleaseResult> {
  const { signal } = options;
  if (override !== undefined && override.reason.trim() === '')
    throw new ConfigError('bad_option', '--reason: is empty; say why it is released against the gate');
  if (candidate && key !== undefined)
    throw new ConfigError('bad_option', '--sign: a candidate is for the gate alone; sign what the gate lets out');
  // A key that cannot sign is told before anything is written.
  if (key !== undefined) (await import('../attest/keys.js')).readSigningKey(key, []);
  if (request.run !== undefined) await pullForRecipe(request.run, {}, { signal });
  const local = async (path: string | undefined): Promise<string | undefined> =>
    path === undefined ? undefined : localOf(path, { signal });
  const [adapter, model] = [await local(request.adapter), await local(request.model)];
  const { run, checkpoint, expertLayout, format = ['peft'] } = request;
  const all = await standings({ run, adapter, model, checkpoint, expertLayout, gate, formats: format }, signal);
  const notes: Record<string, GateNote> = {};
  const what = run ?? adapter ?? model ?? '';
  for (const [name, stands] of Object.entries(all)) {
    if (candidate) notes[name] = { ...stands, candidate };
    else if (stands.subject === null || isReleased(stands.standing)) notes[name] = stands;
    else if (override) notes[name] = await overridden(stands, override);
    else
      throw refusal(
        format.length > 1 ? `${what} as ${name}` : what,
        stands.standing,
        nextStep(what, stands.standing, { ofRun: run !== undefined, merge: Boolean(stands.subject.mergeRecipe) }),
      );
  }
  const result = await exportRun({ ...request, adapter, model, gate: notes satisfies GateNotes }, options);
  const toldOf = ({ subject, standing }: GateNote): ReleaseResult['gate'][string] => {
    if (subject === null) return { status: 'off', reasons: [], override: null };
    if (candidate) return { status: 'absent', reasons: ['a candidate, made for a gate to judge'], override: null };
    const { status, reasons, override: by } = standing;
    return { status, reasons, override: by };
  };
  const signed = key === undefined ? {} : await signAll(result, key, signal);
  return {
    ...result,
    signed,
    gate: Object.fromEntries(Object.entries(notes).map(([name, note]) => [name, toldOf(note)])),
  };
}

/** Signs what was exported; what cannot be signed does not stay. */
async function signAll(
  { out, exports }: ExportResult,
  key: string,
  signal?: AbortSignal,
): Promise<ReleaseResult['signed']> {
  const signed: Record<string, Signed> = {};
  try {
    for (const { format, folder } of exports) signed[format] = await sign({ dir: folder, key }, { signal });
  } catch (e) {
    rmSync(out, { recursive: true, force: true });
    throw e;
  }
  return signed;
}

/**
 * Pushes an export that the gate let out. Every file is hashed again while it is uploaded; those of the gate are among
 * them.
 * @throws {GateError} gate_absent, gate_failed · {IntegrityError} gate_stale, gate_damaged, gate_override · as push
 */
export async function pushReleased(
  request: PushRequest,
  hooks: PullHooks = {},
): Promise<PushResult & { readonly gate: Pick<Standing, 'status' | 'reasons' | 'override'> }> {
  hooks.signal?.throwIfAborted();
  const stands = await standingOfExport(request.dir, hooks.signal);
  if (stands !== null && !isReleased(stands.standing))
    throw refusal(request.dir, stands.standing, 'nothing was pushed; export it again from what the gate passed');
  const { status, reasons, override } = stands?.standing ?? { status: 'absent' as const, reasons: [], override: null };
  return { ...(await push(request, hooks)), gate: { status, reasons, override } };
}
