// A reader that takes nothing holds a place: it is given up, and what wrote for it is ended.
import { expect, it } from 'vitest';
import { eventStream, type ServerEvent } from '../../src/serve/sse.js';

it('a reader that reads nothing is given up; one that reads gets all', async () => {
  let written = 0,
    ended = false;
  async function* events(): AsyncGenerator<ServerEvent, void, void> {
    try {
      for (; written < 100; written++) yield { data: { written } };
    } finally {
      ended = true;
    }
  }
  const failed = (): ServerEvent => ({ data: 'failed' });
  const stop = new AbortController();
  const stalled = await eventStream({ env: {} }, events(), stop, failed, 5);
  const reader = stalled.body?.getReader();
  await reader?.read();
  await expect.poll(() => stop.signal.aborted, { timeout: 5000 }).toBe(true);
  await expect.poll(() => ended).toBe(true);
  expect(written).toBeLessThan(4); // it is not read ahead of
  await expect(reader?.read()).rejects.toThrow();

  written = 0;
  const whole = await eventStream({ env: {} }, events(), new AbortController(), failed, 60_000);
  expect((await whole.text()).match(/data: /g)).toHaveLength(100);
});
