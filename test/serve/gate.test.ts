// A server that asks the release gate: what has no PASS for exactly what is at hand is not loaded, what is revoked is
// refused from then on, and what runs on it ends.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { type Guard, openGuard } from '../../src/compose/gate-guard.js';
import { revokeAdapter } from '../../src/compose/gate-revoke.js';
import { exportReleased } from '../../src/compose/release.js';
import type { Engine } from '../../src/infer/engine.js';
import type { Structures } from '../../src/infer/structures.js';
import { subjectOf } from '../../src/runs/subject.js';
import { type ServedModel, ServedModels } from '../../src/serve/served.js';
import { type ServeOptions, serve, type TemperServer } from '../../src/serve/server.js';
import { makeKey } from '../../src/verdict-log/keys.js';
import { makeEvidence } from '../gate/evidence.js';
import { NANO, oddAdapter } from './odd-adapter.js';
import { SAYS, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

const root = mkdtempSync(join(tmpdir(), 'serve-gate-'));
const [good, bare, key, list] = ['good', 'bare', 'key.pem', 'revoked.json'].map((name) => join(root, name)) as [
  string,
  string,
  string,
  string,
];
let server: TemperServer | null = null;
afterAll(async () => {
  await server?.close();
  rmSync(root, { recursive: true });
});
beforeAll(async () => {
  await oddAdapter(good, 1);
  await oddAdapter(bare, 2);
  makeEvidence(join(good, 'gate'), { subject: await subjectOf({ model: NANO, adapter: good }) });
  makeKey(key);
  await revokeAdapter({ what: `sha256:${'0'.repeat(64)}`, key, reason: 'another', list });
});
const ADMIN = 'key-of-the-admin-0';
const log: string[] = [];
const options = (adapters: Record<string, string>): ServeOptions => ({
  engine: { model: NANO, threads: 1, device: 'cpu', contextTokens: 256, slots: 2, adapters },
  port: 0,
  requireGate: true,
  revocations: { list, key: `${key}.pub` },
  adminKeys: [{ name: 'owner', key: ADMIN }],
  log: (line) => log.push(line),
});
const failing = async (promise: Promise<unknown>): Promise<TemperError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (e: unknown) => e as TemperError,
  );
type Json = Record<string, unknown>;
const call = async (path: string, body?: unknown): Promise<{ readonly status: number; readonly json: Json }> => {
  const response = await fetch(`${server?.url}${path}`, {
    ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    headers: { 'content-type': 'application/json', authorization: `Bearer ${ADMIN}` },
  });
  return { status: response.status, json: (await response.json()) as Json };
};
const ask = (model: string): ReturnType<typeof call> =>
  call('/v1/chat/completions', { model, messages: [{ role: 'user', content: 'A taxi.' }], max_tokens: 4 });

it('does not start with what no gate passed, and says the next step', async () => {
  const e = await failing(serve(options({ good, bare })));
  expect([e.code, e.exitCode]).toEqual(['gate_absent', 10]);
  expect(e.message).toContain('temper gate ADAPTER --suite FILE');
});

it('loads what somebody answers for where his key is named, tells so, and else not', async () => {
  const out = join(root, 'overridden'),
    damaged = join(root, 'edited'),
    mine = join(root, 'mine.pem');
  makeKey(mine);
  const override = { signer: mine, reason: 'For one client' };
  await exportReleased({ adapter: bare, model: NANO, out, override });
  const subject = await subjectOf({ model: NANO, adapter: out });
  const open = (overrides: readonly string[]): Guard => openGuard({ required: true, overrides });
  const refused = await failing(open([`${key}.pub`]).adapter(out, NANO));
  expect([refused.code, refused.exitCode]).toEqual(['gate_overridden', 10]);
  expect(refused.message).toMatch(/key [0-9a-f]{64} answers for it.*--allow-override FILE/u);
  expect((await open([`${mine}.pub`]).adapter(out, NANO)).gate).toMatchObject({
    status: 'overridden',
    adapter: subject.adapter,
    override: { reason: 'For one client' },
  });
  cpSync(out, damaged, { recursive: true });
  const file = join(damaged, 'gate', 'override.json');
  writeFileSync(file, readFileSync(file, 'utf8').replace('"sig": "', '"sig": "A'));
  expect((await failing(open([`${mine}.pub`]).adapter(damaged, NANO))).code).toBe('gate_override');
  // Revoked is revoked, whoever answers for it.
  const revoked = join(root, 'of-overridden.json');
  await revokeAdapter({ what: out, key: mine, reason: 'leaks', list: revoked });
  const guard = openGuard({
    required: true,
    overrides: [`${mine}.pub`],
    revocations: { list: revoked, key: `${mine}.pub` },
  });
  expect((await failing(guard.adapter(out, NANO))).code).toBe('gate_revoked');
  server = await serve({ ...options({ tuned: out }), allowOverride: [`${mine}.pub`] });
  const { json } = await call('/v1/models');
  expect((json.data as { temper: { gate: Json } }[])[1]?.temper.gate).toMatchObject({
    status: 'overridden',
    override: { reason: 'For one client' },
  });
  await server.close();
  server = null;
});

