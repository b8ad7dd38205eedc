// Mutations of a policy: a rule or an example gone, or turned round. A golden set that is worth its name notices each.

import { frontMatter } from '../front-matter.js';
import { definePolicy } from '../policy.js';
import { readRules } from '../rules.js';
import type { Judge, Policy } from '../types.js';
import type { Golden, GoldenCase } from './golden.js';
import { blockOf, examplesIn, labelAllows } from './lint/rules.js';
import { linesOf, type PolicyLine } from './lint/text.js';
import { createBench, type Measured, type MeasureLimits, measureAll } from './measure.js';

export interface Mutant {
  readonly kind: 'drop rule' | 'invert rule' | 'drop example' | 'invert example';
  /** The rule, or what an example shows; null: an example of what is allowed. */
  readonly rule: string | null;
  /** Of the file, from 1. */
  readonly line: number;
  /** The whole file with the change. */
  readonly text: string;
}
export interface MutantResult extends Omit<Mutant, 'text'> {
  readonly survived: boolean;
  /** Golden row that noticed; null where none did. */
  readonly by: string | null;
  readonly why: string;
}

/** @param file text of the policy, front matter included */
export function mutantsOf(file: string): readonly Mutant[] {
  const { before, body } = frontMatter(file);
  const head = file.slice(0, file.length - body.length);
  const read = readRules(body);
  const lines = linesOf(body, read, before);
  const starts = new Set(read.rules.map((r) => before + r.line));
  const without = (gone: readonly PolicyLine[], put?: string): string =>
    head +
    lines
      .flatMap((l) => (gone[0]?.line === l.line && put !== undefined ? [put] : gone.includes(l) ? [] : [l.raw]))
      .join('\n');
  const rules = read.rules.flatMap((rule): Mutant[] => {
    const line = before + rule.line;
    const block = blockOf(lines, starts, line);
    const dropped = without(block);
    const says = [rule.says, ...block.slice(1).map((l) => l.raw.trim())].filter((t) => t !== '').join(' ');
    const turned = `${dropped.trimEnd()}\n\n## Allowed\n\n- ${says || rule.id}\n`;
    return [
      { kind: 'drop rule', rule: rule.id, line, text: dropped },
      { kind: 'invert rule', rule: rule.id, line, text: turned },
    ];
  });
  const examples = examplesIn(lines, read.rules).flatMap((example): Mutant[] => {
    const line = lines.find((l) => l.line === example.line);
    if (!line) return [];
    const cited = read.rules.filter((r) => example.label.split(' ').includes(r.id)).map((r) => r.id);
    const [rule = null] = cited;
    const flipped = flip(line.raw, example.text, cited, read.rules[0]?.id ?? '');
    return [
      { kind: 'drop example', rule, line: line.line, text: without([line]) },
      ...(flipped === null
        ? []
        : [{ kind: 'invert example' as const, rule, line: line.line, text: without([line], flipped) }]),
    ];
  });
  return [...rules, ...examples];
}

/** The line of an example with the other label; null where its label is none that can be turned. */
function flip(raw: string, text: string, cited: readonly string[], first: string): string | null {
  const at = raw.indexOf(text);
  const turn = (part: string): string =>
    cited.length > 0
      ? cited.reduce((p, id) => p.replaceAll(id, 'allowed'), part).replaceAll(/\bviolates?\b/gi, 'safe')
      : part.replace(/\b(?:safe|allow(?:ed)?|valid|benign|ok|no violation|none|null)\b/i, first);
  const beside = turn(raw.slice(0, at)) + text + turn(raw.slice(at + text.length));
  return beside === raw || (cited.length === 0 && !labelAllows(raw.replace(text, ''))) ? null : beside;
}

export interface MutationRun {
  readonly mutants: readonly MutantResult[];
  readonly survivors: readonly MutantResult[];
  /** Golden rows that the policy as it is judges right: only these can notice. */
  readonly right: number;
  readonly rows: number;
  /** Judge calls, those over the policy as it is included. */
  readonly calls: number;
}
export interface MutateOptions extends MeasureLimits {
  /** Examples of the text too. */
  readonly examples?: boolean;
  readonly onMutant?: (done: number, all: number) => void;
}

/**
 * Judges the golden set under the policy, then under each mutant the rows that should notice, until one does.
 * @param file text of the policy, front matter included
 */
export async function mutate(
  policy: Policy,
  file: string,
  judge: Judge,
  golden: Golden,
  options: MutateOptions = {},
): Promise<MutationRun> {
  const baseline = await measureAll(policy, judge, golden.cases, options);
  const right = baseline.filter((m) => m.right);
  const all = mutantsOf(file).filter((m) => options.examples !== false || m.kind.endsWith('rule'));
  let calls = baseline.length;
  const mutants: MutantResult[] = [];
  for (const { text, ...mutant } of all) {
    const rows = right.filter((m) => concerns(mutant.rule, m.case));
    const changed = redefined(policy, text);
    const results: Measured[] = [];
    let result: Pick<MutantResult, 'survived' | 'by' | 'why'>;
    if (changed === null) result = { survived: false, by: null, why: 'the policy is refused without it' };
    else {
      const bench = createBench(changed, judge, options);
      let noticed: Measured | undefined;
      for (const row of rows) {
        const now = await bench.measure(row.case);
        calls++;
        results.push(now);
        if (!notices(row, now)) continue;
        noticed = now;
        break;
      }
      result = noticed
        ? { survived: false, by: noticed.case.id, why: `now ${noticed.verdict.rule ?? noticed.outcome}` }
        : { survived: true, by: null, why: reason(mutant.rule, golden.cases, rows.length, results) };
    }
    mutants.push({ ...mutant, ...result });
    options.onMutant?.(mutants.length, all.length);
  }
  return { mutants, survivors: mutants.filter((m) => m.survived), right: right.length, rows: baseline.length, calls };
}

const concerns = (rule: string | null, { expect }: GoldenCase): boolean =>
  rule === null ? expect === null : expect !== null && (expect === rule || rule.startsWith(`${expect}.`));

function redefined(policy: Policy, text: string): Policy | null {
  try {
    return definePolicy(policy.name, text, policy.contract ?? 'temper');
  } catch {
    return null;
  }
}

/** An answer that cites what is gone is no notice: the judge does not read the policy. */
function notices(was: Measured, now: Measured): boolean {
  if (now.outcome === 'unjudged') return false;
  if (now.outcome !== was.outcome) return true;
  return now.outcome === 'block' && was.rightRule && now.verdict.rule !== was.verdict.rule;
}
function reason(rule: string | null, cases: readonly GoldenCase[], rows: number, results: readonly Measured[]): string {
  if (!cases.some((c) => concerns(rule, c))) return 'no golden row is of it';
  if (rows === 0) return 'no golden row of it is judged right in the first place';
  const unjudged = results.filter((m) => m.outcome === 'unjudged');
  const still = unjudged.filter((m) => m.verdict.cause === 'unknown_rule').length;
  if (still > 0) return `${still} of ${rows} rows: the judge cites it all the same, so it does not read the policy`;
  if (unjudged.length > 0) return `${unjudged.length} of ${rows} rows were not judged, the others are as before`;
  return rows === 1 ? 'its one golden row is judged as before' : `all ${rows} golden rows of it are judged as before`;
}
