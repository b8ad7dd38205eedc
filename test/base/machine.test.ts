import { afterEach, expect, test, vi } from 'vitest';
import { anonymousBytes, availableBytes, cacheableBytes } from '../../src/base/machine.js';

afterEach(() => vi.restoreAllMocks());

test.runIf(process.platform === 'linux')("a container's limit counts, less what this process holds of it", () => {
  vi.spyOn(process, 'constrainedMemory').mockReturnValue(0);
  const all = availableBytes();
  expect(all).toBeGreaterThan(2 ** 20);
  const limit = anonymousBytes() + all / 4;
  vi.mocked(process.constrainedMemory).mockReturnValue(limit);
  expect(availableBytes()).toBeLessThan(all / 2);
  expect(cacheableBytes()).toBeLessThan(all / 2);
  vi.mocked(process.constrainedMemory).mockReturnValue(1);
  expect([availableBytes(), cacheableBytes()]).toEqual([0, 0]);
});