it('serves what passed, tells how each model stands, and loads nothing else', async () => {
  server = await serve(options({ good }));
  const subject = await subjectOf({ model: NANO, adapter: good });
  const { json } = await call('/v1/models');
  const gates = (json.data as { id: string; temper: { gate: Json } }[]).map((m) => [m.id, m.temper.gate.status]);
  expect(gates).toEqual([
    ['nano', 'passed'],
    ['good', 'passed'],
  ]);
  expect((await call('/admin/adapters')).json.data).toMatchObject([
    { name: 'good', gate: { decision: 'PASS', adapter: subject.adapter } },
  ]);
  expect((await ask('good')).status).toBe(200);
  const refused = await call('/admin/adapters', { name: 'bare', path: bare });
  expect([refused.status, (refused.json.error as Json).code]).toEqual([400, 'gate_absent']);
  // The evidence of one adapter is none of another.
  const borrowed = join(root, 'borrowed');
  cpSync(bare, borrowed, { recursive: true });
  cpSync(join(good, 'gate'), join(borrowed, 'gate'), { recursive: true });
  const stale = await call('/admin/adapters', { name: 'bare', path: borrowed });
  expect([stale.status, (stale.json.error as Json).code]).toEqual([400, 'gate_stale']);
});

it('refuses what is revoked from the next reload on; a list that cannot be believed changes nothing', async () => {
  const before = readFileSync(list);
  writeFileSync(list, before.subarray(0, 40));
  const damaged = await server?.reload(options({ good }));
  expect(damaged?.join()).toContain('revocations: the list before holds');
  expect((await ask('good')).status).toBe(200);
  writeFileSync(list, before);
  const { digest } = await revokeAdapter({ what: good, key, reason: 'tells room numbers', list });
  const told = await server?.reload(options({ good }));
  expect(told).toContainEqual(expect.stringContaining('model good: revoked (tells room numbers)'));
  const refused = await ask('good');
  expect([refused.status, refused.json.error]).toEqual([
    403,
    expect.objectContaining({ code: 'model_revoked', type: 'permission_error', param: 'model' }),
  ]);
  expect((await call('/admin/adapters', { name: 'again', path: good })).json.error).toMatchObject({
    code: 'gate_revoked',
  });
  expect((await ask('nano')).status).toBe(200);
  await server?.close();
  server = null;
  const e = await failing(serve(options({ good })));
  expect([e.code, e.details.digest]).toEqual(['gate_revoked', digest]);
  // The list of before, put back, is told from the one that was taken.
  writeFileSync(list, before);
  expect((await failing(serve(options({})))).code).toBe('revocation_list');
});

it('ends a stream that runs on what is revoked, in the form of its API', async () => {
  const gate = { status: 'passed', decision: 'PASS', adapter: 'sha256:x', lock: null } as const;
  let revoked = false;
  const guard = {
    revoked: () => (revoked ? { digest: 'sha256:x', reason: 'leaks', time: '2026-11-29T00:00:00Z' } : null),
  } as unknown as Guard;
  const { engine } = scriptedEngine(() => tokensOf(SAYS));
  const endless = {
    ...engine,
    async *generate(request, signal) {
      for await (const event of engine.generate(request, signal)) {
        if (event.kind === 'done')
          await new Promise((_, fail) => signal?.addEventListener('abort', () => fail(signal.reason)));
        yield event;
      }
    },
    unloadAdapter: async () => {},
  } as Engine;
  const base: ServedModel = { id: 'm', adapter: null, digest: 'd', pairs: 0, status: 'approved', folder: null };
  const tuned: ServedModel = { ...base, id: 't', adapter: 't', gate };
  const models = new ServedModels(endless, null as unknown as Structures, base, [tuned], guard);
  const { post } = scriptedApp(endless, { models: [tuned], onRevoked: models.onRevoked });
  const body = { model: 't', stream: true, messages: [{ role: 'user', content: 'x' }] };
  const reader = (await post('/v1/chat/completions', body)).body?.getReader();
  if (!reader) throw new Error('no body');
  let text = '';
  const decoder = new TextDecoder();
  text += decoder.decode((await reader.read()).value, { stream: true });
  revoked = true;
  expect(await models.applyRevocations()).toHaveLength(1);
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) text += decoder.decode(piece.value);
  expect(text).toContain('"code":"model_revoked"');
  expect(text).not.toContain('[DONE]');
  expect(() => models.find('t')).toThrow('was revoked');
});
