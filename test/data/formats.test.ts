// The suite every dataset format passes: its sample rows load and train something, its bad rows give the error they
// name.
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { DataError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { FORMATS } from '../../src/data/formats/index.js';
import { type LoadContext, loadDataset } from '../../src/data/load.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';

const samples = join(packageRoot, 'datasets', 'samples');
const tokenizer = loadTokenizer(join(packageRoot, 'models', 'nano'));
afterAll(() => tokenizer.close());
const context: LoadContext = {
  tokenizer: () => tokenizer,
  vocabSize: tokenizer.vocabSize,
  maxTokens: 1024,
  loss: { analysis: 1, commentary: 1, final: 1 },
};
const lines = (path: string): string[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((l) => l !== '');

it('every format has its samples, and every sample its format', () => {
  const wanted = FORMATS.flatMap((f) => [`${f.name}.bad.jsonl`, `${f.name}.jsonl`]);
  expect(
    readdirSync(samples)
      .filter((n) => n.endsWith('.jsonl'))
      .sort(),
  ).toEqual(wanted.sort());
  expect(FORMATS.length).toBeGreaterThanOrEqual(3);
});

describe.each(FORMATS)('$name', ({ name, examplesPerSample }) => {
  it('good rows', async () => {
    const path = join(samples, `${name}.jsonl`);
    const rows = lines(path).length;
    expect(rows).toBeGreaterThanOrEqual(5);
    const { examples, files } = await loadDataset([{ path, format: name }], {
      ...context,
      examplesPerSample: examplesPerSample ?? 1,
    });
    expect(files[0]).toMatchObject({ rows, untrainedRows: 0 });
    expect(new Set(Array.from(examples, (e) => e.source.line)).size).toBe(rows);
    for (const e of examples) {
      expect(e.weights.length).toBe(e.tokens.length);
      expect(Array.from(e.tokens).every((t) => t >= 0 && t < tokenizer.vocabSize)).toBe(true);
      expect(e.weights.slice(1).some((w) => w > 0)).toBe(true);
    }
  });

  it('bad rows', async () => {
    const bad = lines(join(samples, `${name}.bad.jsonl`)).map((l) => JSON.parse(l) as { code: string; row: string });
    expect(bad.length).toBeGreaterThanOrEqual(4);
    for (const { code, row } of bad) {
      const path = join(mkdtempSync(join(tmpdir(), 'format-')), 'row.jsonl');
      writeFileSync(path, `${row}\n`);
      const error: unknown = await loadDataset([{ path, format: name }], {
        ...context,
        examplesPerSample: examplesPerSample ?? 1,
      }).then(
        () => null,
        (e: unknown) => e,
      );
      expect(error, row).toBeInstanceOf(DataError);
      expect((error as DataError).code, row).toBe(code);
      expect((error as DataError).message, row).toContain('row.jsonl');
    }
  });
});
