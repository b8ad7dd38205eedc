// docs/threats.md names a test for every threat, or says why there is none.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';

const page = readFileSync(join(packageRoot, 'docs', 'threats.md'), 'utf8');
const sections = page
  .split(/^## /m)
  .slice(1)
  .map((text) => ({ id: /^T\d+/.exec(text)?.[0] ?? '', text }));

describe('docs/threats.md', () => {
  it('has all of them, in order', () =>
    expect(sections.map((s) => s.id)).toEqual(Array.from({ length: 17 }, (_, i) => `T${i + 1}`)));
  it.each(sections.map((s) => [s.id, s.text] as const))('%s names tests that are there, or an exception', (_, text) => {
    const named = [...text.matchAll(/`(test\/[\w./-]+\.test\.ts)`/g)].map((m) => m[1] ?? '');
    if (named.length === 0) expect(text).toMatch(/^Exception: .{20}/m);
    for (const file of named) {
      expect(existsSync(join(packageRoot, file)), file).toBe(true);
      expect(readFileSync(join(packageRoot, file), 'utf8'), file).toMatch(/\b(?:it|test)(?:\.each)?\(/);
    }
  });
});
