// Bodies that nobody meant: an answer or an error of the API's own shape, never a fault of the server.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { faultOf, hostileRequest } from './hostile-apis.js';
import { scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

/** More of them once in a while: TEMPER_HOSTILE_RUNS=10000. */
const RUNS = Number(process.env.TEMPER_HOSTILE_RUNS ?? 500);
it('is an answer, or an error in the shape of the API', { timeout: 3_600_000 }, async () => {
  const { app, log, admission } = (() => {
    const says = tokensOf('<|channel|>final<|message|>ok<|return|>');
    const scripted = scriptedApp(scriptedEngine(() => says).engine);
    return scripted;
  })();
  const statuses = new Map<number, number>();
  await fc.assert(
    fc.asyncProperty(hostileRequest('m'), async ({ path, body }) => {
      const response = await app.request(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
      const text = await response.text();
      statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
      expect(log).toEqual([]);
      expect(faultOf(path, response.status, response.headers.get('content-type'), text)).toBeNull();
    }),
    { numRuns: RUNS },
  );
  expect(admission.running).toBe(0);
  // It swept both: bodies that are read, and bodies that are not.
  expect(statuses.get(200)).toBeGreaterThan(RUNS / 25);
  expect(statuses.get(400)).toBeGreaterThan(RUNS / 5);
});
