// The rules of a policy and its examples: each once, each with words, each shown; no example with two labels.
import type { PolicyRules } from '../../rules.js';
import type { Golden } from '../golden.js';
import { type Found, found, normalised } from './finding.js';
import { type PolicyLine, quotesIn } from './text.js';

export const repeatedRules = ({ rules, again }: PolicyRules, before: number): readonly Found[] =>
  again
    .filter((r) => rules.some((first) => first.id === r.id && normalised(first.says) !== normalised(r.says)))
    .map((r) => {
      const first = rules.find((other) => other.id === r.id);
      return found(
        'rule-repeated',
        'error',
        before + r.line,
        `${r.id} begins a rule in line ${before + (first?.line ?? 0)} already; a verdict that cites it says neither`,
      );
    });

export const wordless = ({ rules }: PolicyRules, before: number): readonly Found[] =>
  rules
    .filter((r) => normalised(r.says) === '')
    .map((r) => found('rule-wordless', 'warning', before + r.line, `${r.id} has no words of its own in its line`));

/** Lines from one rule's to the next heading, blank line or rule: what belongs to it. */
export function blockOf(
  lines: readonly PolicyLine[],
  starts: ReadonlySet<number>,
  line: number,
): readonly PolicyLine[] {
  const block: PolicyLine[] = [];
  for (const l of lines) {
    if (l.line < line) continue;
    if (l.line > line && (starts.has(l.line) || l.raw.trim() === '' || /^[ \t]*#{1,6}[ \t]/.test(l.raw))) break;
    block.push(l);
  }
  return block;
}

const WORD_CHARACTER = /[\p{L}\p{N}_-]/u;
/** Whether an id stands in a line as a word of its own, or as the head of a case of it: `C2` in `C2.a`. */
export function cites(text: string, id: string): boolean {
  for (let at = text.indexOf(id); at >= 0; at = text.indexOf(id, at + 1))
    if (!WORD_CHARACTER.test(text.charAt(at - 1)) && !WORD_CHARACTER.test(text.charAt(at + id.length))) return true;
  return false;
}
/** A rule is shown by a quotation in its own lines, an example that cites it or a case of it, or a golden row. */
export function withoutExample(
  lines: readonly PolicyLine[],
  { rules }: PolicyRules,
  before: number,
  golden: Golden | null,
): readonly Found[] {
  const starts = new Set(rules.map((r) => before + r.line));
  const shown = lines.filter((l) => l.section === 'examples' && l.raw.trim() !== '');
  return rules
    .filter((rule) => {
      const own = blockOf(lines, starts, before + rule.line).some((l) => quotesIn(l.raw).length > 0);
      const cases = rules.some((r) => r.id.startsWith(`${rule.id}.`));
      const rows = golden?.cases.some((c) => c.expect === rule.id || c.expect?.startsWith(`${rule.id}.`));
      return !own && !cases && rows !== true && !shown.some((l) => cites(l.raw, rule.id));
    })
    .map((rule) =>
      found(
        'rule-no-example',
        'warning',
        before + rule.line,
        `${rule.id} is shown by no example of the text and no golden row; add one of each side of its border`,
      ),
    );
}

export interface Example {
  readonly line: number;
  readonly text: string;
  /** What stands beside it: the rules it cites, or the words of its label. */
  readonly label: string;
}
/** Lines of the examples with a quotation and a label beside it. */
export function examplesIn(
  lines: readonly PolicyLine[],
  rules: readonly { readonly id: string }[],
): readonly Example[] {
  return lines.flatMap((l): Example[] => {
    if (l.section !== 'examples' && !/^\s*\|/.test(l.raw)) return [];
    const quotes = quotesIn(l.raw).map((q) => q.slice(1, -1));
    const text = quotes.toSorted((a, b) => b.length - a.length)[0];
    if (text === undefined || normalised(text) === '') return [];
    const beside = l.raw.replace(text, '');
    const cited = rules.filter((r) => cites(beside, r.id)).map((r) => r.id);
    const label = cited.length > 0 ? cited.join(' ') : normalised(beside);
    return label === '' ? [] : [{ line: l.line, text, label }];
  });
}
const SAFE = /\b(?:0|safe|allow(?:ed)?|none|null|no|valid|benign|ok)\b/;
export const labelAllows = (label: string): boolean => SAFE.test(label.toLowerCase());

/** One text with two labels, in the text or in the text and the golden set. */
export function contradictions(
  examples: readonly Example[],
  rules: readonly { readonly id: string }[],
  golden: Golden | null,
): readonly Found[] {
  const findings: Found[] = [];
  const isRule = (label: string): boolean => rules.some((r) => label.split(' ').includes(r.id));
  const first = new Map<string, Example>();
  const rows = new Map(golden?.cases.map((c) => [normalised(c.text), c]));
  examples.forEach((example) => {
    const text = normalised(example.text);
    const other = first.get(text);
    if (!other) first.set(text, example);
    else if (normalised(other.label) !== normalised(example.label))
      findings.push(
        found('example-contradiction', 'error', example.line, `this example has another label in line ${other.line}`),
      );
    const row = rows.get(text);
    if (!row) return;
    const [breaks, allows] = [isRule(example.label), labelAllows(example.label)];
    if ((row.expect === null && breaks) || (row.expect !== null && !breaks && allows))
      findings.push(
        found(
          'example-contradiction',
          'error',
          example.line,
          `golden row ${row.id} says otherwise of this example: it expects ${row.expect ?? 'nothing to be broken'}`,
        ),
      );
  });
  return findings;
}
