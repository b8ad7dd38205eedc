// Patterns: nothing that one names is left out without a word.
import { expect, it, vi } from 'vitest';
import { matching } from '../../src/base/globs.js';

vi.mock('tinyglobby', () => ({ globSync: () => Array.from({ length: 100_001 }, (_, i) => `/rows/${i}.jsonl`) }));

it('more files than are read at once are an error, not the first of them', () =>
  expect(() => matching('/rows/*.jsonl')).toThrow(expect.objectContaining({ code: 'no_data_files' })));
