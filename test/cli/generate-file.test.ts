// generate --prompts: a file of prompts to a file of answers, in order, taken up where a run stopped.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { temper, temperProcess } from './run.js';

const root = mkdtempSync(join(tmpdir(), 'temper-prompts-'));
afterAll(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);
const rows = [
  { id: 'a', prompt: 'Please book a table for 4 people on friday at 19:30 for Rossi' },
  { prompt: 'Please book a taxi for 2 people on sunday at 10:00 for Weber' },
  { id: 3, messages: [{ role: 'user', content: 'Please book a room for 1 person on monday at 08:00 for Ito' }] },
  { id: 'much', prompt: 'again '.repeat(2000) },
  { id: 'e', prompt: 'Please book a table for 2 people on tuesday at 12:00 for Novak' },
];
writeFileSync(at('in.jsonl'), rows.map((r) => `${JSON.stringify(r)}\n`).join('\n'));
const model = ['generate', '--model', 'models/nano', '--temperature', '0', '--max-tokens', '120'];
const args = [...model, '--prompts', at('in.jsonl'), '--slots', '3', '--json', '--out'];
type Line = { id: string; line: number; channels?: Record<string, string>; error?: { code: string }; exit: number };
const lines = (file: string): Line[] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((l) => JSON.parse(l) as Line);

it('answers every row in order, each as it would be answered alone', async () => {
  const ran = await temper([...args, at('out.jsonl')]);
  expect(JSON.parse(ran.stdout)).toMatchObject({ rows: 5, kept: 0, errors: 1, exitCode: 20 });
  expect(ran.code).toBe(20); // the prompt that is longer than the model has no answer
  const out = lines(at('out.jsonl'));
  expect(out.map((l) => [l.id, l.line])).toEqual([
    ['a', 1],
    ['3', 3],
    ['3', 5],
    ['much', 7],
    ['e', 9],
  ]);
  expect(out[3]?.error?.code).toBe('prompt_too_long');
  expect(existsSync(at('out.jsonl.part'))).toBe(false);
  const alone = await temper([...model, '--json', rows[4]?.prompt ?? '']);
  expect(out[4]?.channels).toEqual((JSON.parse(alone.stdout) as Line).channels);
});

it('goes on where it stopped, with the same bytes, and refuses what answers something else', async () => {
  const whole = readFileSync(at('out.jsonl'), 'utf8');
  const two = whole.split('\n').slice(0, 2).join('\n');
  writeFileSync(at('again.jsonl.part'), `${two}\n{"id":"3","line":5,"requ`);
  const other = await temper([...args, at('again.jsonl'), '--max-tokens', '60']);
  expect([other.code, JSON.parse(other.stdout)]).toMatchObject([2, { error: { code: 'bad_run' } }]);
  const ran = await temper([...args, at('again.jsonl')]);
  expect(JSON.parse(ran.stdout)).toMatchObject({ rows: 5, kept: 2 });
  expect(readFileSync(at('again.jsonl'), 'utf8')).toBe(whole);
});

it('reads stdin', async () => {
  const ran = await temperProcess([...model, '--prompts', '-', '--out', at('stdin.jsonl')], {
    input: '{"prompt": "Please book a table for 4 people on friday at 19:30 for Rossi"}',
  });
  expect(ran.code).toBe(0);
  expect(lines(at('stdin.jsonl'))).toHaveLength(1);
});

it.each([
  ['not JSON', 'hello\n', 'row_json'],
  ['an unknown field', '{"prompt": "x", "promt": "y"}\n', 'row_schema'],
  ['no prompt', '{"id": 1}\n', 'row_schema'],
  ['an empty prompt', '{"prompt": ""}\n', 'row_schema'],
  ['an empty conversation', '{"messages": []}\n', 'row_schema'],
  ['nothing', '\n\n', 'no_rows'],
])('refuses %s before it answers', async (_, text, code) => {
  writeFileSync(at('bad.jsonl'), `${text}`);
  const ran = await temper([...model, '--prompts', at('bad.jsonl'), '--json', '--out', at('never.jsonl')]);
  expect([ran.code, JSON.parse(ran.stdout)]).toMatchObject([2, { error: { code } }]);
  expect(existsSync(at('never.jsonl')) || existsSync(at('never.jsonl.part'))).toBe(false);
});

it('wants a prompt or a file of them, and an --out that is not its input', async () => {
  expect((await temper([...model])).stderr).toMatch(/give a prompt, or --prompts FILE/);
  expect((await temper([...model, '--prompts', at('in.jsonl')])).stderr).toMatch(/needs --out/);
  const ran = await temper([...args, at('in.jsonl')]);
  expect(ran.code).toBe(2);
  expect(readFileSync(at('in.jsonl'), 'utf8')).toContain('Rossi');
});
