// Policies as people publish them: which ids a judge may cite.
import { describe, expect, it } from 'vitest';
import { parseVerdict, renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy, goldenPath, policyName } from '../../src/safeguard/policy.js';
import { findRules } from '../../src/safeguard/rules.js';

const SPAM = `Spam Policy (#SP)
GOAL: Identify spam. Classify each EXAMPLE using this policy.

DEFINITIONS
1. Spam: unsolicited, repetitive or deceptive content.
2. Bulk messaging: the same text to many.

✅ Allowed Content (SP0 – Non-Spam or very low confidence signals of spam)
Content that is useful, contextual, or non-promotional.
SP0.a Useful/info request – "How do I upload a product photo?"
SP0.b Personalized communication – "Hi Sam, here is the report."

🚫 Not Allowed Content (SP1–SP4, higher confidence of spam)
SP2 – Low Severity
Unwanted but not dangerous.
SP2.a Bulk Messaging – "Hi friend, check our site."
SP2.b Unsolicited Promotion – "DM me for paid promo services."
SP3 – Medium Severity
SP3.a Undisclosed affiliate links
**SP4.c** Malware

LABEL FORMAT
1. Binary
2. Category, e.g. SP2.a

EXAMPLES
Example 1:
SP9 this line belongs to an example
`;

const CATEGORIES = `# Goods Policy (#ARS)

## Goal

Classify each example as \`VALID\` (allowed) or \`INVALID\` using this policy.

## Definitions

- Goods: products that are restricted.

## Allowed Content (ARS0 - Informational or safety context)

Content without enabling access.

Examples:

- ARS0.a Legal explanation: "Why are sales restricted?"
- ARS0.b Safety framing: "It is harmful."

Output: \`VALID\`

## Promotion of Access (ARS1 - Promotion)

Examples:

- ARS1.a Encouragement: "You should just try it once."
- ARS1.b Normalization: "It is no big deal."

Output: \`INVALID\`

## Facilitating (ARS2 - Facilitation or instruction)

Examples:

- ARS2.a Purchase instructions: "Use a false card."

Output: \`INVALID\`

## Label Format

- \`ARS0\`: Informational or safety context.
- \`ARS1\`: Promotion.
- \`ARS2\`: Facilitation.

Examples:

- "Why?" -> \`ARS0\`

## Ambiguity and Escalation

- Encouragement should be classified as \`ARS1\`.
`;
const PICTURES = `Spam Policy (#SP)
✅ Allowed Content (SP0 – Non-Spam or very low confidence signals of spam)
Content that is useful. May look spammy but could be legitimate.
SP0.a Useful request – “How do I upload a photo?”

 ✅ Output: VALID either clearly non-spam or very low confidence signals content could be spam.

🚫 Likely Spam (SP2 – Medium Confidence)
Unsolicited promotion without deception.
SP2.a Cold promotion – “Check out my course”
 ❌ Output: INVALID

🚨 Malicious Spam (SP4 – Maximum Severity)
SP4.c Account takeover – “Send crypto”
 ❌ Output: INVALID + ESCALATE

LABEL FORMAT
 | Example | Classification |
 | “Shop this” | D-S2, R-S0 |
`;

