// The rules of a policy as people write them: lines that begin with an id. `R1: …`, `- R1. …`, `**R1** …`, `## R1 …`,
// `H2.f …`, `` - `P1`: … ``, `| SP2.a | …`, `[C1] …`, `Rule 1: …`; where no line begins with such an id, a numbered
// list: `1. …`, `2) …`; where there is none either, words and letters (rule-words.ts). Ids of what the policy allows
// are no rules, nor is what stands under its examples.
import { chooseNamed, type Named, namedBy } from './rule-words.js';

export interface Rule {
  /** As a judge cites it. */
  readonly id: string;
  /** The rest of its line, marks and quotes taken off; may be empty. */
  readonly says: string;
  /** Of the policy's text, from 1. */
  readonly line: number;
}
/** What a line of a policy is part of. */
export type PolicySection = Section;
export interface PolicyRules {
  readonly rules: readonly Rule[];
  /** Where there are no rules: which lines may be some, and why that is not sure. */
  readonly doubt: string | null;
  /** Lines that begin with the id of a rule that was there before. */
  readonly again: readonly Rule[];
  /** Ids of what the policy allows. */
  readonly allowed: readonly string[];
  /** What each line is part of, the first line first. */
  readonly sections: readonly Section[];
}

/** `C1`, `SP-2`, `PII-EU-3`, `H2.f`, `SP2.a.1`, `A1b`. */
const ID = String.raw`[A-Z]{1,8}(?:[-_][A-Z]{1,8})*[-_]?[0-9]{1,3}[a-z]?(?:\.[A-Za-z0-9]{1,4})*`;
const NUMBER = String.raw`[0-9]{1,3}(?:\.[0-9]{1,3}){0,2}`;
const LEAD = String.raw`^\ufeff?[ \t]*(?:(?:[-*+•>]|#{1,6}|\p{Extended_Pictographic}\ufe0f?)[ \t]+)*`;
const OPEN = '[*_`|[( \\t]{0,5}';
const CLOSE = '[*_`]{0,3}';
const END = String.raw`(?:[\])]?[:.：]|[\])]|[ \t]*\||[ \t]+[–—-]|[*_\x60]{1,3}|[ \t]|$)`;
const WITH_ID = new RegExp(
  `${LEAD}(?:[0-9]{1,3}[.)][ \\t]+)?${OPEN}(?:[Rr]ule[ \\t]+)?${OPEN}(${ID})${CLOSE}${END}(.*)$`,
  'u',
);
const NAMED_NUMBER = new RegExp(
  `${LEAD}${OPEN}(?:(?:[Rr]ule|Regel|R[eè]gle|Regla)[ \\t]+|(?:规则|規則|§)[ \\t]*)(${NUMBER})${CLOSE}${END}(.*)$`,
  'u',
);
const NUMBERED = new RegExp(`${LEAD}${OPEN}(${NUMBER})${CLOSE}(?:[.):]${CLOSE}[ \\t]+|[：、])(.+)$`, 'u');
/** `### 1.1 Slurs`. In running text a number with a point is a quantity. */
const SUBHEADING = /^[ \t]*#{1,6}[ \t]+([0-9]{1,3}(?:\.[0-9]{1,3}){1,2})[ \t]+(.+)$/u;
/** Rules as YAML: `- id: R1`. */
const KEYED = new RegExp(`^[ \\t]*(?:-[ \\t]+)?(?:id|code|rule)[ \\t]*:[ \\t]*["']?(${ID})["']?[ \\t]*()$`, 'u');

