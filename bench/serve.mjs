// node bench/serve.mjs [--model DIR] [--threads N] [--only NAME,…] [--rounds N]: what the server costs,
// on loopback. The load comes from a process of its own, which ends by itself; engine alone and server run in turns in
// one process, so that both have the same threads. One JSON row per figure on stdout. Needs the build (npm run build).
import { fork, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { longer, makeAdapters } from './serving.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const ADMIN = 'key-of-the-benchmark';
const median = (xs) => xs.toSorted((a, b) => a - b)[Math.floor(xs.length / 2)] ?? Number.NaN;

/**
 * A connection of the load, kept for the next request. It shares two cores with the server, so it reads as little as
 * can be: pieces are counted, and of an answer only its end is looked at. Times are noted where they are asked for.
 */
class Line {
  /** @type {((piece: Buffer) => void) | null} */
  #take = null;
  /** @type {((e: Error) => void) | null} */
  #fail = null;
  constructor(url) {
    const { hostname, port } = new URL(url);
    this.host = `${hostname}:${port}`;
    const buffer = Buffer.allocUnsafe(1 << 16);
    const callback = (n) => {
      this.#take?.(buffer.subarray(0, n));
      return true;
    };
    this.socket = connect({ host: hostname, port: Number(port), noDelay: true, onread: { buffer, callback } });
    const over = (e) => this.#fail?.(e ?? new Error('the server closed the connection'));
    this.socket.on('error', over).on('close', over);
  }
  /** @returns ms of each piece that brings text, from the request's own begin, and its tokens */
  ask(body, timed) {
    return new Promise((done, fail) => {
      const json = JSON.stringify(body);
      const began = performance.now();
      const times = [];
      let end = '',
        text = 0;
      this.#fail = fail;
      this.#take = (piece) => {
        text += piece.length;
        const said = piece.toString('latin1', Math.max(0, piece.length - 1024));
        end = said.length < 1024 ? (end + said).slice(-1024) : said;
        if (timed && /"(content|reasoning|arguments)":"[^"]/.test(piece.toString('latin1')))
          times.push(performance.now() - began);
        if (!end.endsWith('0\r\n\r\n')) {
          if (end.startsWith('HTTP/1.1 ') && !end.startsWith('HTTP/1.1 200')) fail(new Error(end));
          return;
        }
        const tokens = Number(/"completion_tokens":(\d+)/.exec(end)?.[1] ?? Number.NaN),
          cached = Number(/"cached_tokens":(\d+)/.exec(end)?.[1] ?? 0);
        this.#fail = this.#take = null;
        if (Number.isNaN(tokens)) fail(new Error(`no usage: ${end}`));
        else done({ began, times, tokens, cached, ms: performance.now() - began, bytes: text });
      };
      this.socket.write(
        `POST /v1/chat/completions HTTP/1.1\r\nhost: ${this.host}\r\ncontent-type: application/json\r\n` +
          `content-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
      );
    });
  }
}
/** One request whose answer nobody looks at. @returns its status */
const statusOf = (url, { path, body }) =>
  new Promise((done, fail) => {
    const r = httpRequest(`${url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json' },
    });
    r.on('error', fail).on('response', (response) => {
      response
        .resume()
        .on('end', () => done(response.statusCode))
        .on('error', fail);
    });
    r.end(body);
  });
/** CPU time of this process since then, µs. */
const cpuSince = (from) => {
  const { user, system } = process.cpuUsage(from);
  return user + system;
};

if (process.argv[2] === '--client') {
  /** @type {Line[]} */
  const free = [];
  process.on('message', async ({ url, bodies, delays = [], timed, plain }) => {
    try {
      if (plain) {
        process.send({ status: await statusOf(url, plain) });
        return;
      }
      const began = performance.now(),
        cpu = process.cpuUsage();
      const answers = await Promise.all(
        bodies.map(async (body, i) => {
          if (delays[i]) await new Promise((later) => setTimeout(later, delays[i]));
          const line = free.pop() ?? new Line(url);
          const answer = await line.ask(body, timed);
          free.push(line);
          return answer;
        }),
      );
      process.send({ answers, seconds: (performance.now() - began) / 1000, cpuUs: cpuSince(cpu) });
    } catch (e) {
      process.send({ error: String(e) });
    }
  });
  process.on('disconnect', () => process.exit(0));
} else await main();

async function main() {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: join(root, 'models', 'nano') },
      threads: { type: 'string', default: '2' },
      only: { type: 'string', default: '' },
      rounds: { type: 'string', default: '3' },
      tokens: { type: 'string', default: '200' },
    },
  });
  const only = values.only === '' ? null : values.only.split(',');
  const wants = (name) => only === null || only.includes(name);
  const rounds = Number(values.rounds),
    tokens = Number(values.tokens);
  const [{ serve }, { openEngine }, { toConversation }] = await Promise.all([
    import('../dist/serve/server.js'),
    import('../dist/infer/engine.js'),
    import('../dist/harmony/chat.js'),
  ]);
  const folder = mkdtempSync(join(tmpdir(), 'serve-bench-'));
  const adapters = await makeAdapters(values.model, folder, 8);
  const options = {
    model: longer(values.model, folder),
    threads: Number(values.threads),
    device: 'cpu',
    slots: 16,
    contextTokens: 4096,
    adapters,
  };
  const server = await serve({
    engine: { ...options, prefixes: 16 },
    name: 'base',
    adminKeys: [{ name: 'bench', key: ADMIN }],
    port: 0,
    queueMs: 600_000,
  });
  const engine = await openEngine(options);
  const client = fork(fileURLToPath(import.meta.url), ['--client']);
  const load = (bodies, { delays = /** @type {number[]} */ ([]), timed = true } = {}) =>
    new Promise((done, fail) => {
      client.once('message', (/** @type {any} */ m) => (m.error ? fail(new Error(m.error)) : done(m)));
      client.send({ url: server.url, bodies, delays, timed });
    });
  const row = (name, figures) =>
    process.stdout.write(
      `${JSON.stringify({ bench: 'serve', name, ...figures, node: process.versions.node, cpu: cpus()[0]?.model })}\n`,
    );
  const round = (x) => Number(x.toPrecision(4));

  // Hot enough to go on to the last token, with `longer`'s weights.
  const body = (content, more = {}) => ({
    model: 'base',
    messages: [{ role: 'user', content }],
    max_completion_tokens: tokens,
    temperature: 2,
    seed: 1,
    stream: true,
    stream_options: { include_usage: true },
    ...more,
  });
  /** @type {(n: number, more?: (i: number) => object) => any[]} */
  const bodies = (n, more = () => ({})) =>
    Array.from({ length: n }, (_, i) => body(`Book a table for ${i + 2} people`, { seed: i, ...more(i) }));
  const alone = async (given) => {
    const began = performance.now();
    const done = await Promise.all(
      given.map(async ({ messages, model, seed }) => {
        const request = {
          messages: toConversation({ messages }).messages,
          maxTokens: tokens,
          sampling: { temperature: 2, seed },
          ...(model === 'base' ? {} : { adapter: model }),
        };
        for await (const e of engine.generate(request)) if (e.kind === 'done') return e.tokens.length;
        return 0;
      }),
    );
    return (done.reduce((a, b) => a + b, 0) * 1000) / (performance.now() - began);
  };
  const rateOf = ({ answers, seconds }) => answers.reduce((sum, a) => sum + a.tokens, 0) / seconds;
  const http = async (given) => rateOf(await load(given, { timed: false }));
  const held = holdingOf();

  if (wants('loop')) {
    const send = (plain) =>
      new Promise((done, fail) => {
        client.once('message', (/** @type {any} */ m) => (m.error ? fail(new Error(m.error)) : done(m.status)));
        client.send({ url: server.url, bodies: [], plain });
      });
    for (const { name, path, body: text } of holders(body)) {
      held.start();
      const status = await send({ path, body: text });
      await new Promise((later) => setTimeout(later, 50));
      const { heldMs, ownMs } = held.stop();
      row('loop', { request: name, status, heldMs: round(heldMs), heldOwnMs: round(ownMs) });
    }
  }
  if (wants('http'))
    for (const n of [1, 4, 16]) {
      const given = bodies(n);
      await alone(given);
      await http(given);
      const rows = [];
      for (let i = 0; i < rounds; i++) {
        const engineRate = await alone(given);
        const cpu = process.cpuUsage(),
          main = threadTimes().ran;
        const { answers, seconds, cpuUs } = await load(given, { timed: false });
        const serverUs = cpuSince(cpu),
          mainUs = 1000 * (threadTimes().ran - main);
        const total = answers.reduce((sum, a) => sum + a.tokens, 0);
        rows.push({
          engineRate,
          rate: total / seconds,
          tokens: total / n,
          serverUs: serverUs / total,
          mainUs: mainUs / total,
          clientUs: cpuUs / total,
        });
      }
      // By itself: to look a thousand times a second is work too.
      held.start();
      await load(given, { timed: false });
      const { heldMs, ownMs } = held.stop();
      const of = (figure) => round(median(rows.map(figure)));
      row('http', {
        streams: n,
        tokens: of((r) => r.tokens),
        tokensPerSecond: of((r) => r.rate),
        ofEngine: of((r) => r.rate / r.engineRate),
        // CPU time for a token: of the server with its engine's threads, of its main thread alone, and of what asks.
        serverUs: of((r) => r.serverUs),
        mainUs: of((r) => r.mainUs),
        clientUs: of((r) => r.clientUs),
        heldMs: round(heldMs),
        heldOwnMs: round(ownMs),
      });
    }
  if (wants('prefix')) {
    const first = async (salt) => {
      const system = `${salt} ${'You keep the tables of a small restaurant by the sea. '.repeat(60)}`;
      const ratios = [];
      let cached = 0,
        prompt = 0;
      for (let i = 0; i < 2; i++) {
        const { answers } = await load([
          {
            ...body(`Hello ${i}`),
            messages: [
              { role: 'system', content: system },
              { role: 'user', content: `Hello ${i}` },
            ],
            max_completion_tokens: 8,
          },
        ]);
        ratios.push(answers[0].times[0] ?? answers[0].ms);
        cached = answers[0].cached;
        prompt = system.length;
      }
      return { cold: ratios[0], warm: ratios[1], cached, prompt };
    };
    await first('warm up');
    const all = [];
    for (let i = 0; i < 2 * rounds + 1; i++) all.push(await first(`Case ${i}`));
    row('prefix', {
      cachedTokens: all[0].cached,
      uncachedMs: round(median(all.map((a) => a.cold))),
      cachedMs: round(median(all.map((a) => a.warm))),
      ofUncached: round(median(all.map((a) => a.warm / a.cold))),
    });
  }
  if (wants('adapters')) {
    const base = bodies(16),
      mixed = bodies(16, (i) => ({ model: `a${i % 8}` }));
    await http(mixed);
    const ratios = [];
    for (let i = 0; i < rounds; i++) {
      const a = await http(base);
      ratios.push((await http(mixed)) / a);
    }
    row('adapters', { streams: 16, adapters: 8, ofBase: round(median(ratios)) });
  }
  if (wants('gap')) {
    // Of each stream its longest wait while the prompt is read: of its own median, and of the median of that time.
    const all = [];
    for (let i = 0; i < rounds; i++) {
      const long = body(`Read this ${i}. ${'One of many words that make a long prompt. '.repeat(88)}`);
      const streams = bodies(4, () => ({ max_completion_tokens: 1200 }));
      const { answers } = await load([...streams, { ...long, max_completion_tokens: 2 }], {
        delays: [0, 0, 0, 0, 200],
      });
      const read = answers[4],
        until = read.began + (read.times[0] ?? read.ms);
      for (const { began, times } of answers.slice(0, 4)) {
        const gaps = times.slice(1).map((t, j) => ({ ms: t - times[j], from: began + times[j], to: began + t }));
        const beside = gaps.filter((g) => g.to > read.began && g.from < until).map((g) => g.ms);
        const worst = Math.max(...beside);
        all.push({
          own: worst / median(gaps.map((g) => g.ms)),
          meanwhile: worst / median(beside),
          firstMs: until - read.began,
        });
      }
    }
    row('gap', {
      streams: 4,
      worstOfMedian: round(median(all.map((a) => a.own))),
      worstOfMedianMeanwhile: round(median(all.map((a) => a.meanwhile))),
      promptMs: round(median(all.map((a) => a.firstMs))),
    });
  }
  if (wants('invariance')) {
    // A row of a product alone in its pass, and sixteen in one: what streams gain by each other in spite of by_row.
    const one = bodies(1),
      all = bodies(16);
    const gain = [];
    for (let i = 0; i < rounds; i++) gain.push((await alone(all)) / (await alone(one)));
    row('batching', { streams: 16, ofOneStream: round(median(gain)) });
  }
  if (wants('abort')) {
    const state = async () =>
      /** @type {any} */ (
        await (await fetch(`${server.url}/admin/state`, { headers: { authorization: `Bearer ${ADMIN}` } })).json()
      );
    const times = [];
    for (let i = 0; i < 10 * rounds; i++) {
      const r = httpRequest(`${server.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
      });
      r.on('error', () => {});
      r.on('response', (response) => response.on('error', () => {}).resume());
      r.end(
        JSON.stringify(body(`Read this ${i}. ${'One of many words. '.repeat(i * 5)}`, { max_completion_tokens: 2000 })),
      );
      // Before its prompt is read, while it is, between tokens.
      await new Promise((later) => setTimeout(later, (i * 7) % 120));
      r.destroy();
      const began = performance.now();
      for (;;) {
        const { running, engine: e } = await state();
        if (running === 0 && e.freeSlots === 16 && e.usedPages === e.keptPages) break;
      }
      times.push(performance.now() - began);
    }
    row('abort', { aborts: times.length, backMs: round(median(times)), worstMs: round(Math.max(...times)) });
  }
  client.disconnect();
  await server.close();
  await engine.close();
  if (wants('start')) {
    const times = [];
    for (let i = 0; i < rounds; i++) times.push(await startMs(values.model));
    row('start', { readyMs: round(median(times)), bestMs: round(Math.min(...times)) });
  }
  rmSync(folder, { recursive: true });
}

/** Requests that are much work: the first of their kind, large ones, odd ones. */
function holders(body) {
  const whole = { max_completion_tokens: 4, stream: false, stream_options: undefined };
  const chat = (more) => JSON.stringify({ ...body('Hello', whole), ...more });
  const path = '/v1/chat/completions';
  const of = (n, make) => Array.from({ length: n }, (_, i) => make(i));
  const schema = {
    type: 'object',
    properties: Object.fromEntries(of(40, (i) => [`field${i}`, { type: 'string', description: 'what it says' }])),
    required: ['field0'],
    additionalProperties: false,
  };
  const tools = of(64, (i) => ({ type: 'function', function: { name: `tool${i}`, parameters: schema } }));
  const messages = of(40_000, (i) => ({ role: i % 2 ? 'assistant' : 'user', content: `word ${i}` }));
  const lines = `namespace functions {\n${'\n'.repeat(1_500_000)}`;
  const responses = { model: 'base', input: 'Hello', max_output_tokens: 4 };
  const message = { model: 'base', max_tokens: 4, messages: [{ role: 'user', content: 'Hello' }] };
  const many = { ...responses, input: messages.map(({ role, content }) => ({ role, content })) };
  return [
    { name: 'first chat', path, body: chat({}) },
    { name: 'first responses', path: '/v1/responses', body: JSON.stringify(responses) },
    { name: 'first messages', path: '/v1/messages', body: JSON.stringify(message) },
    { name: 'first completions', path: '/v1/completions', body: JSON.stringify({ model: 'base', prompt: 'Hello' }) },
    { name: 'first openapi.json', path: '/openapi.json' },
    { name: 'openapi.json', path: '/openapi.json' },
    { name: 'metrics', path: '/metrics' },
    {
      name: 'a schema',
      path,
      body: chat({ response_format: { type: 'json_schema', json_schema: { name: 'a', schema } } }),
    },
    { name: '64 tools', path, body: chat({ tools }) },
    {
      name: '64 strict tools',
      path,
      body: chat({ tools: tools.map((t) => ({ ...t, function: { ...t.function, strict: true } })) }),
    },
    { name: '30 KiB of brackets', path, body: chat({ x: of(15_000, () => []) }) },
    {
      name: '2 MB of text',
      path,
      body: chat({ messages: [{ role: 'user', content: 'some words '.repeat(180_000) }] }),
    },
    { name: '2 MB of messages', path, body: chat({ messages }) },
    { name: '2 MB of input items', path: '/v1/responses', body: JSON.stringify(many) },
    { name: '2 MB of numbers', path, body: chat({ x: of(300_000, (i) => i) }) },
    { name: '2 MB of brackets', path, body: chat({ x: of(600_000, () => []) }) },
    {
      name: '2 MB of lines',
      path,
      body: chat({
        messages: [
          { role: 'system', content: lines },
          { role: 'user', content: 'Hi' },
        ],
      }),
    },
    { name: '2 MB of no JSON', path, body: '['.repeat(2_000_000) },
  ];
}

/** Of this thread, ms: on a core, and waiting for one; NaN where the system does not tell. */
function threadTimes() {
  try {
    const [ran, waited] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ');
    return { ran: Number(ran) / 1e6, waited: Number(waited) / 1e6 };
  } catch {
    return { ran: Number.NaN, waited: Number.NaN };
  }
}
/**
 * How long the event loop was held, ms: as a clock saw it, and without the time for which the thread had no core, where
 * the system tells that.
 */
function holdingOf() {
  const waited = () => threadTimes().waited;
  let timer, heldMs, ownMs, last, lastWaited;
  const tick = () => {
    const now = performance.now(),
      w = waited(),
      took = now - last - 1;
    heldMs = Math.max(heldMs, took);
    ownMs = Math.max(ownMs, took - (Number.isNaN(w) ? 0 : w - lastWaited));
    [last, lastWaited] = [now, w];
    timer = setTimeout(tick, 1);
  };
  return {
    start() {
      [heldMs, ownMs, last, lastWaited] = [0, 0, performance.now(), waited()];
      timer = setTimeout(tick, 1);
    },
    stop() {
      clearTimeout(timer);
      return { heldMs, ownMs };
    },
  };
}

/** From the start of the process to its line on stdout. */
function startMs(model) {
  return new Promise((done, fail) => {
    const began = performance.now();
    const child = spawn(
      process.execPath,
      [join(root, 'dist/cli/main.js'), 'serve', '--model', model, '--port', '0', '--device', 'cpu'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    child.on('error', fail);
    child.stdout.once('data', () => {
      const ms = performance.now() - began;
      child.once('exit', () => done(ms));
      child.kill('SIGTERM');
    });
  });
}
