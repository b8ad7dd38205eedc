// What a check of a policy finds. Ids are stable: pipelines and suppressions name them.
export type Severity = 'error' | 'warning' | 'note';
export const SEVERITIES: readonly Severity[] = ['note', 'warning', 'error'];

/** Every finding there is, with what is wrong where it is raised (docs/guides/policies.md has the same table). */
export const FINDINGS = {
  unreadable: 'the policy cannot be used: no rule, an unknown contract, bad front matter',
  'front-matter-unknown': 'a field that nothing reads, perhaps misspelt',
  length: 'tokens outside of what judges follow best: 400 to 600, never above 10,000',
  hedge: 'a word that leaves the decision open',
  'double-negation': 'two negations in one clause',
  'polarity-labels': 'labels that judges read the wrong way round',
  'polarity-mixed': 'a permission among the rules, or a prohibition among what is allowed',
  'polarity-one-sided': 'nothing is said to be allowed',
  'output-unstated': 'the form of the answer is not in the text; the contract adds it once, at the end',
  'output-unknown': 'it asks for an answer that no contract reads',
  'output-conflict': 'it asks for the answer of another contract than the one in use',
  'text-unsent': 'the contract is of judges with categories of their own: the text is never sent',
  'hostile-text': 'nothing says that the judged text is data, and the contract has no nonce',
  'scope-channel': 'no channel is named: final, analysis, commentary',
  'control-spelling': 'control tokens or invisible characters in the policy itself',
  'rule-repeated': 'an id that begins two rules',
  'rule-wordless': 'an id without words',
  'rule-no-example': 'no example in the text, and no golden row',
  'example-contradiction': 'one example with two labels',
  'buffer-unstated': 'a clause that only a whole answer can break or keep, without buffer: whole',
  'buffer-unneeded': 'buffer: whole, and no clause that needs it',
  'golden-missing': 'no golden set beside the policy',
  'golden-small': 'fewer than 20 golden rows',
  'golden-unbalanced': 'fewer than a quarter of the rows break a rule, or are safe',
  'golden-repeated': 'a text twice in the golden set',
  'golden-contradiction': 'a text that is expected to be blocked and to be allowed',
  'golden-unknown-rule': 'a row expects a rule that the policy does not have',
  'golden-no-rule': 'no row breaks this rule',
  'golden-channel': 'a channel of the front matter without rows of both kinds',
  'threshold-unknown-rule': 'a threshold for a rule that the policy does not have',
  'calibration-stale': 'a calibration of another text of the policy, or of another golden set',
} as const;
export type FindingId = keyof typeof FINDINGS;

export interface Finding {
  readonly id: FindingId;
  readonly severity: Severity;
  readonly file: string;
  /** From 1; null: the file as a whole. */
  readonly line: number | null;
  /** One line: what was found and what to do. */
  readonly message: string;
}
/** Findings without their file. */
export type Found = Omit<Finding, 'file'>;
export const found = (id: FindingId, severity: Severity, line: number | null, message: string): Found => ({
  id,
  severity,
  line,
  message,
});

const NORMAL = /[^\p{L}\p{N}]+/gu;
/** A text as it is compared: letters and digits alone, in lower case. */
export const normalised = (text: string): string => text.normalize('NFKC').toLowerCase().replaceAll(NORMAL, ' ').trim();
