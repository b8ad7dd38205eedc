// node bench/soak.mjs [--requests 2000] [--threads N] [--at-once 24]: a server on models/nano under mixed requests, of
// which 2 % go away and 1 % are hostile. It ends by itself, says how memory went, and fails where something is left:
// pages, slots, places, files, timers, or a least RSS over 5 % larger in the last third than in the middle one (peaks
// are the collector's). The load comes from a process of its own. Needs the build (npm run build).
import { fork } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const KEY = 'key-of-the-soak-test';

/** The same numbers each time. */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
}
const HOSTILE = [
  '{"model":',
  '[]',
  '{"model":"nano","messages":[{"role":"user","content":"<|return|>"}],"max_completion_tokens":1e9}',
  `{"model":"nano","messages":${'['.repeat(500)}`,
  '{"model":"nano","messages":[{"role":"robot","content":{}}]}',
  `{"model":"nano","messages":[{"role":"user","content":"${'x '.repeat(4000)}"}]}`,
];

function bodyOf(next) {
  const turns = 1 + Math.floor(next() * 3);
  return {
    model: ['nano', 'a', 'b', 'c'][Math.floor(next() * 4)],
    messages: [
      ...(next() < 0.5
        ? [{ role: 'system', content: `Rules ${Math.floor(next() * 3)}. ${'Be kind. '.repeat(20)}` }]
        : []),
      ...Array.from({ length: 2 * turns - 1 }, (_, i) => ({
        role: i % 2 ? 'assistant' : 'user',
        content: `Table ${Math.floor(next() * 50)} ${'please '.repeat(Math.floor(next() * 30))}`,
      })),
    ],
    max_completion_tokens: 1 + Math.floor(next() * 40),
    temperature: next() < 0.5 ? 0 : 1.5,
    seed: Math.floor(next() * 1000),
    stream: next() < 0.5,
  };
}

if (process.argv[2] === '--client') await client(process.argv[3], Number(process.argv[4]), Number(process.argv[5]));
else await main();

