// `temper data check` on hostile and on unlucky files: nothing of them drives the terminal, and the exit code is true.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { temper } from './run.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-check-'));
const written = (name: string, text: string): string => {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
};
const check = (path: string, ...more: string[]) =>
  temper(['data', 'check', path, '--tokenizer', join(packageRoot, 'models/nano'), ...more]);
const row = (answer: string, more: object = {}): string =>
  JSON.stringify({
    messages: [
      { role: 'user', content: 'q' },
      { role: 'assistant', content: answer },
    ],
    ...more,
  });
const ESCAPES = '\u001b]0;x\u0007\u001b[2J\u009b31m\u0000\u007f\u202e';

describe('what a file says reaches the terminal as text', () => {
  it.each<[string, string, string]>([
    ['an answer', 'a.jsonl', row(ESCAPES)],
    ['a field', 'b.jsonl', row('a', { [ESCAPES]: 1 })],
    ['no JSON', 'c.jsonl', ESCAPES],
    ['a role', 'd.jsonl', JSON.stringify({ messages: [{ role: ESCAPES, content: 'a' }] })],
    ['a content part', 'e.jsonl', JSON.stringify({ messages: [{ role: 'user', content: [{ type: ESCAPES }] }] })],
    ['a tool', 'f.jsonl', row('a', { tools: [{ type: 'function', function: { name: ESCAPES } }] })],
    ['its name', `g${ESCAPES.replaceAll('\0', '')}.jsonl`, row('a')],
  ])('%s', async (_, name, text) => {
    const path = written(name, text);
    for (const more of [[], ['--json']]) {
      const { stdout, stderr } = await check(path, ...more);
      const said = stdout + stderr;
      expect(said.length).toBeGreaterThan(20);
      expect(said).not.toMatch(/(?!\n)\p{Cc}/u);
      if (more.length === 0) expect(said).not.toContain('\u202e');
    }
  });
});

it('a file that trains nothing is no success, and options do what messages say', async () => {
  expect(await check(written('empty.jsonl', ''))).toMatchObject({
    code: 2,
    stdout: expect.stringContaining('no rows'),
  });
  const extra = written('extra.jsonl', row('a', { id: 7 }));
  expect(await check(extra)).toMatchObject({ code: 2, stdout: expect.stringContaining('--ignore id') });
  expect((await check(extra, '--ignore', 'id')).code).toBe(0);
  const long = written('long.jsonl', `${row('a')}\n${row('b '.repeat(400))}`);
  expect(await check(long, '--max-tokens', '100')).toMatchObject({
    code: 2,
    stdout: expect.stringContaining('--on-long'),
  });
  expect(await check(long, '--max-tokens', '100', '--on-long', 'drop')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('1 examples are longer than maxTokens and dropped'),
  });
  const thinking = written('think.jsonl', row('<think>x</think>a'));
  expect(await check(thinking)).toMatchObject({ code: 2, stdout: expect.stringContaining('--markup text') });
  expect(await check(thinking, '--markup', 'text')).toMatchObject({ code: 0 });
  const shown = await check(written('literal.jsonl', row('say <|end|>!')));
  expect(shown).toMatchObject({ code: 0, stdout: expect.stringContaining('<|message|>say <\\|end|>!<|return|>') });
});

describe('rows that are both trained on and held out', () => {
  const train = written('train.jsonl', ['a', 'b', 'c'].map((a) => row(a)).join('\n'));
  const heldOut = written('heldout.jsonl', ['x', 'c', 'b', 'y'].map((a) => row(a)).join('\n'));
  const said = '2 of 4 held-out examples are trained on too (heldout.jsonl:2 is train.jsonl:3)';
  it('are told of two files, and are no error', async () => {
    expect(await check(train, '--eval', heldOut)).toMatchObject({ code: 0, stdout: expect.stringContaining(said) });
    const { stdout } = await check(train, '--eval', heldOut, '--json');
    const { files } = JSON.parse(stdout) as { files: readonly { overlap?: unknown }[] };
    const first = { heldOut: 'heldout.jsonl:2', trained: 'train.jsonl:3' };
    expect(files.map((f) => f.overlap)).toEqual([undefined, { count: 2, of: 4, first }]);
    const none = written('none.jsonl', row('z'));
    expect((await check(train, '--eval', none)).stdout).toContain('none of these rows is trained on');
  });
  it('are told of a recipe, which names both', async () => {
    const nano = join(packageRoot, 'models/nano');
    const data = [train, heldOut].map((path) => `[{ path: ${JSON.stringify(path)}, format: chat }]`);
    const recipe = written(
      'both.yaml',
      `model: { base: ${nano} }\ndata: { train: ${data[0]}, eval: ${data[1]}, maxTokens: 64 }\ntrain: { steps: 1 }\n`,
    );
    expect(await temper(['data', 'check', recipe])).toMatchObject({ code: 0, stdout: expect.stringContaining(said) });
    expect(await temper(['data', 'check', recipe, '--eval', heldOut])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('data.eval'),
    });
  });
});