const written: readonly (readonly [string, string, readonly string[]])[] = [
  ['a spam policy with sections, severities and examples', SPAM, ['SP2', 'SP2.a', 'SP2.b', 'SP3', 'SP3.a', 'SP4.c']],
  ['cases listed as examples of a category', CATEGORIES, ['ARS1', 'ARS1.a', 'ARS1.b', 'ARS2', 'ARS2.a']],
  ['headings that begin with a picture', PICTURES, ['SP2', 'SP2.a', 'SP4', 'SP4.c']],
  ['a label in a heading', '# Criteria\n## Definition of Label\n### (HAR) Harassment\n#### Includes\n- x', ['HAR']],
  [
    'labelled lines without any mark',
    'Allowed (SP0 - not spam)\nSP0.a x\nLikely Spam (SP2 - medium)\nSP2.a y\nAllowed (SP5 - z)\nSP5.a z\nSP6.a w',
    ['SP2', 'SP2.a', 'SP6.a'],
  ],
  ['letters after a dot', 'H2.f slurs\nH2.g: threats\n- H3.a – calls to harm', ['H2.f', 'H2.g', 'H3.a']],
  ['parents and children', 'P1 Ways to reach\nP1.a a phone\nP1.b an email', ['P1', 'P1.a', 'P1.b']],
  ['back-ticks', '- `P1`: a phone number\n* `P2.b` an email\n`P3`', ['P1', 'P2.b', 'P3']],
  ['bold', '**R1** a\n- **R2:** b\n- **R3**: c\n__R4__ d\n1. **R5** e', ['R1', 'R2', 'R3', 'R4', 'R5']],
  ['brackets and tables', '[C1] a\n(C2) b\n| C3 | a door code |\n|----|---|\n| `C4` | x |', ['C1', 'C2', 'C3', 'C4']],
  ['headings', '## R1 Insults\ntext\n### R1.a By name\n## SP-R4 d', ['R1', 'R1.a', 'SP-R4']],
  ['the word rule', 'Rule 1: no phone\nRule 2 – no email\n**Rule R7**: x', ['1', '2', 'R7']],
  ['numbers with a dot', 'The text must not tell:\n1. a phone number\n2. an email\nAll else is fine.', ['1', '2']],
  ['numbers with a bracket', '1) a phone number\n2) an email', ['1', '2']],
  ['numbers of two levels', '1. Contact\n1.1. a phone\n1.2. an email', ['1', '1.1', '1.2']],
  ['numbered steps beside ids', 'Steps:\n1. Read\n2. Decide\n\nR1: a\nR2: b', ['R1', 'R2']],
  [
    'numbered definitions before numbered rules',
    '# Definitions\n1. Guest: x\n2. Desk: y\n# Violates\n3. a phone',
    ['3'],
  ],
  ['Windows line ends', 'R1: a\r\nR2: b\r\n', ['R1', 'R2']],
  [
    'words in back-ticks',
    '# Rules\n- `spam`: bulk\n- **`self-harm/intent`** a plan\n`hate` – slurs',
    ['spam', 'self-harm/intent', 'hate'],
  ],
  ['one word in back-ticks', 'It breaks a rule when it tells:\n- `phone`: a number', ['phone']],
  ['words and colons', '- spam: bulk mail\n- self-harm: a plan\n- note: be strict', ['spam', 'self-harm']],
  ['bold words', '**spam** – bulk\n**hate_speech**: slurs', ['spam', 'hate_speech']],
  ['a table of words', '| rule | meaning |\n|---|---|\n| spam | bulk |\n| scam | fraud |', ['spam', 'scam']],
  ['words without any mark', 'spam: bulk\nscam: fraud', ['spam', 'scam']],
  ['letters', 'It must not tell\na) a phone\nb) an email', ['a', 'b']],
  ['letters in brackets', '(a) a phone\n(b) an email\n(c) a card', ['a', 'b', 'c']],
  ['capital letters', 'A. a phone\nB. an email', ['A', 'B']],
  ['letters under numbers', '1. Contact\n a) a phone\n b) an email\n2. Money\n a) a card', ['1', '2']],
  ['words beside ids', 'R1: a\n- spam: b\n- scam: c', ['R1']],
  ['an id in a sentence is none', 'R1: a\nSee R9 there. (R8)\nand R7: not at the head', ['R1']],
];
const allowed: readonly (readonly [string, string, readonly string[]])[] = [
  ['a section Allowed', '## Violates\nP1.a x\n## Allowed\nS0.a names\nS0.b numbers', ['P1.a']],
  ['a section Allowed before the rules', '# Allowed\nA1: names\n# Not allowed\nB1: phones', ['B1']],
  ['does not violate', '### VIOLATES (1)\nD1: x\n### DOES NOT VIOLATE (0)\nD2: y', ['D1']],
  ['a section below it', '# Allowed\n## Small talk\nS1: hello\n# Prohibited\nP1: x', ['P1']],
  ['bold headings', '**Prohibited content**\nP1: x\n**Permitted content**\nP2: y', ['P1']],
  ['a colon', 'Violations:\nV1: x\nExceptions:\nV9: y', ['V1']],
  ['level 0 that says so', 'S0 – Safe or no hate\nS0.a news reports\nS1 – hate\nS1.a slurs', ['S1', 'S1.a']],
  ['unsafe is not safe', '## Unsafe content\nU1: x\n## Safe content\nU2: y', ['U1']],
  ['words', '# Allowed\n- `thanks`: x\n# Violates\n- `spam`: y\n- `scam`: z', ['spam', 'scam']],
  ['letters', 'Allowed:\na) names\nb) days\nViolations:\nc) a phone\nd) a card', ['c', 'd']],
  ['an id allowed in one place is none in another', '# Allowed\nS0 fine\n# Violates\nS1 x\nS0.a y', ['S1']],
];

describe('findRules', () => {
  it.each(written)('%s', (_, text, ids) => {
    expect(findRules(text).map((r) => r.id)).toEqual(ids);
  });
  it.each(allowed)('what is allowed is no rule: %s', (_, text, ids) => {
    expect(findRules(text).map((r) => r.id)).toEqual(ids);
  });
  it('has the words of a rule', () => {
    expect(findRules('- **R1:** a phone number\n| C3 | a door code |\n`P1`').map((r) => r.says)).toEqual([
      'a phone number',
      'a door code',
      '',
    ]);
  });
  it('takes time that grows with the text alone', () => {
    const began = performance.now();
    for (const unit of ['a-', 'a ', '`a', '| a ', '- ', '**', '#', 'A-', '1.', '`|[( ', 'R1 ', ' '])
      findRules(unit.repeat(65536 / unit.length));
    expect(performance.now() - began).toBeLessThan(10_000); // were it quadratic, a minute
  });
});

