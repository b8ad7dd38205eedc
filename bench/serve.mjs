// node bench/serve.mjs [--model DIR] [--threads N] [--only NAME,…] [--rounds N]: what the server costs,
// on loopback. The load comes from a process of its own, which ends by itself; engine alone and server run in turns in
// one process, so that both have the same threads. One JSON row per figure on stdout. Needs the build (npm run build).
import { fork, spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const ADMIN = 'key-of-the-benchmark';
const median = (xs) => xs.toSorted((a, b) => a - b)[Math.floor(xs.length / 2)] ?? Number.NaN;

/** One streamed request. @returns ms of each chunk that brings text, from the request's own begin, and its tokens */
function ask(url, body, agent) {
  return new Promise((done, fail) => {
    const began = performance.now();
    const r = httpRequest(
      `${url}/v1/chat/completions`,
      { method: 'POST', agent, headers: { 'content-type': 'application/json' } },
      (response) => {
        const times = [];
        let tokens = 0,
          cached = 0,
          rest = '',
          text = '';
        response.setEncoding('utf8');
        response.on('data', (piece) => {
          const lines = (rest + piece).split('\n\n');
          rest = lines.pop() ?? '';
          for (const line of lines) {
            if (!line.startsWith('data: {')) continue;
            const chunk = JSON.parse(line.slice(6));
            if (chunk.error) fail(new Error(chunk.error.message));
            tokens = chunk.usage?.completion_tokens ?? tokens;
            cached = chunk.usage?.prompt_tokens_details?.cached_tokens ?? cached;
            const delta = chunk.choices?.[0]?.delta ?? {};
            if (delta.content || delta.reasoning_content || delta.tool_calls) times.push(performance.now() - began);
            text += (delta.content ?? '') + (delta.reasoning_content ?? '');
          }
        });
        response.on('end', () =>
          response.statusCode === 200
            ? done({ times, tokens, cached, ms: performance.now() - began, text })
            : fail(new Error(`status ${response.statusCode}: ${rest}`)),
        );
        response.on('error', fail);
      },
    );
    r.on('error', fail);
    r.end(JSON.stringify(body));
  });
}

if (process.argv[2] === '--client') {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  process.on('message', async ({ url, bodies, delays = [] }) => {
    try {
      const began = performance.now();
      const answers = await Promise.all(
        bodies.map(async (body, i) => {
          await new Promise((later) => setTimeout(later, delays[i] ?? 0));
          return ask(url, body, agent);
        }),
      );
      process.send({ answers, seconds: (performance.now() - began) / 1000 });
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
  const load = (bodies, delays) =>
    new Promise((done, fail) => {
      client.once('message', (/** @type {any} */ m) => (m.error ? fail(new Error(m.error)) : done(m)));
      client.send({ url: server.url, bodies, delays });
    });
  const row = (name, figures) =>
    process.stdout.write(
      `${JSON.stringify({ bench: 'serve', name, ...figures, node: process.versions.node, cpu: cpus()[0]?.model })}\n`,
    );
  const round = (x) => Number(x.toPrecision(4));

  // Hot enough to go on to the last token.
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
  const http = async (given) => rateOf(await load(given));
  const loop = monitorEventLoopDelay({ resolution: 1 });
  const held = () => {
    loop.disable();
    const ms = round(loop.max / 1e6 - 1);
    loop.reset();
    return ms;
  };

  if (wants('http'))
    for (const n of [1, 4, 16]) {
      const given = bodies(n);
      await alone(given);
      await http(given);
      const pairs = [];
      for (let i = 0; i < rounds; i++) {
        const a = await alone(given);
        loop.enable();
        pairs.push([a, await http(given), held()]);
      }
      row('http', {
        streams: n,
        tokensPerSecond: round(median(pairs.map((p) => p[1]))),
        ofEngine: round(median(pairs.map(([a, b]) => b / a))),
        heldMs: Math.max(...pairs.map((p) => p[2])),
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
    const ratios = [];
    for (let i = 0; i < rounds; i++) {
      const long = body(`Read this ${i}. ${'One of many words that make a long prompt. '.repeat(88)}`);
      const { answers } = await load([...bodies(4), { ...long, max_completion_tokens: 2 }], [0, 0, 0, 0, 60]);
      const gaps = answers.slice(0, 4).map(({ times }) => times.slice(1).map((t, j) => t - times[j]));
      ratios.push(Math.max(...gaps.map((g) => Math.max(...g))) / median(gaps.flat()));
    }
    row('gap', { streams: 4, worstOfMedian: round(median(ratios)) });
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

/** The same weights with positions for 4,096 tokens, where the model has fewer. */
function longer(model, folder) {
  const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8'));
  if (config.max_position_embeddings >= 4096) return model;
  const copy = join(folder, 'model');
  cpSync(model, copy, { recursive: true });
  const rope_scaling = { ...config.rope_scaling, factor: 4096 / config.rope_scaling.original_max_position_embeddings };
  writeFileSync(join(copy, 'config.json'), JSON.stringify({ ...config, max_position_embeddings: 4096, rope_scaling }));
  return copy;
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

/** Adapters that change what is answered, of rank 8 on attention and experts. */
async function makeAdapters(model, folder, n) {
  const [{ openCheckpoint }, { createAdapter }, { adapterSpec }, { writePeft }] = await Promise.all([
    import('../dist/model/checkpoint.js'),
    import('../dist/lora/adapter.js'),
    import('../dist/lora/spec.js'),
    import('../dist/lora/peft.js'),
  ]);
  const checkpoint = openCheckpoint(model);
  const names = {};
  for (let i = 0; i < n; i++) {
    const spec = adapterSpec(checkpoint.config, {
      rank: 8,
      alpha: 16,
      targets: ['attention', 'experts'],
      rsLora: false,
      dropout: 0,
    });
    const adapter = createAdapter(checkpoint.config, spec, { seed: i });
    adapter.params.write(adapter.params.toFloat32().map((x, j) => x || Math.sin(i + j) * 0.01));
    names[`a${i}`] = join(folder, `a${i}`);
    await writePeft(adapter, names[`a${i}`], { baseModel: 'base' });
    adapter.close();
  }
  checkpoint.close();
  return names;
}