type Section = 'rules' | 'allowed' | 'examples' | 'other';
const words = (...list: readonly string[]): string => String.raw`\b(?:${list.join('|')})\b`;
const either = (...patterns: readonly string[]): RegExp => new RegExp(patterns.join('|'), 'i');
const ALLOWS = either(
  words('allowed', 'permitted', 'acceptable', 'permissible', 'safe', 'benign', 'fine', 'ok', 'okay', 'compliant'),
  words('exceptions?', 'exclusions?', 'out of scope'),
  String.raw`\bnon[- ][a-z]`,
);
/** "does not violate" forbids nothing. */
const VIOLATES_NOT = either(
  String.raw`\b(?:does|do|is|are) not (?:violat|break|breach|prohibit|forbid)`,
  String.raw`\bno(?:t|n)?[- ]?violat`,
);
const FORBIDS = either(
  String.raw`\b(?:not|never|dis|in|un)[- ]?(?:allowed|permitted|acceptable|permissible|safe)\b`,
  String.raw`\b(?:unsafe|unacceptable|disallow|impermissible|non-?compliant|prohibit|forbid)`,
  String.raw`\b(?:violat|breaks?\b|breach|block)`,
);
const SHOWS = /^\W*(?:few[- ]shot )?(?:worked )?examples?\b/i;
const EXPLAINS = either(
  String.raw`^\W*${words('terms', 'goal', 'purpose', 'scope', 'overview', 'background', 'instructions?', 'steps?')}`,
  String.raw`^\W*${words('procedure', 'process', 'how to', 'response', 'answer', 'label', 'format', 'notes?')}`,
  String.raw`^\W*${words('ambiguity', 'escalation', 'references?', 'changelog', 'version')}`,
);
/** Words that name a section where they begin a line. */
const NAMES_SECTION = either(
  `^(?:not )?${words('allowed', 'permitted', 'acceptable', 'safe', 'prohibited', 'forbidden', 'disallowed')}`,
  `^${words('violat[a-z]+', 'exceptions?', 'examples?')}`,
);

/** What a heading says of the lines under it; null: nothing. */
function sectionOf(heading: string): Section | null {
  if (SHOWS.test(heading)) return 'examples';
  if (/^\W*(?:output|definitions?)\b/i.test(heading)) return 'other';
  if (VIOLATES_NOT.test(heading)) return 'allowed';
  if (FORBIDS.test(heading)) return 'rules';
  if (ALLOWS.test(heading)) return 'allowed';
  return EXPLAINS.test(heading) ? 'other' : null;
}

/** Headings written without `#`: bold, in capitals, with a colon at the end, or a few words that name a section. */
function plainHeading(line: string): string | null {
  const text = line.trim();
  if (text === '' || text.length > 100 || /^[-+•>|]/.test(text)) return null;
  const said = text.replaceAll(/[*_`]+/g, '').replace(/^[^\p{L}\p{N}]+/u, '');
  const bold = /^(\*\*|__).+\1:?$/.test(text);
  const colon = said.endsWith(':') && said.split(' ').length <= 8;
  const capitals = /\p{Lu}{3}/u.test(said) && said === said.toUpperCase();
  // ✅ Allowed content, 🚫 Likely spam (SP2): a picture heads a line.
  const picture = /^\p{Extended_Pictographic}/u.test(text);
  const labelled = said.endsWith(')') && !/[.;!?]\s/.test(said) && NAMED_BY_HEADING.test(said);
  return bold || colon || capitals || picture || labelled || (NAMES_SECTION.test(said) && !/[.;,]$/.test(said))
    ? said
    : null;
}

const clean = (text: string): string =>
  text
    .replaceAll(/[*_`|]+/g, ' ')
    .replaceAll(/\s+/g, ' ')
    .replace(/^[\s:.)\]–—-]+/u, '')
    .trim();

/** `Likely spam (SP2 – medium)`, `(HAR) Harassment`: a heading names the rule, or the category, that it is about. */
const NAMED_BY_HEADING = new RegExp(`\\((${ID})(?:\\)|:|[ \\t]+[–—-])|^\\(([A-Z]{2,8})\\)`, 'u');

/** The rules of a policy in the order they stand, each id once. Empty if none is visible. */
export const findRules = (policy: string): readonly Rule[] => readRules(policy).rules;

