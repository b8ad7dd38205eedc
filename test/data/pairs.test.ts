// Rows of format preference: what is trained of each form, and each thing that is wrong with one, by its side.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { type LoadContext, loadDataset } from '../../src/data/load.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-pairs-'));
const tokenizer = loadTokenizer(join(packageRoot, 'models', 'nano'));
afterAll(() => {
  tokenizer.close();
  rmSync(dir, { recursive: true });
});
const context: LoadContext = {
  tokenizer: () => tokenizer,
  vocabSize: tokenizer.vocabSize,
  maxTokens: 400,
  loss: { analysis: 1, commentary: 1, final: 1 },
  examplesPerSample: 2,
};
let count = 0;
async function load(row: object, over: Partial<LoadContext> = {}) {
  const path = join(dir, `${count++}.jsonl`);
  const good = JSON.stringify({ prompt: 'q', chosen: 'yes', rejected: 'no' });
  writeFileSync(path, `${good}\n${JSON.stringify(row)}\n`);
  return loadDataset([{ path, format: 'preference' }], { ...context, ...over });
}
/** The text of each side of the second row, what is trained in brackets. */
async function shown(row: object): Promise<readonly string[]> {
  const { examples } = await load(row);
  expect(examples.length).toBe(4);
  return [2, 3].map((i) => {
    const { tokens, weights } = examples.at(i) ?? expect.fail('no such example');
    let text = '';
    tokens.forEach((t, k) => {
      const [on, before] = [(weights[k] ?? 0) > 0, k > 0 && (weights[k - 1] ?? 0) > 0];
      text += `${on && !before ? '[' : !on && before ? ']' : ''}${tokenizer.decode(Int32Array.of(t))}`;
    });
    return (weights.at(-1) ?? 0) > 0 ? `${text}]` : text;
  });
}
const user = (content: string) => ({ role: 'user', content });
const says = (content: string, more: object = {}) => ({ role: 'assistant', content, ...more });
const call = { role: 'assistant', tool_calls: [{ id: 'c', function: { name: 'f', arguments: '{}' } }] };
const gave = { role: 'tool', tool_call_id: 'c', content: 'rain' };
const tools = [{ type: 'function', function: { name: 'f' } }];

describe('what is trained', () => {
  it('is the answer alone, whether the prompt is text, messages, repeated or shared', async () => {
    const forms = [
      { prompt: 'Hi', chosen: 'a b', rejected: 'c' },
      { prompt: [user('Hi')], chosen: [says('a b')], rejected: [says('c')] },
      { prompt: 'Hi', chosen: [user('Hi'), says('a b')], rejected: 'c' },
      { chosen: [user('Hi'), says('a b')], rejected: [user('Hi'), says('c')] },
    ];
    const all = await Promise.all(forms.map(shown));
    for (const one of all) expect(one).toEqual(all[0]);
    expect(all[0]?.[0]).toMatch(/Hi<\|end\|><\|start\|>assistant\[<\|channel\|>final<\|message\|>a b<\|return\|>\]$/);
  });
  it('of an answer with calls of tools is all that the assistant says', async () => {
    const [chosen = '', rejected = ''] = await shown({
      prompt: 'Hi',
      chosen: [call, gave, says('rain')],
      rejected: 'sun',
      tools,
    });
    expect(chosen.match(/\[/g)).toHaveLength(2);
    expect(chosen).toMatch(/\[[^\]]*<\|call\|>\].*rain<\|end\|>.*\[[^\]]*rain<\|return\|>\]$/);
    expect(rejected.match(/\[/g)).toHaveLength(1);
  });
  it('is not what both have in common', async () => {
    const [chosen = ''] = await shown({
      chosen: [user('Hi'), call, gave, says('rain')],
      rejected: [user('Hi'), call, gave, says('sun')],
      tools,
    });
    expect(chosen.match(/\[/g)).toHaveLength(1);
  });
  it('of tokens is what weighs; other prompts are told of', async () => {
    const side = (tokens: number[], weights: number[]) => ({ tokens, weights });
    const row = { chosen: side([5, 6, 7], [0, 0, 2]), rejected: side([5, 6, 8, 9], [0, 0, 1, 0.5]) };
    const { examples, files } = await load(row, { tokenizer: () => tokenizer });
    expect([...(examples.at(3)?.weights ?? [])]).toEqual([0, 0, 1, 0.5]);
    expect(files[0]?.notes).toEqual({});
    const other = await load({ ...row, rejected: side([4, 6, 8], [0, 0, 1]) });
    expect(other.files[0]?.notes).toEqual({ pair_prompts_differ: { rows: 1, line: 2 } });
  });
});

describe('refused, by line and side:', () => {
  it.each<[string, object, string, RegExp]>([
    ['the same', { prompt: 'q', chosen: 'a', rejected: [says('a')] }, 'bad_preference', /are the same/],
    ['an empty answer', { prompt: 'q', chosen: 'a', rejected: ' ' }, 'empty_message', /rejected: .*blank/],
    [
      'weight 0',
      { prompt: 'q', chosen: [says('a', { weight: 0 })], rejected: 'b' },
      'bad_preference',
      /chosen: nothing of the answer is trained/,
    ],
    [
      'other prompts',
      { chosen: [user('q'), says('a')], rejected: [user('p'), says('b')] },
      'bad_preference',
      /not one prompt/,
    ],
    [
      'a user in the answer',
      { prompt: 'q', chosen: 'a', rejected: [says('b'), user('r'), says('c')] },
      'bad_preference',
      /rejected: got assistant, user, assistant after the prompt/,
    ],
    ['no prompt', { chosen: 'a', rejected: 'b' }, 'bad_preference', /no prompt/],
    [
      'tokens that train nothing',
      { chosen: { tokens: [1, 2], weights: [1, 0] }, rejected: { tokens: [1, 3] } },
      'bad_preference',
      /chosen: the answer is empty/,
    ],
    [
      'weights of another length',
      { chosen: { tokens: [1, 2] }, rejected: { tokens: [1, 3], weights: [1] } },
      'weights_length',
      /rejected: weights has 1 entries/,
    ],
    ['a side of tokens alone', { prompt: 'q', chosen: 'a', rejected: { tokens: [1, 2] } }, 'bad_preference', /prompt/],
    [
      'a long one',
      { prompt: 'q', chosen: 'a', rejected: 'b '.repeat(500) },
      'row_too_long',
      /the rejected answer with its prompt has/,
    ],
  ])('%s', async (_, row, code, words) => {
    await expect(load(row)).rejects.toMatchObject({ code, message: expect.stringMatching(words) as string });
    await expect(load(row)).rejects.toThrow(/\d\.jsonl:2: /);
  });
  it('a pair with a long answer is left out whole, or cut', async () => {
    const row = { prompt: 'q', chosen: 'a', rejected: 'b '.repeat(500) };
    const dropped = await load(row, { onLong: 'drop' });
    expect(dropped.examples.length).toBe(2);
    expect(dropped.files[0]).toMatchObject({ dropped: 1 });
    const cut = await load(row, { onLong: 'truncate' });
    expect(cut.examples.length).toBe(4);
    expect(cut.examples.at(3)?.tokens.length).toBe(400);
  });
});