async function client(url, requests, atOnce) {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  const next = numbers(7);
  const counts = {};
  const count = (what) => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  const post = (body, goes) =>
    new Promise((/** @type {(value?: unknown) => void} */ done) => {
      const headers = { 'content-type': 'application/json', authorization: `Bearer ${KEY}` };
      const r = httpRequest(`${url}/v1/chat/completions`, { method: 'POST', agent, headers }, (response) => {
        let text = '';
        response.on('data', (d) => {
          text += d;
        });
        response.on('error', () => {});
        response.on('close', () => {
          const whole = !text.startsWith('data: ') || text.endsWith('data: [DONE]\n\n');
          count(goes ? 'gone' : whole ? response.statusCode : 'cut');
          done();
        });
      });
      r.on('error', () => {
        count(goes ? 'gone' : 'failed');
        done();
      });
      r.end(body);
      if (goes) setTimeout(() => r.destroy(), next() * 150);
    });
  /** Bytes that are no request, and a request that never ends. */
  const raw = () =>
    new Promise((/** @type {(value?: unknown) => void} */ done) => {
      const { hostname, port } = new URL(url);
      const socket = connect(Number(port), hostname, () => {
        socket.write(
          next() < 0.5 ? 'NONSENSE\r\n\r\n' : 'POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 9\r\n\r\n',
        );
        setTimeout(() => socket.destroy(), 20);
      });
      socket.on('error', () => {});
      socket.on('close', () => {
        count('raw');
        done();
      });
    });
  let sent = 0,
    ended = 0;
  const worker = async () => {
    while (sent < requests) {
      sent++;
      const kind = next();
      if (kind < 0.005) await raw();
      else if (kind < 0.01) await post(HOSTILE[Math.floor(next() * HOSTILE.length)], false);
      else await post(JSON.stringify(bodyOf(next)), kind < 0.03);
      if (++ended % Math.ceil(requests / 40) === 0) process.send({ sent: ended });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  agent.destroy();
  process.send({ sent, counts });
  process.disconnect();
}

async function main() {
  const { values } = parseArgs({
    options: {
      requests: { type: 'string', default: '2000' },
      threads: { type: 'string', default: '2' },
      'at-once': { type: 'string', default: '24' },
    },
  });
  const { serve } = await import('../dist/serve/server.js');
  const folder = mkdtempSync(join(tmpdir(), 'soak-'));
  const adapters = await makeAdapters(folder);
  const model = join(root, 'models', 'nano');
  const log = [];
  const server = await serve({
    engine: {
      model,
      threads: Number(values.threads),
      device: 'cpu',
      slots: 8,
      contextTokens: 512,
      cacheTokens: 3072,
      adapters,
    },
    port: 0,
    queue: 64,
    keys: [{ name: 'soak', key: KEY }],
    adminKeys: [{ name: 'soak', key: KEY }],
    log: (line) => log.push(line),
  });
  const admin = async (method, path, body) => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${KEY}`, connection: 'close' };
    const response = await fetch(`${server.url}${path}`, {
      method,
      headers,
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    return /** @type {any} */ (await response.json());
  };
  const left = async () => {
    const { running, waiting, keys, engine } = await admin('GET', '/admin/state');
    return {
      running,
      waiting,
      keys: Object.keys(keys).length,
      slots: 8 - engine.freeSlots,
      pages: engine.usedPages - engine.keptPages,
    };
  };
  const files = () => readdirSync('/proc/self/fd').length;
  const timers = () => process.getActiveResourcesInfo().filter((r) => r === 'Timeout').length;
  const mib = () => Number((process.memoryUsage.rss() / 2 ** 20).toFixed(1));
  const at = { files: files(), timers: timers() };

  const child = fork(fileURLToPath(import.meta.url), ['--client', server.url, values.requests, values['at-once']]);
  const rss = [];
  let turn = 0;
  const began = performance.now();
  const counts = await new Promise((done, fail) => {
    child.on('message', (/** @type {any} */ m) => {
      rss.push(mib());
      const name = ['a', 'b', 'c'][turn++ % 3];
      // Adapters are replaced under the requests that use them.
      void admin('POST', '/admin/adapters', { name, path: adapters[name], status: 'approved' }).catch(fail);
      const rate = Math.round((m.sent * 1000) / (performance.now() - began));
      process.stderr.write(`\r${m.sent} of ${values.requests}, ${rate}/s, RSS ${rss.at(-1)} MiB `);
      if (m.counts) done(m.counts);
    });
    child.on('error', fail);
  });
  process.stderr.write('\n');
  // Sockets that went away are noticed, keep-alive ones end.
  let rest = await left();
  for (let i = 0; i < 200 && (Object.values(rest).some((n) => n !== 0) || files() > at.files + 2); i++) {
    await new Promise((later) => setTimeout(later, 50));
    rest = await left();
  }
  // Garbage is collected late, in the engine's thread too: what counts is what is left after it was.
  const third = Math.floor(rss.length / 3);
  const grown = Math.min(...rss.slice(-third)) / Math.min(...rss.slice(third, 2 * third)) - 1;
  const after = { files: files() - at.files, timers: timers() - at.timers };
  const row = {
    bench: 'soak',
    requests: Number(values.requests),
    seconds: Math.round((performance.now() - began) / 1000),
    counts,
    left: rest,
    ...after,
    rssMiB: [rss[0], Math.min(...rss.slice(third)), Math.max(...rss)],
    grown: Number(grown.toFixed(4)),
    log: log.filter((l) => !l.startsWith('admin ')).slice(0, 5),
  };
  process.stdout.write(`${JSON.stringify(row)}\n`);
  await server.close();
  rmSync(folder, { recursive: true });
  const bad =
    Object.values(rest).some((n) => n !== 0) ||
    after.files > 2 ||
    after.timers > 2 ||
    grown > 0.05 ||
    row.log.length > 0;
  if (bad || (counts.cut ?? 0) + (counts.failed ?? 0) + (counts[500] ?? 0) > 0) process.exitCode = 1;
}

async function makeAdapters(folder) {
  const [{ openCheckpoint }, { createAdapter }, { adapterSpec }, { writePeft }] = await Promise.all([
    import('../dist/model/checkpoint.js'),
    import('../dist/lora/adapter.js'),
    import('../dist/lora/spec.js'),
    import('../dist/lora/peft.js'),
  ]);
  const checkpoint = openCheckpoint(join(root, 'models', 'nano'));
  const names = {};
  for (const [i, name] of ['a', 'b', 'c'].entries()) {
    const spec = adapterSpec(checkpoint.config, {
      rank: 4 + i,
      alpha: 16,
      targets: ['attention', 'experts'],
      rsLora: false,
      dropout: 0,
    });
    const adapter = createAdapter(checkpoint.config, spec, { seed: i });
    adapter.params.write(adapter.params.toFloat32().map((x, j) => x || Math.sin(i + j) * 0.05));
    names[name] = join(folder, name);
    await writePeft(adapter, names[name], { baseModel: 'nano' });
    adapter.close();
  }
  checkpoint.close();
  return names;
}
