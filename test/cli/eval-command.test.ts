// `temper eval` as a command: rows that data.onLong leaves out or cuts are counted where people look.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { type Ran, temper } from './run.js';

let dir: string;
const at = (name: string): string => join(dir, name);
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'eval-'));
  const rows = readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl'), 'utf8')
    .split('\n')
    .slice(0, 12);
  writeFileSync(at('rows.jsonl'), `${rows.join('\n')}\n`);
  // The second of these answers at length: what is cut off is trained. The third asks at length: nothing is left of it.
  const long = (user: string, assistant: string): string =>
    JSON.stringify({
      messages: [
        { role: 'user', content: user },
        { role: 'assistant', content: assistant },
      ],
    });
  const held = [rows[0], long('a', 'b '.repeat(600)), long('a '.repeat(600), 'b'), rows[1]];
  writeFileSync(at('held.jsonl'), `${held.join('\n')}\n`);
  writeFileSync(
    at('r.yaml'),
    `model: { base: ${join(packageRoot, 'models', 'nano')} }\n` +
      'data: { train: [{ path: rows.jsonl }], eval: [{ path: held.jsonl }], maxTokens: 384 }\n' +
      'train: { rowsPerStep: 4, lr: 1e-3, steps: 1 }\ndevice: cpu\n',
  );
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const evaluated = (...more: string[]): Promise<Ran> => temper(['eval', at('r.yaml'), '--max-tokens', '2', ...more]);
const onLong = (what: string): string[] => ['--set', `data.onLong=${what}`];

it('onLong error: the first long row ends it, by its line and with the ways out', async () => {
  const ran = await evaluated();
  expect(ran).toMatchObject({ code: 2, stdout: '' });
  expect(ran.stderr).toMatch(/held\.jsonl:2: .*384.*data\.onLong/);
});
it('onLong drop and truncate: the rows are counted, and are not asked', async () => {
  const dropped = await evaluated(...onLong('drop'));
  expect(dropped).toMatchObject({ code: 0 });
  expect(dropped.stdout).toMatch(/^ {2}note: held\.jsonl: 2 examples are longer than maxTokens and dropped$/m);
  expect(dropped.stdout).toMatch(/of 2\); 2 rows longer than the recipe reads were not asked$/m);
  const { files, weightedTokens, exactMatch } = JSON.parse((await evaluated(...onLong('truncate'), '--json')).stdout);
  expect(files).toMatchObject([{ rows: 4, examples: 4, dropped: 0, truncated: 2, untrainedRows: 1 }]);
  expect(exactMatch).toMatchObject({ rows: 2, tooLong: 2 });
  expect(weightedTokens).toBeGreaterThan(300);
});
it('rows of data.split are asked as they are measured, and as many of a file as it has a limit for', async () => {
  const some = ['--set', `data.eval=[{ path: ${at('rows.jsonl')}, limit: 3, shuffle: 5 }]`];
  const split = ['--set', 'data.split={ eval: 0.5 }', '--json'];
  const { files, exactMatch } = JSON.parse((await evaluated(...some, ...split)).stdout);
  expect(files).toMatchObject([{ limit: 3 }, { part: { take: 'eval' } }]);
  expect(files[1].rows).toBeGreaterThan(1);
  expect(files[1].rows).toBeLessThan(12);
  expect(exactMatch.rows).toBe(3 + files[1].rows);
});
