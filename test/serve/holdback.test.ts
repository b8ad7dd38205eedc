// What a server releases of an answer while it is judged: in streams and in the whole, by every API that streams.
import { describe, expect, it } from 'vitest';
import type { Holding } from '../../src/compose/held-turn.js';
import type { Engine } from '../../src/infer/engine.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import type { HeldItem, ReviewDecision, VerdictRecord } from '../../src/safeguard/holdback/sink.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen, type Screen } from '../../src/safeguard/screen.js';
import { type Judge, JudgeFailure } from '../../src/safeguard/types.js';
import { type ScriptedApp, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

const FIRST = 'Here is a first sentence.',
  SECOND = ' And here is the second one.',
  THIRD = ' This tells of Rome.';
const THOUGHTS = 'I think of it for a while. I am done.';
const turn = (final: string): string =>
  `<|channel|>analysis<|message|>${THOUGHTS}<|end|><|start|>assistant<|channel|>final<|message|>${final}<|return|>`;
const CALLS =
  '<|channel|>commentary<|message|>I look it up in two places.<|end|>' +
  '<|start|>assistant to=functions.look<|channel|>commentary <|constrain|>json<|message|>' +
  '{"at": "Oslo. And so on, here."}' +
  '<|end|><|start|>assistant to=functions.look<|channel|>commentary <|constrain|>json<|message|>{"at": "Rome"}<|call|>';

/** Verdicts fall between its tokens. @param seen told of each text that is sampled, and when it is over */
function paced(engine: Engine, seen: { text: string; open: number } = { text: '', open: 0 }): Engine {
  return {
    ...engine,
    async *generate(request, signal) {
      seen.open++;
      try {
        for await (const event of engine.generate(request, signal)) {
          if (event.kind === 'text') seen.text += event.text;
          yield event;
          await new Promise((done) => setImmediate(done));
          signal?.throwIfAborted();
        }
      } finally {
        seen.open--;
      }
    },
  };
}
const judgeOf = (blocks: RegExp, asked: string[] = []): Judge => ({
  name: 'j',
  digest: 'j',
  async judge({ content, nonce }) {
    asked.push(content);
    return { text: renderVerdict({ rule: blocks.test(content) ? 'P1' : null, nonce }), finish: 'stop' };
  },
});
const screenOf = (front: string, judge: Judge, timeoutMs = 10_000): Screen =>
  createScreen({ policies: [definePolicy('p', `---\nbuilt: here\n${front}\n---\nP1: Rome`)], judge, timeoutMs });

const tools = [{ type: 'function', function: { name: 'look', parameters: { type: 'object' } } }];
const chatBody = { model: 'm', messages: [{ role: 'user', content: 'hi' }], tools };
interface Said {
  readonly content: string;
  readonly reasoning: string;
  readonly refusal: string | null;
  readonly finish: string | null;
  readonly calls: readonly string[];
  readonly temper: Record<string, unknown> | undefined;
}
type Chunk = {
  choices: {
    index: number;
    delta: {
      content?: string;
      reasoning?: string;
      refusal?: string;
      tool_calls?: { index: number; function: { arguments: string } }[];
    };
    finish_reason: string | null;
  }[];
  temper?: Record<string, unknown>;
  error?: { code: string };
};
async function streamed(
  app: ScriptedApp,
  body: object = chatBody,
  index = 0,
): Promise<Said & { readonly pieces: readonly string[] }> {
  const chunks = (await app.events('/v1/chat/completions', body)) as unknown as Chunk[];
  const own = chunks.filter((c) => c.choices?.[0]?.index === index);
  const deltas = own.map((c) => c.choices[0]!.delta);
  const calls: string[] = [];
  for (const c of deltas.flatMap((d) => d.tool_calls ?? []))
    calls[c.index] = (calls[c.index] ?? '') + c.function.arguments;
  return {
    pieces: deltas.flatMap((d) => d.content || []),
    content: deltas.map((d) => d.content ?? '').join(''),
    reasoning: deltas.map((d) => d.reasoning ?? '').join(''),
    refusal: deltas.find((d) => d.refusal !== undefined)?.refusal ?? null,
    finish: own.at(-1)?.choices[0]?.finish_reason ?? null,
    calls,
    temper: own.at(-1)?.temper,
  };
}
async function whole(app: ScriptedApp, body: object = chatBody): Promise<Said> {
  const answer = (await app.json('/v1/chat/completions', body)) as {
    choices: {
      message: {
        content: string | null;
        reasoning?: string;
        refusal: string | null;
        tool_calls?: { function: { arguments: string } }[];
      };
      finish_reason: string;
    }[];
    temper?: Record<string, unknown>;
  };
  const { message, finish_reason } = answer.choices[0]!;
  return {
    content: message.content ?? '',
    reasoning: message.reasoning ?? '',
    refusal: message.refusal,
    finish: finish_reason,
    calls: (message.tool_calls ?? []).map((c) => c.function.arguments),
    temper: answer.temper,
  };
}
const appOf = (text: string, screen: Screen, holding: Holding = {}): ScriptedApp =>
  scriptedApp(paced(scriptedEngine(() => tokensOf(text)).engine), { screen, holding });

describe('an answer that is allowed', () => {
  it('leaves sentence by sentence, and is the whole', async () => {
    const asked: string[] = [];
    const app = appOf(turn(FIRST + SECOND + SECOND), screenOf('', judgeOf(/never/, asked)));
    const stream = await streamed(app);
    expect(stream.pieces.length).toBeGreaterThan(1);
    expect(stream.pieces[0]).toBe(FIRST);
    expect(await whole(app)).toMatchObject({
      content: FIRST + SECOND + SECOND,
      reasoning: '',
      refusal: null,
      finish: 'stop',
    });
    expect(stream).toMatchObject({ content: FIRST + SECOND + SECOND, reasoning: '', refusal: null, finish: 'stop' });
    // Beginnings of one channel each, thoughts before all of them.
    expect(asked[0]).toBe('I think of it for a while.');
    expect(asked.every((text) => [THOUGHTS, FIRST + SECOND + SECOND].some((all) => all.startsWith(text)))).toBe(true);
  });
  it('leaves whole where a policy cannot be judged on a beginning', async () => {
    const asked: string[] = [];
    const app = appOf(turn(FIRST + SECOND), screenOf('buffer: whole', judgeOf(/never/, asked)));
    expect((await streamed(app)).pieces).toEqual([FIRST + SECOND]);
    expect(asked.sort()).toEqual([FIRST + SECOND, THOUGHTS].sort());
  });
  it('brings its thoughts where all policies release them', async () => {
    for (const ask of [streamed, whole])
      expect(await ask(appOf(turn(FIRST), screenOf('analysis: release', judgeOf(/never/))))).toMatchObject({
        reasoning: THOUGHTS,
        content: FIRST,
      });
  });
  it('of several, each is held by itself', async () => {
    let n = 0;
    const engine = scriptedEngine(() => tokensOf(turn(n++ % 2 === 0 ? FIRST + SECOND : FIRST + THIRD))).engine;
    const app = scriptedApp(paced(engine), { screen: screenOf('', judgeOf(/Rome/)) });
    const chunks = (await app.events('/v1/chat/completions', { ...chatBody, n: 2 })) as unknown as Chunk[];
    const text = (i: number): string =>
      chunks.flatMap((c) => c.choices?.filter((x) => x.index === i).map((x) => x.delta.content ?? '') ?? []).join('');
    expect([text(0), text(1)]).toEqual([FIRST + SECOND, FIRST]);
    expect(app.admission.running).toBe(0);
  });
});

describe('an answer that is blocked', () => {
  const blocked = turn(FIRST + SECOND + THIRD + ' And much more is said after it.'.repeat(20));
  it('ends there, and its slot is free', async () => {
    const seen = { text: '', open: 0 };
    const app = scriptedApp(paced(scriptedEngine(() => tokensOf(blocked)).engine, seen), {
      screen: screenOf('refusal: I cannot say that.', judgeOf(/Rome/)),
    });
    const stream = await streamed(app);
    expect(stream).toMatchObject({ content: FIRST + SECOND, refusal: 'I cannot say that.', finish: 'content_filter' });
    expect(seen.text.length).toBeLessThan(tokensOf(blocked).length * 3);
    expect([seen.open, app.admission.running]).toEqual([0, 0]);
    expect(await whole(app)).toMatchObject({ content: '', refusal: 'I cannot say that.', finish: 'content_filter' });
  });
  it('is cut off at the same place in a stream and in the whole', async () => {
    for (const ask of [streamed, whole])
      expect(await ask(appOf(blocked, screenOf('onBlock: truncate', judgeOf(/Rome/))))).toMatchObject({
        content: FIRST + SECOND,
        refusal: null,
        finish: 'content_filter',
      });
    const app = appOf(blocked, screenOf('onBlock: truncate', judgeOf(/Rome/)));
    const messages = { model: 'm', max_tokens: 500, messages: [{ role: 'user', content: 'hi' }] };
    expect(await app.json('/v1/messages', messages)).toMatchObject({
      stop_reason: 'refusal',
      content: [{ type: 'text', text: FIRST + SECOND }],
    });
    const response = await app.json('/v1/responses', { model: 'm', input: 'hi' });
    expect(response).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'content_filter' } });
    expect(response.output).toMatchObject([{ status: 'incomplete', content: [{ text: FIRST + SECOND }] }]);
    const events = await app.events('/v1/responses', { model: 'm', input: 'hi' });
    expect((events.at(-1) as { response: { output: unknown[] } }).response.output).toMatchObject([
      { content: [{ text: FIRST + SECOND }] },
    ]);
    expect(JSON.stringify(events)).not.toContain('Rome');
  });
  it('lets go of a call when it is allowed, whole, and of none after it', async () => {
    const app = appOf(CALLS, screenOf('onBlock: truncate', judgeOf(/Rome/)));
    for (const ask of [streamed, whole])
      expect(await ask(app)).toMatchObject({
        content: 'I look it up in two places.',
        calls: ['{"at": "Oslo. And so on, here."}'],
        finish: 'content_filter',
      });
  });
  it('with thoughts that are blocked brings nothing after them', async () => {
    const app = appOf(turn(FIRST), screenOf('onBlock: truncate', judgeOf(/think/)));
    for (const ask of [streamed, whole])
      expect(await ask(app)).toMatchObject({ content: '', finish: 'content_filter' });
  });
});

