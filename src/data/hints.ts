// Rows of other kinds than the format's, by the fields they have: what they are and what to do with them.
type Fields = Readonly<Record<string, unknown>>;

const CHAT = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}';
const KINDS: readonly (readonly [format: string | null, is: (row: Fields) => boolean, say: string])[] = [
  [
    'sharegpt',
    (r) => Array.isArray(r.conversations) || Array.isArray(r.conversation),
    'a ShareGPT row: give format sharegpt',
  ],
  ['alpaca', (r) => 'instruction' in r && 'output' in r, 'an Alpaca row: give format alpaca'],
  [
    'preference',
    (r) => 'chosen' in r && 'rejected' in r,
    'a pair of answers: give format preference, for methods dpo and orpo',
  ],
  ['completion', (r) => 'prompt' in r && 'completion' in r, 'a prompt and its completion: give format completion'],
  [null, (r) => 'prompt' in r && 'response' in r, 'a prompt and its response: rename response, give format completion'],
  [null, (r) => 'question' in r && 'answer' in r, `a question and its answer: write it as ${CHAT}`],
  [null, (r) => 'input_ids' in r, 'token ids: rename input_ids to tokens, give format tokens (labels become weights)'],
  ['tokens', (r) => Array.isArray(r.tokens), 'token ids: give format tokens'],
  ['chat', (r) => Array.isArray(r.messages), 'a conversation: give format chat'],
  [
    'harmony',
    (r) => typeof r.text === 'string' && /<\|message\|>/.test(r.text),
    'a conversation that is rendered already: give format harmony',
  ],
  ['text', (r) => typeof r.text === 'string', 'plain text: give format text'],
  [
    null,
    (r) => [r.messages, r.conversations, r.conversation].some((v) => typeof v === 'string' && /^\s*\[/.test(v)),
    'a conversation as text that is no JSON, such as what Python prints of a list: write it with json.dumps, or as a ' +
      'list',
  ],
  [null, (r) => Array.isArray(r.data) || Array.isArray(r.rows), 'a list of rows in an object: write each on its line'],
  [
    null,
    (r) => Array.isArray(r.choices),
    `an answer of an API without its question: write both as ${CHAT}, the answer as the last message`,
  ],
  [
    null,
    (r) => typeof r.body === 'object' && ('custom_id' in r || 'url' in r),
    'a request of a batch: take its body, and put the answer behind its messages',
  ],
  [null, (r) => Array.isArray(r.contents), `a conversation as Gemini has it: write it as ${CHAT}`],
  [
    null,
    (r) => ('input' in r || 'instructions' in r) && Array.isArray(r.output),
    `items of the Responses API: write them as ${CHAT}`,
  ],
];
/** Fields that other clients put beside messages; to leave them out would change what is trained. */
const BESIDE: Readonly<Record<string, string>> = {
  system: 'system stands beside the messages: write it as the first one, {"role": "system", "content": "…"}',
  instructions: 'instructions stand beside the messages: write them as the first one, {"role": "developer", …}',
  functions: 'functions is the old form of tools: write tools: [{"type": "function", "function": {…}}]',
};

/** "it looks like …"; null: it may be a row of the format. @param format that the row was read as */
export function rowHint(value: unknown, format: string): string | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const row = value as Fields;
  const beside = Object.keys(BESIDE).find((name) => Object.hasOwn(row, name));
  if (format === 'chat' && Array.isArray(row.messages) && beside !== undefined) return BESIDE[beside] ?? null;
  const kind = KINDS.find(([of, is]) => of !== format && is(row));
  if (!kind || (format === 'chat' && Array.isArray(row.messages))) return null;
  return `it looks like ${kind[2]}`;
}