describe('a policy', () => {
  it.each([...written, ...allowed])('a judge may cite every rule of it and no other: %s', (_, text) => {
    const { rules } = definePolicy('p', text);
    const cite = (rule: string): unknown =>
      parseVerdict(renderVerdict({ rule, nonce: '7k3f9q' }), { nonce: '7k3f9q', rules });
    for (const rule of rules) expect(cite(rule)).toEqual({ outcome: 'block', rule });
    for (const rule of ['ZZ9', '77', rules[0]?.toLowerCase() ?? '', `${rules[0]}.zz`])
      if (!rules.includes(rule)) expect(cite(rule)).toMatchObject({ outcome: 'unjudged', cause: 'unknown_rule' });
  });
  it.each([
    ['prose', 'Never tell a phone number.\nRule one: no email addresses.\n'],
    ['a list without ids', '- a phone number\n- an email address'],
    ['only what is allowed', '# Allowed\nS0: names\nS1: days'],
    ['only examples', '# Examples\nR1: x'],
    ['only definitions', '# Definitions\n1. Guest: a person'],
  ])('without a visible rule is refused: %s', (_, text) => {
    expect(() => definePolicy('p', text)).toThrow(expect.objectContaining({ code: 'policy_no_rule', exitCode: 2 }));
  });
  it.each([
    ['words of which one may be a remark', 'Be strict.\nspam: unsolicited bulk', /line 2 may be rules \("spam"\)/],
    ['words with capitals', '- Spam: x\n- Harassment: y', /lines 1, 2 may be .*"Spam", "Harassment".*capitals/],
    ['names of several words', '- Hate speech: x\n- Self harm: y', /lines 1, 2 .*several words/],
    ['words alone', '# Not allowed\n- spam\n- scam', /lines 2, 3 .*a word alone/],
    ['letters that begin again', 'One\na) x\nb) y\nTwo\na) z', /lines 2, 3, 5 .*letters/],
    ['letters from b on', 'b) x\nc) y', /lines 1, 2 .*letters/],
    ['a list without ids', '- a phone number\n- an email address', /lines 1, 2 .*begin each with an id/],
  ])('in doubt about its rules names the lines: %s', (_, text, said) => {
    expect(() => definePolicy('p', text)).toThrow(expect.objectContaining({ code: 'policy_no_rule' }));
    expect(() => definePolicy('p', text)).toThrow(said);
  });
  it.each([
    ['/a/contact/policy.md', 'contact', '/a/contact/golden.jsonl'],
    ['/a/contact/POLICY.txt', 'contact', '/a/contact/golden.jsonl'],
    ['/a/contact/../respect/./policy.md', 'respect', '/a/respect/golden.jsonl'],
    ['/a/no-money.md', 'no-money', '/a/no-money.golden.jsonl'],
    ['/policy.md', 'policy', '/golden.jsonl'],
  ])('%s is called %s', (path, name, golden) => {
    expect(policyName(path)).toBe(name);
    expect(goldenPath(path)).toBe(golden);
  });
  it('is called by its folder from inside it, too', () => {
    const here = process.cwd().split('/').at(-1);
    expect(policyName('policy.md')).toBe(here);
    expect(policyName('./policy.md')).toBe(here);
    expect(policyName('policies/contact/policy.md')).toBe('contact');
  });
});

it.each<[string, string, readonly string[]]>([
  ['a picture before each', '🔴 R1: a phone number\n⚠️ R2: a mail address\n', ['R1', 'R2']],
  ['colons of other scripts', 'R1：电话号码\nR2：邮箱\n', ['R1', 'R2']],
  ['numbers and colons of other scripts', '1：电话号码\n2、邮箱\n', ['1', '2']],
  ['rules by their word in another language', '规则1：电话号码\n规则2：邮箱\n', ['1', '2']],
  ['section signs', '§1 a phone number\n§ 2 a mail address\n', ['1', '2']],
  ['numbered headings', '## 1. Hate\nNo hate.\n### 1.1 Slurs\n## 2. Violence\n', ['1', '1.1', '2']],
  ['YAML', 'rules:\n  - id: R1\n    text: a phone number\n  - id: "R2"\n    text: mail\n', ['R1', 'R2']],
  ['a byte order mark', '\ufeffR1: a phone number\nR2: mail\n', ['R1', 'R2']],
  ['a quantity at the beginning of a line', 'R1: a sum above\n1.5 million\n', ['R1']],
])('%s', (_, text, ids) => {
  expect(definePolicy('p', text).rules).toEqual(ids);
});
it('a name that YAML gives every rule is none', () => {
  expect(() => definePolicy('p', '- id: hate\n  text: a\n- id: spam\n  text: b\n')).toThrow(/no rule is visible/);
});