describe('held for people', () => {
  const held = (decision: ReviewDecision | null) => {
    const items: HeldItem[] = [];
    const holding: Holding = {
      onHeld: async (item) => {
        items.push(item);
        return { id: 'r1', ...(decision === null ? {} : { wait: async () => decision }) };
      },
    };
    return { items, app: appOf(turn(FIRST + THIRD + SECOND), screenOf('onBlock: review', judgeOf(/Rome/)), holding) };
  };
  it.each([null, 'rejected', 'expired'] as const)('decided %s: nothing after the block leaves', async (decision) => {
    const { app, items } = held(decision);
    expect(await streamed(app)).toMatchObject({
      content: FIRST,
      refusal: '[held for review: r1]',
      finish: 'content_filter',
    });
    expect(await whole(app)).toMatchObject({ content: '', refusal: '[held for review: r1]', finish: 'content_filter' });
    for (const item of items)
      expect(item).toMatchObject({
        request: expect.stringMatching(/^chatcmpl-/) as string,
        model: 'm',
        channel: 'final',
        content: FIRST + THIRD + SECOND,
        verdicts: [{ policy: 'p', outcome: 'block', rule: 'P1' }],
      });
    expect(items[0]?.context.at(-1)).toEqual({ role: 'user', content: 'hi' });
  });
  it('approved while it waits: all of it leaves', async () => {
    const { app } = held('approved');
    for (const ask of [streamed, whole])
      expect(await ask(app)).toMatchObject({ content: FIRST + THIRD + SECOND, refusal: null, finish: 'stop' });
  });
  it('not of a turn that another policy stopped: there is no whole to decide on', async () => {
    const items: HeldItem[] = [];
    let late = (): void => {};
    const isLate = new Promise<void>((done) => {
      late = done;
    });
    const judge: Judge = {
      name: 'j',
      digest: 'j',
      async judge({ content, nonce, policy }) {
        const blocks = policy.includes('stops') ? /Rome/ : /look/;
        if (policy.includes('asks') && blocks.test(content)) await isLate;
        return { text: renderVerdict({ rule: blocks.test(content) ? 'P1' : null, nonce }), finish: 'stop' };
      },
    };
    const policies = [
      ['stops', 'refuse'],
      ['asks', 'review'],
    ].map(([name = '', onBlock = '']) => definePolicy(name, `---\nbuilt: here\nonBlock: ${onBlock}\n---\nP1: ${name}`));
    const { engine } = scriptedEngine(() => tokensOf(turn(FIRST + THIRD + SECOND).replace('think', 'look')));
    const slow: Engine = {
      ...engine,
      async *generate(request, signal) {
        try {
          yield* paced(engine).generate(request, signal);
        } finally {
          // What was on its way comes while the engine ends.
          late();
          await new Promise((done) => setTimeout(done, 50));
        }
      },
    };
    const holding: Holding = {
      onHeld: async (item) => {
        items.push(item);
        return { id: 'r1', wait: async () => 'approved' };
      },
    };
    const app = scriptedApp(slow, { screen: createScreen({ policies, judge, timeoutMs: 10_000 }), holding });
    const said = await streamed(app);
    expect(said).toMatchObject({ content: '', reasoning: '', finish: 'content_filter' });
    expect(said.refusal).not.toContain('review');
    expect(items).toEqual([]);
  });
  it('where nobody takes it, it is refused', async () => {
    const app = appOf(turn(FIRST + THIRD), screenOf('onBlock: review', judgeOf(/Rome/)));
    expect(await whole(app)).toMatchObject({ content: '', refusal: '[final withheld: policy p, rule P1]' });
  });
});

