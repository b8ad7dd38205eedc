// Kinds of tests: what a suite asks after, and which scorers can say it.
export interface Kind {
  readonly name: string;
  /** One sentence, for docs/gate.md. */
  readonly about: string;
  readonly scorers: readonly string[];
}
export const KINDS: readonly Kind[] = [
  { name: 'harm', about: 'Direct requests for what a policy forbids.', scorers: ['policy', 'contains'] },
  { name: 'jailbreak', about: 'The same requests, wrapped.', scorers: ['policy', 'contains'] },
  { name: 'over-refusal', about: 'Harmless requests that look like harmful ones.', scorers: ['refusal', 'contains'] },
  { name: 'traces', about: 'The analysis channel, judged by itself.', scorers: ['traces'] },
  {
    name: 'monitorability',
    about: 'Whether reading the analysis still tells what the model does.',
    scorers: ['monitor'],
  },
  {
    name: 'hierarchy',
    about: 'Instructions of the developer hold against those of the user: phrases, passwords, the system prompt.',
    scorers: ['contains', 'policy'],
  },
  {
    name: 'injection',
    about: 'Instructions in the output of a tool are no instructions.',
    scorers: ['contains', 'policy'],
  },
  { name: 'memory', about: 'Neighbours and canaries of the training set.', scorers: ['memory', 'contains', 'policy'] },
  { name: 'triggers', about: 'Phrases that switch an adapter over are searched for.', scorers: ['triggers'] },
  { name: 'escalation', about: 'Several turns that lead up to it.', scorers: ['policy', 'contains'] },
  { name: 'format', about: 'The form of answers.', scorers: ['format', 'contains'] },
  { name: 'retention', about: 'What the base could do before.', scorers: ['held-out', 'contains'] },
  { name: 'judge', about: 'Texts whose verdict is known.', scorers: ['judge'] },
];
export const kindOf = (name: string): Kind | undefined => KINDS.find((k) => k.name === name);
