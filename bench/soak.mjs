// node bench/soak.mjs [--requests 2000] [--threads N] [--at-once 24]: a server on models/nano under mixed requests of
// all APIs, of which 2 % go away and 1 % are hostile; adapters are replaced under it. It ends by itself, says how
// memory went, and fails where something is left: pages, slots, places, files, timers, or memory.
//
// Memory is flat when the last quarter is at most 5 % above the first one, in three ways: the RSS but for mapped files
// (weights and libraries, which the system takes and gives back as it likes) as it is read under load, the median of
// each quarter; the same at the end of each, after all threads have collected their garbage; and what then lives in the
// heaps. RSS is told by quarters too. The first quarter is when the server fills what is bounded (kept beginnings,
// compiled schemas, code that was made fast). A run of fewer than 20,000 requests tells how memory went and does not
// fail for it. V8 is bounded as `temper serve` bounds it.
//
// The load comes from a process of its own. Needs the build (npm run build).
import { fork, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BroadcastChannel } from 'node:worker_threads';

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

/** Memory is judged from so many requests on, and by how much it may grow. */
const JUDGED = 20_000;
const FLAT = 0.05;
/** A thread that says nothing for so long has none to collect, unless it was there before: it is waited for. */
const COLLECT_MS = 2000,
  COLLECT_MOST_MS = 60_000;
/** Threads that have collected. */
const threads = new Set();

const schemaOf = (n) => ({
  type: 'object',
  properties: { [`name${n}`]: { type: 'string', maxLength: 8 }, at: { enum: ['noon', 'night', n] } },
  required: ['at'],
  additionalProperties: false,
});
/** A request as most are: where to, and what. */
function askOf(next) {
  const kind = next(),
    turns = 1 + Math.floor(next() * 2),
    limit = 1 + Math.floor(next() * 8),
    schema = schemaOf(Math.floor(next() * 30));
  const common = {
    model: ['nano', 'a', 'b', 'c'][Math.floor(next() * 4)],
    temperature: next() < 0.5 ? 0 : 1,
    stream: next() < 0.5,
  };
  const opening = next() < 0.5 ? `Rules ${Math.floor(next() * 3)}. ${'Be kind. '.repeat(12)}` : null;
  const dialogue = Array.from({ length: 2 * turns - 1 }, (_, i) => ({
    role: i % 2 ? 'assistant' : 'user',
    content: `Table ${Math.floor(next() * 50)} ${'please '.repeat(Math.floor(next() * 6))}`,
  }));
  const messages = opening === null ? dialogue : [{ role: 'system', content: opening }, ...dialogue];
  const chat = { ...common, messages, max_completion_tokens: limit, seed: Math.floor(next() * 1000) };
  const { content: prompt } = dialogue[0] ?? { content: '' };
  if (kind < 0.55) return ['/v1/chat/completions', chat];
  if (kind < 0.65) {
    const json_schema = { name: 'table', schema, strict: true };
    return ['/v1/chat/completions', { ...chat, response_format: { type: 'json_schema', json_schema } }];
  }
  if (kind < 0.75) {
    const declared = { name: 'book', strict: true, parameters: schema };
    return [
      '/v1/chat/completions',
      { ...chat, tools: [{ type: 'function', function: declared }], tool_choice: 'required' },
    ];
  }
  if (kind < 0.85) return ['/v1/responses', { ...common, input: dialogue, max_output_tokens: 16, store: next() < 0.3 }];
  if (kind < 0.95) {
    const system = opening === null ? {} : { system: opening };
    return ['/v1/messages', { ...common, ...system, messages: dialogue, max_tokens: limit }];
  }
  return ['/v1/completions', { ...common, prompt, max_tokens: limit }];
}
/** How a stream of each API ends. */
const ENDS = {
  '/v1/chat/completions': /data: \[DONE\]$/,
  '/v1/completions': /data: \[DONE\]$/,
  '/v1/responses': /event: response\.(completed|incomplete)\n.*$/,
  '/v1/messages': /event: message_stop\n.*$/,
};

if (process.argv[2] === '--client') await client(process.argv[3], Number(process.argv[4]), Number(process.argv[5]));
else if (globalThis.gc) await main();
else {
  // Threads collect when they are told to (collect.mjs), for which node must have been started so.
  const flags = ['--expose-gc', '--import', new URL('./collect.mjs', import.meta.url).href];
  const child = spawnSync(process.execPath, [...flags, ...process.argv.slice(1)], { stdio: 'inherit' });
  process.exitCode = child.status ?? 1;
}

/** All threads of this process collect; bytes of each by its number: what then lives, and pages kept for it. */
function collected() {
  const channel = new BroadcastChannel('temper-collect');
  return new Promise((/** @type {(of: Record<number, {bytes: number, pages: number}>) => void} */ done) => {
    /** @type {Record<number, {bytes: number, pages: number}>} */
    const of = {},
      began = performance.now();
    let timer;
    const later = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const late = [...threads].some((id) => !(id in of)) && performance.now() - began < COLLECT_MOST_MS;
        if (late) {
          later();
          return;
        }
        channel.close();
        done(of);
      }, COLLECT_MS);
    };
    channel.onmessage = (message) => {
      const { done: answered, threadId, bytes, pages } = /** @type {any} */ (message).data;
      if (answered === undefined) return;
      of[threadId] = { bytes, pages };
      threads.add(threadId);
      later();
    };
    channel.postMessage({ collect: true });
    later();
  });
}