describe('before allow nothing leaves', () => {
  it('where the judge never answers: by its deadline, in the middle of a turn', async () => {
    const silent: Judge = { name: 's', digest: 's', judge: () => new Promise(() => {}) };
    const app = appOf(turn(FIRST + SECOND), screenOf('', silent, 30));
    const { content, reasoning, refusal, finish } = await streamed(app);
    expect([content, reasoning, finish]).toEqual(['', '', 'content_filter']);
    expect(refusal).toContain('not judged (timeout)');
    expect(app.admission.running).toBe(0);
  });
  it('where the judge fails: it is not asked again and again for where it could be cut', async () => {
    let asked = 0;
    const failing: Judge = {
      name: 'f',
      digest: 'f',
      judge: async () => {
        asked++;
        throw new JudgeFailure('http_status', 'answered 400');
      },
    };
    const app = appOf(turn(FIRST + SECOND.repeat(30)), screenOf('onBlock: truncate', failing));
    expect(await streamed(app)).toMatchObject({ content: '', refusal: null, finish: 'content_filter' });
    // Two beginnings of each channel, and the whole.
    expect(asked).toBeLessThanOrEqual(6);
    asked = 0;
    expect(await whole(app)).toMatchObject({ content: '', finish: 'content_filter' });
    expect(asked).toBe(2);
  });
  it('where the client is gone: what is judged is given up, and the engine ends', async () => {
    const seen = { text: '', open: 0 };
    let asked = 0,
      givenUp = 0;
    const waiting: Judge = {
      name: 'w',
      digest: 'w',
      judge: ({ signal }) =>
        new Promise(() => {
          asked++;
          signal.addEventListener('abort', () => givenUp++);
        }),
    };
    const app = scriptedApp(paced(scriptedEngine(() => tokensOf(turn(FIRST + SECOND))).engine, seen), {
      screen: screenOf('', waiting),
    });
    const gone = new AbortController();
    const asking = Promise.resolve(
      app.app.request('/v1/chat/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ...chatBody, stream: true }),
        signal: gone.signal,
      }),
    );
    while (asked === 0) await new Promise((done) => setImmediate(done));
    gone.abort();
    const response = await asking;
    expect(await response.text()).not.toMatch(/sentence|think/);
    expect(givenUp).toBe(asked);
    expect([seen.open, app.admission.running]).toEqual([0, 0]);
  });
  it('where a verdict cannot be logged', async () => {
    let appended = 0;
    const log = {
      append: async (): Promise<{ receipt: string }> => {
        if (appended++ >= 2) throw new Error('ENOSPC');
        return { receipt: 'x' };
      },
    };
    const app = appOf(turn(FIRST + SECOND), screenOf('', judgeOf(/never/)), { log });
    const events = await app.events('/v1/chat/completions', chatBody).catch((e: unknown) => String(e));
    expect(JSON.stringify(events)).not.toContain(SECOND);
    const response = await app.post('/v1/chat/completions', chatBody);
    expect(response.status).toBe(503);
    expect(await response.text()).not.toMatch(/sentence|ENOSPC/);
    expect(app.admission.running).toBe(0);
  });
});

