import { describe, expect, it } from 'vitest';
import { formatBytes, formatRate, formatSeconds, parseBytes } from '../../src/base/units.js';

it('formats', () => {
  expect([formatSeconds(59.6), formatSeconds(75), formatSeconds(7384)]).toEqual(['1m00s', '1m15s', '2h03m']);
  expect([formatRate(12345.6), formatRate(3.06), formatRate(2e6), formatRate(Number.NaN)]).toEqual([
    '12.3k',
    '3.1',
    '2.0M',
    '–',
  ]);
  expect([formatBytes(2 ** 29), formatBytes(1.5 * 2 ** 30)]).toEqual(['512.0 MiB', '1.50 GiB']);
});

describe('parseBytes', () => {
  it.each([
    ['15.2GiB', Math.floor(15.2 * 2 ** 30)],
    ['16 GB', 16e9],
    ['900mib', 900 * 2 ** 20],
    ['1024', 1024],
    ['0', 0],
  ])('%s', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });
  it.each(['', 'GiB', '-1GB', '12 parsecs', '1e9'])('refuses %j', (text) => {
    expect(() => parseBytes(text)).toThrow(expect.objectContaining({ code: 'bad_memory_limit' }));
  });
});
