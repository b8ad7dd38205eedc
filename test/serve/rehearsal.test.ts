// What a server does before anybody asks: it answers itself, gives way to who asks, and leaves no trace.
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import type { EngineInfo } from '../../src/infer/protocol.js';
import { describeApis } from '../../src/serve/app.js';
import { rehearse } from '../../src/serve/rehearsal.js';
import { serve } from '../../src/serve/server.js';

const info = { contextTokens: 4096 } as EngineInfo;

it('answers as many requests as it is to, and ends', async () => {
  let asked = 0;
  const free = (): boolean => {
    asked++;
    return false;
  };
  await rehearse(info, { busy: free, signal: new AbortController().signal, requests: 40 });
  expect(asked).toBe(41); // before each, and before its routes are described
  const described = await Promise.race([describeApis(), 'not made yet']);
  expect(JSON.parse(JSON.stringify(described))).toHaveProperty('openapi', '3.1.0');
});

it('gives way while others are answered, and ends when it is told to', async () => {
  const stop = new AbortController();
  let asked = 0;
  const busy = (): boolean => {
    asked++;
    if (asked === 10) stop.abort();
    return asked > 5;
  };
  await rehearse(info, { busy, signal: stop.signal });
  expect(asked).toBe(10);
});

it('counts as no request, and a server that closes does not wait for it', async () => {
  const server = await serve({ engine: { model: join(packageRoot, 'models', 'nano'), threads: 1 }, port: 0 });
  try {
    await server.rehearse();
    const told = await (await fetch(`${server.url}/metrics`)).text();
    expect(told).toContain('temper_requests_running 0');
    expect(told).not.toContain('/v1/chat/completions');
    expect(told).not.toMatch(/temper_tokens_total\{kind="completion"\} [1-9]/);
    const again = server.rehearse();
    await server.close();
    await again;
  } finally {
    await server.close();
  }
});