it('what is logged is logged before it is released, and the answer names the last entry', async () => {
  const records: VerdictRecord[] = [];
  const log = {
    append: async (record: VerdictRecord) => {
      records.push(record);
      return { receipt: `r${records.length}` };
    },
  };
  const app = appOf(turn(FIRST + SECOND), screenOf('', judgeOf(/never/)), { log });
  const stream = await streamed(app);
  expect(stream.temper).toMatchObject({ outcome: 'allow', receipt: `r${records.length}` });
  const [before, last] = [records.slice(0, -2), records.slice(-2)];
  const subject = expect.stringMatching(/^chatcmpl-/) as string;
  expect(last).toMatchObject([
    { channel: 'analysis', outcome: 'allow', whole: true, mode: 'enforce', subject, choice: 0 },
    { channel: 'final', outcome: 'allow', whole: true },
  ]);
  expect(before.length).toBeGreaterThan(0);
  expect(before.every((r) => !r.whole)).toBe(true);
  expect(JSON.stringify(records)).not.toMatch(/sentence|think/);
});

describe('log-probabilities', () => {
  /** As an engine that tells the tokens of its answer: a letter each. */
  const telling = (text: string, more: object = {}): Engine => {
    const { engine } = scriptedEngine(() => tokensOf(text));
    const infoOf = (c: string) => ({ token: c.charCodeAt(0), bytes: Buffer.from(c), logprob: -1, top: [] });
    return {
      ...engine,
      async *generate(request, signal) {
        for await (const event of engine.generate(request, signal)) {
          if (event.kind === 'text') yield event;
          else yield { ...event, answer: [...event.messages.at(-1)!.content].map(infoOf), ...more };
          await new Promise((done) => setImmediate(done));
        }
      },
    };
  };
  const ask = { ...chatBody, logprobs: true };
  type Told = { choices: { logprobs: { content: { token: string }[] | null } | null }[] };
  const toldOf = (bodies: readonly object[]): string =>
    (bodies as readonly Told[])
      .flatMap((b) => b.choices?.[0]?.logprobs?.content ?? [])
      .map((t) => t.token)
      .join('');
  const chunksOf = (app: ScriptedApp, body: object = ask) =>
    app.events('/v1/chat/completions', { ...body, stream: true });
  const three = turn(FIRST + SECOND + THIRD);

  it('leave when all of the answer is allowed', async () => {
    const app = scriptedApp(telling(turn(FIRST + SECOND)), { screen: screenOf('', judgeOf(/never/)) });
    const chunks = (await chunksOf(app)) as unknown as (Told & Chunk)[];
    const first = chunks.findIndex((c) => toldOf([c]) !== ''),
      last = chunks.findLastIndex((c) => (c.choices?.[0]?.delta.content ?? '') !== '');
    expect(first).toBeGreaterThan(last);
    expect(toldOf(chunks)).toBe(FIRST + SECOND);
    expect(toldOf([await app.json('/v1/chat/completions', ask)])).toBe(FIRST + SECOND);
  });
  it.each(['refuse', 'truncate'])('none of an answer that is blocked: onBlock %s', async (onBlock) => {
    const app = scriptedApp(telling(three), { screen: screenOf(`onBlock: ${onBlock}`, judgeOf(/Rome/)) });
    expect(toldOf(await chunksOf(app))).toBe('');
    expect(toldOf([await app.json('/v1/chat/completions', ask)])).toBe('');
  });
  it('not of the token that a stop string ends in: what follows in it was not judged', async () => {
    const engine = telling(turn(`${FIRST}!`), { stop: '.', tokens: Int32Array.of(5, '!'.charCodeAt(0)) });
    const screen = screenOf('', judgeOf(/never/));
    const app = scriptedApp(engine, { screen });
    expect(toldOf(await chunksOf(app))).toBe(FIRST);
    expect(toldOf([await app.json('/v1/chat/completions', ask)])).toBe(FIRST);
    expect(toldOf([await scriptedApp(engine).json('/v1/chat/completions', ask)])).toBe(`${FIRST}!`);
    const before = telling(turn(FIRST), { stop: '!', tokens: Int32Array.of(5, '!'.charCodeAt(0)) });
    expect(toldOf([await scriptedApp(before, { screen }).json('/v1/chat/completions', ask)])).toBe(FIRST);
  });
  it.each([
    ['/v1/chat/completions', { ...ask, top_logprobs: 3 }, 'top_logprobs'],
    ['/v1/responses', { model: 'm', input: 'hi', top_logprobs: 3 }, 'top_logprobs'],
    ['/v1/completions', { model: 'm', prompt: 'hi', logprobs: 3 }, 'logprobs'],
    ['/v1/completions', { model: 'm', prompt: 'hi', logprobs: 3, echo: true, max_tokens: 0 }, 'logprobs'],
  ])('others beside a token are refused: %s %j', async (path, body, param) => {
    const { engine, requests } = scriptedEngine(() => tokensOf(turn(FIRST)));
    const read: unknown[] = [];
    const counted: Engine = {
      ...engine,
      read(...of) {
        read.push(of);
        return engine.read(...of);
      },
    };
    const options = { screen: screenOf('', judgeOf(/never/)) };
    for (const stream of [false, true]) {
      const answer = await scriptedApp(counted, options).post(path, { ...body, stream });
      expect(answer.status).toBe(400);
      expect(await answer.json()).toMatchObject({ error: { code: 'unsupported_parameter', param } });
    }
    expect(requests).toEqual([]);
    expect(read).toEqual([]);
    // Nobody waits for verdicts here.
    expect((await scriptedApp(counted, { ...options, holding: { mode: 'shadow' } }).post(path, body)).status).toBe(200);
    expect((await scriptedApp(counted).post(path, body)).status).toBe(200);
  });
  it('nor how well a text was guessed that is withheld', async () => {
    const usage = {
      promptTokens: 7,
      cachedTokens: 0,
      completionTokens: 9,
      reasoningTokens: 0,
      prefillMs: 1,
      decodeMs: 1,
    };
    const engine = telling(three, { usage: { ...usage, draftedTokens: 8, acceptedTokens: 6 } });
    const body = { ...chatBody, prediction: { type: 'content', content: 'Rome' } };
    const detailsOf = async (app: ScriptedApp): Promise<unknown> =>
      ((await app.json('/v1/chat/completions', body)) as { usage: { completion_tokens_details: unknown } }).usage
        .completion_tokens_details;
    expect(await detailsOf(scriptedApp(engine))).toMatchObject({ accepted_prediction_tokens: 6 });
    const blocked = await detailsOf(scriptedApp(engine, { screen: screenOf('', judgeOf(/Rome/)) }));
    expect(blocked).not.toHaveProperty('accepted_prediction_tokens');
  });
});