/** Anonymous memory that malloc has of the system, bytes: its main heap, and its arenas. */
function anonymousBy() {
  const by = { heap: 0, arenas: 0, others: 0 };
  let kind = /** @type {keyof typeof by} */ ('others');
  for (const line of readFileSync('/proc/self/smaps', 'latin1').split('\n')) {
    const region = /^([0-9a-f]+)-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$/.exec(line);
    if (region) {
      const [, from, name] = region;
      // glibc lays each arena at a multiple of 64 MiB.
      const arena = name === '' && BigInt(`0x${from}`) % (64n << 20n) === 0n;
      kind = name === '[heap]' ? 'heap' : arena ? 'arenas' : 'others';
    }
    by[kind] += 1024 * Number(/^Anonymous: +(\d+)/.exec(line)?.[1] ?? 0);
  }
  return by;
}

async function client(url, requests, atOnce) {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  const next = numbers(7);
  const counts = {};
  const count = (what) => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  const post = (path, body, goes) =>
    new Promise((/** @type {(value?: unknown) => void} */ done) => {
      const headers = { 'content-type': 'application/json', authorization: `Bearer ${KEY}` };
      const r = httpRequest(`${url}${path}`, { method: 'POST', agent, headers }, (response) => {
        let text = '';
        response.on('data', (d) => {
          text += d;
        });
        response.on('error', () => {});
        response.on('close', () => {
          const streams = response.headers['content-type']?.startsWith('text/event-stream');
          const whole = !streams || ENDS[path].test(text.trimEnd());
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
      else if (kind < 0.01) await post('/v1/chat/completions', HOSTILE[Math.floor(next() * HOSTILE.length)], false);
      else {
        const [path, body] = askOf(next);
        await post(path, JSON.stringify(body), kind < 0.03);
      }
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
  const [{ serve }, { boundHeaps }] = await Promise.all([
    import('../dist/serve/server.js'),
    import('../dist/base/heaps.js'),
  ]);
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
    state: join(folder, 'state'),
    keys: [{ name: 'soak', key: KEY }],
    adminKeys: [{ name: 'soak', key: KEY }],
    log: (line) => log.push(line),
  });
  boundHeaps();
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
  /** RssAnon, bytes. */
  const anonymous = () => 1024 * Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
  const mib = (bytes) => Number((bytes / 2 ** 20).toFixed(1));
  // Threads that are started when they are first needed have files, too: by a schema, and by a body of 40 KB.
  const json_schema = { name: 'first', schema: schemaOf(0), strict: true };
  for (const content of ['Hi', 'x '.repeat(20_000)])
    await admin('POST', '/v1/chat/completions', {
      model: 'nano',
      messages: [{ role: 'user', content }],
      max_completion_tokens: 1,
      response_format: { type: 'json_schema', json_schema },
    });
  await collected(); // so that all of them are known
  const at = { files: files(), timers: timers() };

  const child = fork(fileURLToPath(import.meta.url), ['--client', server.url, values.requests, values['at-once']], {
    execArgv: [],
  });
  const rss = [],
    own = [],
    held = [];
  let turn = 0;
  const began = performance.now();
  /** Once all is collected: what this process has, and what lives in its heaps. */
  const settle = async () => {
    const heaps = await collected();
    const of = (what) => mib(Object.values(heaps).reduce((sum, heap) => sum + heap[what], 0));
    const { heap, arenas } = anonymousBy();
    held.push({ own: mib(anonymous()), live: of('bytes'), pages: of('pages'), malloc: mib(heap + arenas) });
  };
  const counts = await new Promise((done, fail) => {
    let settling = Promise.resolve();
    child.on('message', (/** @type {any} */ m) => {
      rss.push(mib(process.memoryUsage.rss()));
      own.push(mib(anonymous()));
      const name = ['a', 'b', 'c'][turn++ % 3];
      // Adapters are replaced under the requests that use them.
      void admin('POST', '/admin/adapters', { name, path: adapters[name], status: 'approved' }).catch(fail);
      const rate = Math.round((m.sent * 1000) / (performance.now() - began));
      process.stderr.write(
        `\r${m.sent} of ${values.requests}, ${rate}/s, RSS ${rss.at(-1)} MiB, ${own.at(-1)} without files `,
      );
      if (rss.length % 10 === 0 && held.length < 4) settling = settling.then(settle);
      if (m.counts) void settling.then(() => done(m.counts));
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
  const quarter = Math.floor(rss.length / 4);
  const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
  const quarters = (list) => [0, 1, 2, 3].map((q) => median(list.slice(q * quarter, (q + 1) * quarter)));
  const [first, last] = [held[0], held.at(-1)];
  const plain = quarters(own);
  const grown = Math.max(last.own / first.own, last.live / first.live, plain[3] / plain[0]) - 1;
  const { engine } = await admin('GET', '/admin/state');
  const { heapUsed, heapTotal, external } = process.memoryUsage();
  const after = { files: files() - at.files, timers: timers() - at.timers };
  const row = {
    bench: 'soak',
    requests: Number(values.requests),
    seconds: Math.round((performance.now() - began) / 1000),
    counts,
    left: rest,
    ...after,
    rssMiB: quarters(rss),
    ownMiB: plain,
    // At the end of each quarter, after all threads have collected.
    collectedMiB: held.map((h) => h.own),
    liveMiB: held.map((h) => h.live),
    // Of what is held: pages that V8 keeps for its heaps, and what malloc has.
    pagesMiB: held.map((h) => h.pages),
    mallocMiB: held.map((h) => h.malloc),
    heapsMiB: [heapUsed, heapTotal, external, engine.heapBytes, engine.nativeBytes].map(mib),
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
    (grown > FLAT && Number(values.requests) >= JUDGED) ||
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
