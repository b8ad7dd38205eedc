// node bench/serve.mjs [--shapes nano,20b | --model DIR] [--layers N] [--threads N] [--only NAME,…] [--rounds N]
// [--tokens N]: what the server costs, on loopback: with nano, and with some layers of the 20b's shapes (made in a
// temporary folder: six unless told, 6 GB; all 24 take 14; the fewer there are, the more of a step is the head) the
// rows that depend on how long a step takes. The load comes from a process of its own, which ends by itself; engine
// alone and server run in turns in one process, so that both have the same threads. One JSON row per figure on stdout.
// Needs the build (npm run build).
import { fork, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { longer, makeAdapters, shapes20b } from './serving.mjs';

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
  /** Ends the answer that comes, which has these so far. */
  #cut = () => {};
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
  /** The answer that comes is over, and so is the connection. */
  cut() {
    this.#cut();
    this.socket.destroy();
  }
  /** @returns ms of each piece that brings text, from the request's own begin, and its tokens (NaN: it was cut) */
  ask({ path = '/v1/chat/completions', ...body }, timed) {
    return new Promise((done, fail) => {
      const json = JSON.stringify(body);
      const began = performance.now();
      const times = [];
      let end = '',
        text = 0;
      this.#fail = fail;
      this.#cut = () => {
        this.#fail = this.#take = null;
        done({ began, times, tokens: Number.NaN, cached: 0, ms: performance.now() - began, bytes: text });
      };
      this.#take = (piece) => {
        text += piece.length;
        const said = piece.toString('latin1', Math.max(0, piece.length - 1024));
        end = said.length < 1024 ? (end + said).slice(-1024) : said;
        if (timed && /"(content|reasoning|arguments|text)":"[^"]/.test(piece.toString('latin1')))
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
        `POST ${path} HTTP/1.1\r\nhost: ${this.host}\r\ncontent-type: application/json\r\n` +
          `content-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
      );
    });
  }
}
/**
 * One request whose answer nobody looks at. @returns its status, and how many bytes it answered
 * @param {string} url @param {Holder} holder
 */
const statusOf = (url, { path, body }) =>
  new Promise((done, fail) => {
    const r = httpRequest(`${url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json' },
    });
    // One that is refused early may be cut off while it is sent.
    let status = 0;
    r.on('error', (e) => (status === 0 ? fail(e) : done({ status, bytes: 0 }))).on('response', (response) => {
      status = response.statusCode ?? 0;
      let bytes = 0;
      response
        .on('data', (piece) => {
          bytes += piece.length;
        })
        .on('end', () => done({ status, bytes }))
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
  /** @type {Map<string, Line[]>} Free ones, by the server that they lead to. */
  const lines = new Map();
  /** @type {Holder[]} */
  let odd = [];
  process.on('message', async ({ url, bodies, delays = [], timed, plain, ids, until = null }) => {
    try {
      if (ids) {
        odd = holders();
        process.send({ names: odd.map((h) => h.name) });
        return;
      }
      if (plain !== undefined) {
        process.send(await statusOf(url, odd[plain]));
        return;
      }
      const began = performance.now(),
        cpu = process.cpuUsage();
      /** @type {Set<Line>} */
      const asked = new Set();
      const cutAll = () => {
        for (const line of asked) line.cut();
      };
      const free = lines.get(url) ?? [];
      lines.set(url, free);
      const answers = await Promise.all(
        bodies.map(async (body, i) => {
          if (delays[i]) await new Promise((later) => setTimeout(later, delays[i]));
          let line = free.pop();
          while (line?.socket.destroyed) line = free.pop(); // the server closed it while nobody asked
          line ??= new Line(url);
          asked.add(line);
          const answer = await line.ask(body, timed);
          asked.delete(line);
          free.push(line);
          if (i === until) setTimeout(cutAll, answer.ms); // as long without it
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
      shapes: { type: 'string', default: 'nano,20b' },
      model: { type: 'string' },
      threads: { type: 'string', default: '2' },
      only: { type: 'string', default: '' },
      rounds: { type: 'string', default: '3' },
      tokens: { type: 'string' },
      layers: { type: 'string', default: '6' },
    },
  });
  const shapes = values.model ? [values.model] : values.shapes.split(',');
  if (shapes.length > 1) {
    // Each in a process of its own: what one leaves in memory is nothing to the other.
    for (const one of shapes) {
      const { status } = spawnSync(process.execPath, [...process.argv.slice(1), '--shapes', one], { stdio: 'inherit' });
      if (status !== 0) process.exit(status ?? 1);
    }
    return;
  }
  const is20b = !values.model && shapes[0] === '20b';
  if (!values.model && !is20b && shapes[0] !== 'nano')
    throw new Error(`--shapes: got '${shapes[0]}', wanted nano or 20b`);
  const model =
    values.model ?? (is20b ? await shapes20b(Number(values.layers), { text: true }) : join(root, 'models', 'nano'));
  const only = values.only !== '' ? values.only.split(',') : is20b ? ['http', 'prefix', 'adapters', 'gap'] : null;
  const wants = (name) => only === null || only.includes(name);
  const rounds = Number(values.rounds),
    tokens = Number(values.tokens ?? (is20b ? 24 : 200));
  const [{ serve }, { boundHeaps }, { openEngine }, { toConversation }] = await Promise.all([
    import('../dist/serve/server.js'),
    import('../dist/base/heaps.js'),
    import('../dist/infer/engine.js'),
    import('../dist/harmony/chat.js'),
  ]);
  const folder = mkdtempSync(join(tmpdir(), 'serve-bench-'));
  const adapters = await makeAdapters(model, folder, 8);
  const options = {
    model: longer(model, folder),
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
  boundHeaps(); // as the command does
  await server.rehearse(); // so does this, while nobody asks
  // Beside the loop alone nothing runs that a server would not have.
  const engine = only?.every((name) => name === 'loop') ? null : await openEngine(options);
  const client = fork(fileURLToPath(import.meta.url), ['--client']);
  /** @typedef {{url?: string, delays?: number[], timed?: boolean, until?: number}} How */
  /** @type {(bodies: any[], how?: How) => Promise<any>} */
  const load = (bodies, how = {}) =>
    new Promise((done, fail) => {
      client.once('message', (/** @type {any} */ m) => (m.error ? fail(new Error(m.error)) : done(m)));
      client.send({ url: server.url, bodies, timed: true, ...how });
    });
  const machine = { node: process.versions.node, cpu: cpus()[0]?.model };
  const row = (name, figures) =>
    process.stdout.write(`${JSON.stringify({ bench: 'serve', name, shapes: shapes[0], ...figures, ...machine })}\n`);
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
        for await (const e of /** @type {any} */ (engine).generate(request))
          if (e.kind === 'done') return e.tokens.length;
        return 0;
      }),
    );
    return (done.reduce((a, b) => a + b, 0) * 1000) / (performance.now() - began);
  };
  const rateOf = ({ answers, seconds }) => answers.reduce((sum, a) => sum + a.tokens, 0) / seconds;
  const http = async (given) => rateOf(await load(given, { timed: false }));
  const held = holdingOf();

  if (wants('loop')) {
    // What is asked is made where it is asked from: to make it, or to hand it over, would hold this thread too.
    const told = (message) =>
      new Promise((done, fail) => {
        client.once('message', (/** @type {any} */ m) => (m.error ? fail(new Error(m.error)) : done(m)));
        client.send({ url: server.url, bodies: [], ...message });
      });
    const { names } = await told({ ids: true });
    for (const [plain, name] of names.entries()) {
      held.start();
      const { status, bytes } = await told({ plain });
      await new Promise((later) => setTimeout(later, 50));
      const { heldMs, ownMs } = held.stop();
      row('loop', { request: name, status, answered: bytes, heldMs: round(heldMs), heldOwnMs: round(ownMs) });
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
    // Until the first token is there: a request of one token, to its end. Until there is text: after the turn's header,
    // of several tokens, where the model writes one; with drawn weights it is what the end of an answer of eight tokens
    // lets go, as `cachedWholeMs` shows.
    const first = async (salt, most) => {
      const system = `${salt} ${'You keep the tables of a small restaurant by the sea. '.repeat(60)}`;
      const one = async (i) => {
        const messages = [
          { role: 'system', content: system },
          { role: 'user', content: `Hello ${i}` },
        ];
        const { answers } = await load([{ ...body(''), messages, max_completion_tokens: most }]);
        const [{ times, ms, cached }] = answers;
        return { ms: most === 1 ? ms : (times[0] ?? ms), whole: ms, came: times.length > 0, cached };
      };
      const uncached = await one(0);
      return { uncached, cached: await one(1) };
    };
    const kinds = [
      ['first token', 1],
      ['first text', 8],
    ];
    // As of a server that has served a while: its code is compiled, and it knows how answers begin.
    const began = performance.now();
    for (let i = 0; i < 3 || (i < 200 && performance.now() - began < 5000); i++)
      for (const [, most] of kinds) await first(`Warm up ${i} ${most}`, most);
    for (const [of, most] of kinds) {
      const all = [];
      for (let i = 0; i < 2 * rounds + 1; i++) all.push(await first(`Case ${i} ${most}`, most));
      row('prefix', {
        of,
        cachedTokens: all[0].cached.cached,
        uncachedMs: round(median(all.map((a) => a.uncached.ms))),
        cachedMs: round(median(all.map((a) => a.cached.ms))),
        ofUncached: round(median(all.map((a) => a.cached.ms / a.uncached.ms))),
        ...(most !== 1 && {
          cachedWholeMs: round(median(all.map((a) => a.cached.whole))),
          textCame: `${all.filter((a) => a.cached.came).length} of ${all.length}`,
        }),
      });
    }
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
    // Of each stream its longest wait for a chunk while the prompt is read: of its own median, and of the median of
    // that time; and what it is without the prompt, for as long. A chunk has what was written in some milliseconds.
    // Streams write text and nothing else, so that each token is seen.
    const positions = 16_384,
      beginsMs = 300;
    const other = await serve({
      engine: {
        ...options,
        model: longer(model, folder, { positions, text: true }),
        contextTokens: positions,
        prefixes: 16,
      },
      name: 'base',
      port: 0,
      queueMs: 600_000,
    });
    await other.rehearse();
    const path = '/v1/completions',
      more = {
        path,
        temperature: 0.7,
        top_p: 0.8,
        stream: true,
        stream_options: { include_usage: true },
        model: 'base',
      };
    for (const n of [1, 4, 15]) {
      const all = [];
      let of = 0;
      for (let i = -1; i < rounds; i++) {
        const streams = Array.from({ length: n }, (_, k) => ({
          ...more,
          prompt: `Book a table for ${k + 2} people`,
          max_tokens: positions - 4096,
          seed: 100 * (i + 1) + k,
        }));
        const prompt = `Read this beside ${n}, ${i}. ${'One of many words that make a long prompt. '.repeat(88)}`;
        const { answers } = await load([...streams, { ...more, prompt, max_tokens: 2 }], {
          url: other.url,
          delays: [...streams.map(() => 0), beginsMs],
          until: n,
        });
        if (i < 0) continue; // code that nothing had compiled
        const read = answers[n],
          until = read.began + (read.times[0] ?? read.ms);
        for (const { began, times } of answers.slice(0, n)) {
          of++;
          if (began + (times.at(-1) ?? 0) <= until) continue; // it ended before the prompt was read
          const gaps = times.slice(1).map((t, j) => ({ ms: t - times[j], from: began + times[j], to: began + t }));
          const isBeside = (g) => g.to > read.began && g.from < until;
          const own = median(gaps.map((g) => g.ms)),
            meanwhile = gaps.filter(isBeside).map((g) => g.ms),
            worst = Math.max(...meanwhile);
          all.push({
            own: worst / own,
            meanwhile: worst / median(meanwhile),
            without: Math.max(...gaps.filter((g) => !isBeside(g)).map((g) => g.ms)) / own,
            chunkMs: own,
            firstMs: until - read.began,
          });
        }
      }
      row('gap', {
        streams: n,
        worstOfMedian: round(median(all.map((a) => a.own))),
        worstOfAll: round(Math.max(...all.map((a) => a.own))),
        above3: all.filter((a) => a.own > 3).length,
        worstOfMedianMeanwhile: round(median(all.map((a) => a.meanwhile))),
        worstWithoutPrompt: round(median(all.map((a) => a.without))),
        worstWithoutPromptOfAll: round(Math.max(...all.map((a) => a.without))),
        chunkMs: round(median(all.map((a) => a.chunkMs))),
        promptMs: round(median(all.map((a) => a.firstMs))),
        outlastedIt: `${all.length} of ${of}`,
      });
    }
    await other.close();
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
    await state(); // what asks is loaded and connected by then
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
  await engine?.close();
  if (wants('start')) {
    const times = [];
    for (let i = 0; i < rounds; i++) times.push(await startMs(model));
    row('start', { readyMs: round(median(times)), bestMs: round(Math.min(...times)) });
  }
  rmSync(folder, { recursive: true });
}

/**
 * A request that is much work: the first of its kind, a large one, an odd one.
 * @typedef {{name: string, path: string, body?: string | undefined}} Holder
 */
/** @returns {Holder[]} */
function holders() {
  const of = (n, make) => Array.from({ length: n }, (_, i) => make(i));
  const CHAT = '/v1/chat/completions',
    TEXT = '/v1/completions',
    RESPONSES = '/v1/responses';
  const user = (content) => [{ role: 'user', content }];
  const chat = (more) => ({
    model: 'base',
    messages: user('Hello'),
    max_completion_tokens: 4,
    temperature: 2,
    ...more,
  });
  const completion = (more) => ({ model: 'base', prompt: 'Hello', max_tokens: 4, ...more });
  const response = (more) => ({ model: 'base', input: 'Hello', max_output_tokens: 4, ...more });
  const message = (more) => ({ model: 'base', max_tokens: 4, messages: user('Hello'), ...more });
  const members = (n, make) => Object.fromEntries(of(n, (i) => [`field${i}`, make(i)]));
  const object = (properties) => ({ type: 'object', properties, required: ['field0'], additionalProperties: false });
  const schema = object(members(40, () => ({ type: 'string', description: 'what it says' })));
  const deep = (n) => (n === 0 ? { type: 'string' } : { type: 'object', properties: { inner: deep(n - 1) } });
  const tools = (n, more = {}) =>
    of(n, (i) => ({ type: 'function', function: { name: `tool${i}`, parameters: schema, ...more } }));
  const format = (of) => ({ response_format: { type: 'json_schema', json_schema: { name: 'a', schema: of } } });
  const many = of(40_000, (i) => ({ role: i % 2 ? 'assistant' : 'user', content: `word ${i}` }));
  const fitting = of(400, (i) => ({ role: i % 2 ? 'assistant' : 'user', content: `w ${i}` }));
  const whole = { max_completion_tokens: 1500, logprobs: true, top_logprobs: 20 };
  const rows = [
    ['first chat', CHAT, chat({})],
    ['first responses', RESPONSES, response({})],
    ['first messages', '/v1/messages', message({})],
    ['first completions', TEXT, completion({})],
    ['first openapi.json', '/openapi.json'],
    ['openapi.json', '/openapi.json'],
    ['metrics', '/metrics'],
    ['a schema', CHAT, chat(format(schema))],
    [
      'a schema of 2,000 members',
      CHAT,
      chat(format(object(members(2000, (i) => ({ type: 'string', maxLength: i + 1 }))))),
    ],
    ['a schema of 40,000 values', CHAT, chat(format(object({ field0: { enum: of(40_000, (i) => `value ${i}`) } })))],
    ['a schema 28 deep', CHAT, chat(format(deep(28)))],
    ['64 tools', CHAT, chat({ tools: tools(64) })],
    ['64 strict tools', CHAT, chat({ tools: tools(64, { strict: true }) })],
    ['600 tools', CHAT, chat({ tools: tools(600) })],
    ['600 strict tools', CHAT, chat({ tools: tools(600, { strict: true }) })],
    ['1,024 biases', CHAT, chat({ logit_bias: Object.fromEntries(of(1024, (i) => [i, 1])) })],
    ['2 MB of biases', CHAT, chat({ logit_bias: Object.fromEntries(of(180_000, (i) => [i, 1])) })],
    ['30 KiB of brackets', CHAT, chat({ x: of(15_000, () => []) })],
    ['2 MB of text', CHAT, chat({ messages: user('some words '.repeat(180_000)) })],
    ['2 MB of Japanese', CHAT, chat({ messages: user('日本語の文'.repeat(130_000)) })],
    ['2 MB of emoji', CHAT, chat({ messages: user('👩‍🚀🚀'.repeat(130_000)) })],
    ['2 MB of escapes', CHAT, chat({ messages: user('"\\\t'.repeat(330_000)) })],
    ['2 MB of one letter', CHAT, chat({ messages: user('a'.repeat(2_000_000)) })],
    ['2 MB of parts', CHAT, chat({ messages: user(of(50_000, (i) => ({ type: 'text', text: `part ${i}` }))) })],
    ['2 MB of messages', CHAT, chat({ messages: many })],
    ['400 messages', CHAT, chat({ messages: fitting })],
    ['400 messages, stored', CHAT, chat({ messages: fitting, store: true })],
    [
      '2 MB of lines',
      CHAT,
      chat({
        messages: [{ role: 'system', content: `namespace functions {\n${'\n'.repeat(900_000)}` }, ...user('Hi')],
      }),
    ],
    ['3 MB of lines', CHAT, chat({ messages: user('\n'.repeat(1_500_000)) })],
    ['2 MB of prediction', CHAT, chat({ prediction: { type: 'content', content: 'some words '.repeat(180_000) } })],
    ['2 MB of numbers', CHAT, chat({ x: of(300_000, (i) => i) })],
    ['2 MB of brackets', CHAT, chat({ x: of(600_000, () => []) })],
    ['2 MB of keys', CHAT, chat({ x: members(120_000, () => 1) })],
    [
      '2 MB of arguments',
      CHAT,
      chat({
        messages: [
          ...user('Hi'),
          {
            role: 'assistant',
            tool_calls: [
              {
                id: 'c',
                type: 'function',
                function: { name: 'tool0', arguments: JSON.stringify(of(200_000, (i) => i)) },
              },
            ],
          },
          { role: 'tool', tool_call_id: 'c', content: '1' },
        ],
        tools: tools(1),
      }),
    ],
    ['2 MB of no JSON', CHAT, '['.repeat(2_000_000)],
    ['2 MB of text, responses', RESPONSES, response({ input: 'some words '.repeat(180_000) })],
    ['2 MB of input items', RESPONSES, response({ input: many })],
    ['2 MB of input items, truncated', RESPONSES, response({ input: many, truncation: 'auto' })],
    ['400 input items', RESPONSES, response({ input: fitting })],
    [
      '1,900 input items, truncated',
      RESPONSES,
      response({ input: of(1900, (i) => ({ role: 'user', content: `w ${i}` })), truncation: 'auto' }),
    ],
    [
      '1.8 MB in 1,900 input items, truncated',
      RESPONSES,
      response({
        input: of(1900, (i) => ({ role: 'user', content: `${i} ${'long words '.repeat(85)}` })),
        truncation: 'auto',
      }),
    ],
    ['2 MB of text, messages', '/v1/messages', message({ messages: user('some words '.repeat(180_000)) })],
    ['2 MB of messages, messages', '/v1/messages', message({ messages: many })],
    [
      '2 MB of text, counted',
      '/v1/messages/count_tokens',
      { model: 'base', messages: user('some words '.repeat(180_000)) },
    ],
    ['2 MB of text, completions', TEXT, completion({ prompt: 'some words '.repeat(180_000) })],
    ['2 MB of tokens', TEXT, completion({ prompt: of(500_000, (i) => i % 900) })],
    ['128 prompts', TEXT, completion({ prompt: of(128, (i) => `Prompt ${i}`) })],
    [
      '64 prompts with log-probabilities',
      TEXT,
      completion({ prompt: of(64, (i) => `Prompt ${i}`), max_tokens: 64, logprobs: 5 }),
    ],
    [
      '3,000 tokens of echo',
      TEXT,
      completion({ prompt: of(3000, (i) => 7 + (i % 900)), max_tokens: 0, echo: true, logprobs: 5 }),
    ],
    ['1,500 tokens with log-probabilities', CHAT, chat(whole)],
    ['4 of them', CHAT, chat({ ...whole, n: 4 })],
    ['4 of them, stored', CHAT, chat({ ...whole, n: 4, store: true })],
    ['4 of them, streamed', CHAT, chat({ ...whole, n: 4, stream: true })],
    [
      '1,500 tokens with log-probabilities, responses',
      RESPONSES,
      response({ max_output_tokens: 1500, top_logprobs: 20, include: ['message.output_text.logprobs'] }),
    ],
    [
      'the same, streamed',
      RESPONSES,
      response({ max_output_tokens: 1500, top_logprobs: 20, include: ['message.output_text.logprobs'], stream: true }),
    ],
    ['stored chats, listed', '/v1/chat/completions?limit=100'],
  ];
  return rows.map(([name, path, body]) => ({
    name,
    path,
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  }));
}

/** Of this thread, ms: on a core, and waiting for one; NaN where the system does not tell. */
function threadTimes() {
  try {
    // Linux counts what a thread that runs has run when it is asked for that, and by itself every few ms.
    process.cpuUsage();
    const [ran, waited] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ');
    return { ran: Number(ran) / 1e6, waited: Number(waited) / 1e6 };
  } catch {
    return { ran: Number.NaN, waited: Number.NaN };
  }
}
/**
 * How long the event loop was held, ms: as a clock saw it, and by the time that the thread was on a core, where the
 * system tells that: on a machine that does other work a thread waits for a core, for memory, for a disk.
 */
function holdingOf() {
  const onCore = () => threadTimes().ran;
  let timer, heldMs, ownMs, last, lastRan;
  const tick = () => {
    const now = performance.now(),
      ran = onCore();
    heldMs = Math.max(heldMs, now - last - 1);
    ownMs = Math.max(ownMs, ran - lastRan);
    [last, lastRan] = [now, ran];
    timer = setTimeout(tick, 1);
  };
  return {
    start() {
      [heldMs, ownMs, last, lastRan] = [0, 0, performance.now(), onCore()];
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