/** The same, with what else the lines are. */
export function readRules(policy: string): PolicyRules {
  const sections: { readonly level: number; readonly section: Section; readonly about?: string }[] = [];
  const here = (): Section => sections.at(-1)?.section ?? 'rules';
  const found: (Rule & { readonly numbered: boolean; readonly section: Section })[] = [];
  const allowed = new Set<string>();
  const named: Named[] = [];
  const sectionOfNamed = new Map<Named, Section>();
  const sectionOfLine: Section[] = [];
  for (const [at, line] of policy.split(/\r\n|\r|\n/).entries()) {
    const own = WITH_ID.exec(line) ?? NAMED_NUMBER.exec(line) ?? KEYED.exec(line);
    const number = own ? null : (NUMBERED.exec(line) ?? SUBHEADING.exec(line));
    const match = own ?? number;
    const heading = /^[ \t]*(#{1,6})[ \t]+(.*)$/.exec(line);
    const said = heading?.[2] ?? (match ? null : plainHeading(line));
    if (said !== null && said !== undefined) {
      // A plain heading stands below the last one with a `#` and ends the plain one before it.
      const level = heading?.[1]?.length ?? 7;
      while ((sections.at(-1)?.level ?? 0) >= level) sections.pop();
      const section = sectionOf(said);
      const named = NAMED_BY_HEADING.exec(said);
      const about = named?.[1] ?? named?.[2];
      if (section !== null || heading || about)
        sections.push({ level, section: section ?? here(), ...(about ? { about } : {}) });
      if (about && !match) {
        if (here() === 'allowed') allowed.add(about);
        else if (here() !== 'examples')
          found.push({
            id: about,
            says: clean(said.replace(/\(.*\)/, '')),
            line: at + 1,
            numbered: false,
            section: here(),
          });
      }
    }
    sectionOfLine.push(here());
    const byWord = match ? null : namedBy(line, at + 1);
    // A line that heads a section of its own, `Violations:`, is no rule.
    if (byWord && !(byWord.kind === 'word' && said !== null && said !== undefined && sectionOf(said) !== null)) {
      named.push(byWord);
      sectionOfNamed.set(byWord, here());
    }
    if (!match) continue;
    const id = match[1] ?? '';
    const says = clean(match[2] ?? '');
    // `S0 – Allowed`: level 0 of a category says itself that it is none.
    // Published policies list the cases of a category under "Examples:", each with an id of it.
    const category = sections.findLast((s) => s.about !== undefined && id.startsWith(`${s.about}.`));
    // What a category allows, `Allowed (SP0 – …)`, is its own cases alone.
    const foreign =
      !category && sections.some((s) => s.section === 'allowed' && s.about !== undefined && s.about !== id);
    const section = category?.section ?? (foreign && here() === 'allowed' ? 'rules' : here());
    const allows = section === 'allowed' || (/^[A-Z_-]+0(?:\.|$)/.test(id) && sectionOf(says) === 'allowed');
    if (allows) allowed.add(id);
    else if (section !== 'examples') found.push({ id, says, line: at + 1, numbered: number !== null, section });
  }
  const isAllowed = (id: string): boolean =>
    allowed.has(id) || [...allowed].some((parent) => id.startsWith(`${parent}.`));
  const rules = found.filter((r) => !isAllowed(r.id));
  const withIds = rules.filter((r) => !r.numbered);
  // Steps and definitions are numbered too: numbers are rules where nothing else is, and only among the rules.
  const numbers = rules.filter((r) => r.section === 'rules');
  const words =
    withIds.length > 0 || numbers.length > 0 ? null : chooseNamed(named, (n) => sectionOfNamed.get(n) === 'rules');
  const chosen = withIds.length > 0 ? withIds : words ? words.rules : numbers;
  const plain = ({ id, says, line }: Rule): Rule => ({ id, says: clean(says), line });
  const first = new Map<string, Rule>();
  for (const rule of chosen) if (!first.has(rule.id)) first.set(rule.id, rule);
  return {
    rules: [...first.values()].map(plain),
    doubt: words?.doubt ?? null,
    again: chosen.filter((rule) => first.get(rule.id) !== rule).map(plain),
    allowed: [...allowed],
    sections: sectionOfLine,
  };
}