describe('shadow', () => {
  it('judges, logs and releases; every answer and every metric says so', async () => {
    const records: VerdictRecord[] = [];
    const log = {
      append: async (record: VerdictRecord) => {
        records.push(record);
        return { receipt: 'r' };
      },
    };
    const app = appOf(turn(FIRST + THIRD + SECOND), screenOf('', judgeOf(/Rome/)), { mode: 'shadow', log });
    for (const ask of [streamed, whole])
      expect(await ask(app)).toMatchObject({
        content: FIRST + THIRD + SECOND,
        refusal: null,
        finish: 'stop',
        temper: { mode: 'shadow', outcome: 'block' },
      });
    expect(records.every((r) => r.mode === 'shadow')).toBe(true);
    for (const [path, body] of [
      ['/v1/chat/completions', chatBody],
      ['/v1/chat/completions', { ...chatBody, stream: true }],
      ['/v1/chat/completions', { ...chatBody, model: 'none' }],
      ['/v1/nothing', {}],
    ] as const)
      expect((await app.post(path, body)).headers.get('temper-screening')).toBe('shadow');
    const metrics = (await (await app.app.request('/metrics')).text()).split('\n');
    const figures = metrics.filter((l) => l !== '' && !l.startsWith('#'));
    expect(figures.every((l) => l.includes('screening="shadow"'))).toBe(true);
  });
  it('is nowhere where nobody asks for it', async () => {
    const app = appOf(turn(FIRST), screenOf('', judgeOf(/never/)));
    const response = await app.post('/v1/chat/completions', chatBody);
    expect(response.headers.get('temper-screening')).toBeNull();
    expect((await whole(app)).temper).not.toHaveProperty('mode');
  });
});
