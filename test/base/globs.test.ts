// Patterns: nothing that one names is left out without a word.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { matching } from '../../src/base/globs.js';

it('more files than are read at once are an error, not the first of them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'globs-'));
  const files = ['1.jsonl', '2.jsonl', '10.jsonl'].map((name) => join(folder, name));
  for (const file of files) writeFileSync(file, '');
  expect(matching(join(folder, '*.jsonl'))).toEqual(files);
  expect(matching(join(folder, '*.jsonl'), 3)).toEqual(files);
  expect(() => matching(join(folder, '*.jsonl'), 2)).toThrow(expect.objectContaining({ code: 'no_data_files' }));
});
