// Answers and the log of their verdicts: each brings its receipt, and what cannot be recorded does not leave.
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { openLog } from '../../src/compose/verdict-log.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge } from '../../src/safeguard/types.js';
import { RECEIPT_HEADER } from '../../src/serve/app.js';
import { serve } from '../../src/serve/server.js';
import { leafHash } from '../../src/verdict-log/merkle.js';
import { verifyLog } from '../../src/verdict-log/verify.js';
import { completion, nonceOf, startJudgeServer } from '../safeguard/judge-server.js';
import { filesOf, linesOf, scratch } from '../verdict-log/logs.js';
import { SAYS, type ScriptedApp, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

const at = scratch('serve-log');
const judge: Judge = {
  name: 'j',
  digest: 'd',
  judge: async ({ nonce }) => ({ text: renderVerdict({ rule: null, nonce }), finish: 'stop' }),
};
const screen = createScreen({ policies: [definePolicy('p', 'R1: nothing bad.')], judge });
const log = await openLog({ log: at('log') }, 'test');
afterAll(() => log?.close());
const appWith = (append: NonNullable<typeof log>['held']['append']): ScriptedApp =>
  scriptedApp(scriptedEngine(() => tokensOf(SAYS)).engine, { screen, holding: { log: { append } } });

const messages = [{ role: 'user', content: 'hi' }];
const ROUTES: readonly (readonly [path: string, body: Record<string, unknown>])[] = [
  ['/v1/chat/completions', { model: 'm', messages }],
  ['/v1/responses', { model: 'm', input: 'hi' }],
  ['/v1/messages', { model: 'm', max_tokens: 99, messages }],
];

it.each(ROUTES)('%s brings the receipt: as a header, in the body, at the end of a stream', async (path, body) => {
  const app = appWith((r) => log!.held.append(r));
  const response = await app.post(path, body);
  expect(response.status).toBe(200);
  const { receipt } = ((await response.json()) as { temper: { receipt: string } }).temper;
  expect(response.headers.get(RECEIPT_HEADER)).toBe(receipt);
  const events = await app.events(path, body);
  const told = events.flatMap((e) => {
    const own = (e.temper ?? (e.response as { temper?: unknown } | undefined)?.temper) as
      | { receipt: string }
      | undefined;
    return own ? [own.receipt] : [];
  });
  expect(told.length).toBeGreaterThan(0);
  // A receipt names a line of the log, and binds it.
  const lines = filesOf(at('log'))
    .slice(1)
    .flatMap((f) => linesOf(join(at('log'), f)));
  for (const r of [receipt, ...told]) {
    const line = lines.find((l) => leafHash(l) === r.split('.')[3]) ?? '';
    expect(JSON.parse(line)).toMatchObject({ kind: 'verdict', record: { action: 'release', outcome: 'allow' } });
    expect(line).not.toContain('Four, then.');
  }
});

it.each(ROUTES)('%s: what cannot be recorded does not leave', async (path, body) => {
  const app = appWith(() => Promise.reject(new Error('ENOSPC')));
  const response = await app.post(path, body);
  expect(response.status).toBe(503);
  const text = await response.text();
  expect(text).not.toContain('Four');
  const streamed = await (await app.post(path, { ...body, stream: true })).text();
  expect(streamed).not.toContain('Four');
  expect(streamed).toContain('could not be recorded');
});

it('a server with --log: every answer is recorded before it leaves, and the log is whole when it ends', async () => {
  const server = await startJudgeServer((request, response) =>
    completion(response, { content: renderVerdict({ rule: null, nonce: nonceOf(request) }) }),
  );
  const running = await serve({
    engine: { model: join(packageRoot, 'models', 'nano'), slots: 4 },
    port: 0,
    screening: {
      policy: [join(packageRoot, 'policies', 'contact', 'policy.md')],
      judge: server.url,
      judgeModel: 'j',
      judgeTimeout: 60,
      judgeMaxTokens: 100,
      judgeConcurrency: 8,
      log: at('server'),
    },
    log: () => {},
  });
  try {
    expect(running.notices.join('\n')).toContain('lies in the log itself');
    const receipts = await Promise.all(
      Array.from({ length: 4 }, async (_, i) => {
        const response = await fetch(`${running.url}/v1/chat/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ model: 'nano', messages: [{ role: 'user', content: `Hello ${i}` }], max_tokens: 40 }),
        });
        const { temper } = (await response.json()) as { temper: { receipt: string } };
        // While it runs: what it has said is there.
        const report = verifyLog({ dir: at('server') });
        expect(report.faults).toEqual([]);
        const text = readFileSync(join(at('server'), '0000', '000000000000.jsonl'), 'utf8');
        expect(text.split('\n').some((l) => leafHash(l) === temper.receipt.split('.')[3])).toBe(true);
        return temper.receipt;
      }),
    );
    expect(new Set(receipts).size).toBe(4);
    const metrics = await (await fetch(`${running.url}/metrics`)).text();
    expect(metrics).toMatch(/^temper_log_records_total [1-9]/m);
  } finally {
    await running.close();
    await server.close();
  }
  expect(verifyLog({ dir: at('server'), closed: true })).toMatchObject({ ok: true });
  rmSync(at('server'), { recursive: true });
});
