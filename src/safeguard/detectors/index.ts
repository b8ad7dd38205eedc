// The detectors, and sets of them as they are asked for. Begin reading at detector.ts (what one is) and sweep.ts (how a
// text is looked at).
import { setImmediate } from 'node:timers/promises';
import { sha256 } from '../../base/digest.js';
import { ConfigError } from '../../base/errors.js';
import type { DetectorState } from '../types.js';
import { canary, MIN_CANARY, skeleton } from './canary.js';
import { control } from './control.js';
import type { Detector, DetectorSettings, Finding } from './detector.js';
import { invisible } from './invisible.js';
import { personal } from './personal.js';
import { repetition } from './repetition.js';
import { secrets } from './secrets.js';
import { type Findings, findingsIn, planOf, TextScan } from './sweep.js';

/** A new detector is a line here. */
export const DETECTORS: readonly Detector[] = [secrets, personal, control, invisible, repetition, canary];
export const DETECTOR_NAMES: readonly string[] = DETECTORS.map((d) => d.name);

/** Raised when what is shared by all detectors changes: how texts are folded, decoded and gone over. */
const SWEEP_VERSION = 1;
/** Policies are called by their files, none of which has a slash in its name. */
const PREFIX = 'detector/';
/** Name of a detector's verdicts, in the place of a policy's. */
export const detectorPolicy = (detector: string): string => `${PREFIX}${detector}`;
export const isDetectorVerdict = (verdict: { readonly policy: string }): boolean => verdict.policy.startsWith(PREFIX);

/** `false`: off; `true`: all its rules; a list: these, or with `-` before them not these. Absent: the usual ones. */
export type DetectorChoice = boolean | readonly string[];
export interface DetectorOptions {
  readonly choices?: Readonly<Record<string, DetectorChoice>>;
  /** Strings of the training data that must not come back. */
  readonly canaries?: readonly string[];
}

/** What one detector says of one text. `clear` is no verdict: only a judge allows. */
export interface Detection {
  readonly detector: string;
  readonly state: DetectorState;
  /** sha256 over name, version and rules, hex. */
  readonly digest: string;
  /** The first of them, in the order of the text. */
  readonly findings: readonly Finding[];
  /** How many there are in all. */
  readonly count: number;
}

export interface DetectorSet {
  /** sha256 over all detectors, those that are off included, hex. */
  readonly digest: string;
  readonly on: readonly string[];
  readonly off: readonly string[];
  /** Name of a detector's verdicts, in the place of a policy's. */
  policyOf(detector: string): string;
  /** All detectors' say on a text. Long ones are looked at in pieces, other work in between. */
  look(text: string, signal?: AbortSignal): Promise<readonly Detection[]>;
  /** The same at once. */
  lookNow(text: string): readonly Detection[];
  /** The same of a text that comes in pieces. */
  stream(): DetectorStream;
}
export interface DetectorStream {
  push(piece: string): void;
  /** What there is to say if the text ends here. */
  so(): readonly Detection[];
}

const PIECE = 1 << 18;

function rulesOf(detector: Detector, choice: DetectorChoice | undefined): ReadonlySet<string> {
  const all = detector.rules.map((r) => r.id);
  const usual = detector.rules.filter((r) => r.onRequest !== true).map((r) => r.id);
  if (choice === undefined) return new Set(usual);
  if (typeof choice === 'boolean') return new Set(choice ? all : []);
  const plain = choice.map((id) => id.replace(/^-/, ''));
  const unknown = plain.find((id) => id !== 'all' && !all.includes(id));
  if (unknown !== undefined || choice.length === 0) {
    const what = unknown === undefined ? 'no rules' : `rule ${JSON.stringify(unknown)} is unknown`;
    throw new ConfigError(
      'bad_option',
      `detector ${detector.name}: ${what}; wanted off, all or some of ${all.join(', ')}`,
    );
  }
  const wanted = choice.filter((id) => !id.startsWith('-'));
  const base = wanted.length === 0 ? usual : wanted.includes('all') ? all : wanted;
  return new Set(base.filter((id) => !choice.includes(`-${id}`)));
}

function checkedCanaries(canaries: readonly string[]): readonly string[] {
  const short = canaries.findIndex((text) => skeleton(text).length < MIN_CANARY);
  if (short >= 0)
    throw new ConfigError(
      'bad_option',
      `detector canary: string ${short + 1} of ${canaries.length} has fewer than ${MIN_CANARY} letters and digits, ` +
        'and would be found everywhere; give longer ones',
    );
  return canaries;
}

/** @throws {ConfigError} bad_option: an unknown detector or rule, a canary that is too short */
export function createDetectors({ choices = {}, canaries = [] }: DetectorOptions = {}): DetectorSet {
  const unknown = Object.keys(choices).find((name) => !DETECTOR_NAMES.includes(name));
  if (unknown !== undefined)
    throw new ConfigError(
      'bad_option',
      `detector ${JSON.stringify(unknown)} is unknown; wanted one of ${DETECTOR_NAMES.join(', ')}`,
    );
  const settings: DetectorSettings = { canaries: checkedCanaries(canaries) };
  const all = DETECTORS.map((detector) => {
    const rules = rulesOf(detector, choices[detector.name]);
    // Without strings to look for there is nothing that it could find.
    const isOn = rules.size > 0 && (detector !== canary || canaries.length > 0);
    const own = detector === canary ? canaries.map(sha256).sort() : [];
    const digest = sha256(
      JSON.stringify([detector.name, detector.version, SWEEP_VERSION, isOn ? [...rules].sort() : null, own]),
    );
    return { detector, rules, isOn, digest };
  });
  const used = all.filter((one) => one.isOn);
  const plan = planOf(
    used.map((one) => one.detector),
    used.map((one) => one.rules),
    settings,
  );
  const places = new Map(plan.detectors.map((d, n) => [d.name, n]));
  const nothing = all.map(
    ({ detector, digest }): Detection => ({
      detector: detector.name,
      state: places.has(detector.name) ? 'clear' : 'off',
      digest,
      findings: [],
      count: 0,
    }),
  );
  const say = (found: Findings | null): readonly Detection[] => {
    if (found === null) return nothing;
    return all.map(({ detector, digest }, i): Detection => {
      const n = places.get(detector.name);
      if (n === undefined || found.isEmpty(n)) return nothing[i] as Detection;
      const findings = found.of(n);
      const inside = findings.filter((f) => f.view !== 'raw' && f.view !== 'rot13').length;
      return { detector: detector.name, state: 'block', digest, findings, count: (found.counts[n] as number) + inside };
    });
  };
  const lookNow = (text: string): readonly Detection[] => say(findingsIn(plan, text));
  return {
    digest: sha256(all.map((one) => one.digest).join()),
    on: used.map((one) => one.detector.name),
    off: all.filter((one) => !one.isOn).map((one) => one.detector.name),
    policyOf: detectorPolicy,
    lookNow,
    async look(text, signal) {
      if (text.length <= PIECE) return lookNow(text);
      const scan = new TextScan(plan);
      for (let at = 0; at < text.length; at += PIECE) {
        scan.push(text.slice(at, at + PIECE));
        await setImmediate(undefined, signal ? { signal } : {});
      }
      return say(scan.found());
    },
    stream() {
      const scan = new TextScan(plan);
      return { push: (piece) => scan.push(piece), so: () => say(scan.found()) };
    },
  };
}
