// Judges behind servers as they are: dialects that are read, sentences that are shown, secrets that are not.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createEndpointJudge, type EndpointJudgeOptions } from '../../src/safeguard/judges/endpoint.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen, HOPELESS_CALLS } from '../../src/safeguard/screen.js';
import type { Judge, Verdict } from '../../src/safeguard/types.js';
import { type Answer, completion, type JudgeServer, nonceOf, startJudgeServer } from './judge-server.js';

const policy = definePolicy('contact', 'C1: a phone number\nC2: a card number');
const allow = (request: Parameters<Answer>[0]): string => renderVerdict({ rule: null, nonce: nonceOf(request) });
/** The judge's port may have any digits. */
const withoutPort = (detail: string | null | undefined): string => `${detail}`.replace(/:\d+:/, ':');
const TEXT = 'Call Rossi on 0171 555 0142 before friday evening';

async function judged(
  answer: Answer,
  options: Partial<EndpointJudgeOptions> = {},
  base = (url: string): string => url,
): Promise<{ verdict: Verdict; requests: JudgeServer['requests'] }> {
  const server = await startJudgeServer(answer);
  try {
    const judge = createEndpointJudge({ model: 'm', backoffMs: 1, ...options, url: base(server.url) });
    const { verdicts } = await createScreen({ policies: [policy], judge, timeoutMs: 20_000 }).screen({ final: TEXT });
    return { verdict: verdicts[0] as Verdict, requests: server.requests };
  } finally {
    await server.close();
  }
}
const json = (
  response: Parameters<Answer>[1],
  status: number,
  value: unknown,
  headers: Record<string, string> = {},
): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
};
const whole = (request: Parameters<Answer>[0], more: object = {}, message: object = {}): object => ({
  choices: [{ finish_reason: 'stop', message: { role: 'assistant', content: allow(request), ...message } }],
  ...more,
});

afterEach(() => {
  vi.unstubAllGlobals();
});

describe('a sound allow passes in the dialect of', () => {
  const dialects: readonly (readonly [string, Answer])[] = [
    [
      'parts, one of them text (Mistral)',
      (q, r) =>
        completion(r, {
          content: [
            { type: 'thinking', thinking: [{ type: 'text', text: 'Nothing private.' }] },
            { type: 'text', text: allow(q) },
          ],
        }),
    ],
    ['finish_reason eos_token (TGI)', (q, r) => completion(r, { content: allow(q) }, 'eos_token')],
    ['an empty refusal', (q, r) => completion(r, { content: allow(q), refusal: '' })],
    [
      'null for all that is absent',
      (q, r) => json(r, 200, whole(q, { error: null }, { refusal: null, tool_calls: null })),
    ],
    ['a charset', (q, r) => json(r, 200, whole(q), { 'content-type': 'application/json; charset="UTF-8"' })],
    [
      'gzip that nobody asked for',
      (q, r) => {
        r.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' });
        r.end(gzipSync(JSON.stringify(whole(q))));
      },
    ],
    [
      'blank lines before the body, to keep the connection open',
      (q, r) => {
        r.writeHead(200, { 'content-type': 'application/json' });
        r.write('\n\n');
        setTimeout(() => r.end(JSON.stringify(whole(q))), 20);
      },
    ],
    [
      'characters cut between two packets',
      (q, r) => {
        r.writeHead(200, { 'content-type': 'application/json' });
        const bytes = Buffer.from(JSON.stringify(whole(q, {}, { reasoning: 'naïve 🙂' })));
        const at = bytes.indexOf(0xf0) + 2;
        r.write(bytes.subarray(0, at), () => setTimeout(() => r.end(bytes.subarray(at)), 5));
      },
    ],
    ['the model with its owner', (q, r) => json(r, 200, whole(q, { model: 'openai/m' }))],
    ['the model with the day of its release', (q, r) => json(r, 200, whole(q, { model: 'm-2025-08-05' }))],
    ['408 once', (q, r, call) => (call === 1 ? json(r, 408, {}) : completion(r, { content: allow(q) }))],
    [
      'a router that writes 502 into a 200, once',
      (q, r, call) =>
        call === 1 ? json(r, 200, { error: { code: 502, message: 'busy' } }) : completion(r, { content: allow(q) }),
    ],
    [
      'an overloaded error in a 200, and one in its choice',
      (q, r, call) =>
        call === 1
          ? json(r, 200, { error: { type: 'overloaded_error', message: 'busy' } })
          : call === 2
            ? json(r, 200, whole(q, { choices: [{ error: { code: 'rate_limit_exceeded' } }] }))
            : completion(r, { content: allow(q) }),
    ],
    [
      'an idle connection that broke',
      (q, r, call) => {
        if (call === 1) r.destroy();
        else completion(r, { content: allow(q) });
      },
    ],
  ];
  it.each(dialects)('%s', async (_, answer) => {
    const { verdict } = await judged(answer);
    expect(verdict, verdict.detail).toMatchObject({ outcome: 'allow', cause: null, detail: '' });
  });
  it('thoughts in parts are the rationale', async () => {
    expect((await judged(dialects[0]?.[1] as Answer)).verdict.rationale).toBe('Nothing private.');
  });
  it('a service that wants max_completion_tokens: the same limit by that name, from then on', async () => {
    const { verdict, requests } = await judged(
      (q, r) =>
        'max_tokens' in q.body
          ? json(r, 400, { error: { message: "Unsupported 'max_tokens'. Use 'max_completion_tokens' instead." } })
          : completion(r, { content: allow(q) }),
      { maxTokens: 77 },
    );
    expect(verdict.outcome).toBe('allow');
    expect(requests.map(({ body }) => [body.max_tokens, body.max_completion_tokens])).toEqual([
      [77, undefined],
      [undefined, 77],
    ]);
  });
  it('a base URL that was copied whole', async () => {
    const { verdict } = await judged(
      (q, r) => completion(r, { content: allow(q) }),
      {},
      (url) => `${url}/chat/completions/`,
    );
    expect(verdict.outcome).toBe('allow');
  });
  it('no 300 s limit of the platform: the client is not fetch', async () => {
    vi.stubGlobal('fetch', () => {
      throw new Error('fetch was called');
    });
    expect((await judged((q, r) => completion(r, { content: allow(q) }))).verdict.outcome).toBe('allow');
  });
});

describe("the server's own sentence is the detail", () => {
  const sentences: readonly (readonly [string, Answer, RegExp])[] = [
    ['OpenAI', (_, r) => json(r, 400, { error: { message: 'too long by 5' } }), /answered 400: too long by 5; /],
    ['a string', (_, r) => json(r, 404, { error: 'model "m" not found' }), /answered 404: model "m" not found; .*"m"/],
    ['vLLM of old', (_, r) => json(r, 400, { object: 'error', message: 'no such model' }), /: no such model; /],
    ['FastAPI', (_, r) => json(r, 422, { detail: [{ msg: 'field required' }] }), /answered 422: field required; /],
    [
      'FastAPI, a string',
      (_, r) => json(r, 403, { detail: 'Forbidden' }),
      /403: Forbidden; check TEMPER_JUDGE_API_KEY/,
    ],
    [
      'plain text',
      (_, r) => {
        r.writeHead(503, { 'content-type': 'text/plain' }).end('model is loading\n');
      },
      /answered 503 3 times: model is loading$/,
    ],
    ['nothing', (_, r) => json(r, 401, {}), /answered 401; check TEMPER_JUDGE_API_KEY/],
    [
      'an error with status 200',
      (_, r) => json(r, 200, { error: { message: 'rate limit' } }),
      /status 200.*: rate limit/,
    ],
    ['a redirect', (_, r) => json(r, 308, {}, { location: '/v2' }), /answered 308, a redirect, .* not followed/],
    ['a web page', (_, r) => json(r, 200, {}, { 'content-type': 'text/html' }), /web page.*\/v1/],
    ['a refusal', (_, r) => completion(r, { refusal: 'I will not' }), /refused to judge: I will not/],
    [
      'another model',
      (q, r) => json(r, 200, whole(q, { model: 'x' })),
      /"x" answered, "m" was asked for; .*--judge-model/,
    ],
    ['another finish', (q, r) => completion(r, { content: allow(q) }, 'content_filter'), /ended by content_filter/],
    ['harmony inline', (_, r) => completion(r, { content: '<|channel|>final' }), /markup.*reasoning parser/],
    ['think tags', (_, r) => completion(r, { content: '<think>' }), /think tags.*reasoning parser/],
    ['what is not seen', (q, r) => completion(r, { content: `\ufeff${allow(q)}\u00a0` }), /not seen, such as U\+FEFF/],
    ['several lines', (q, r) => completion(r, { content: allow(q).replaceAll(',', ',\n') }), /over several lines/],
    [
      'control characters and line breaks',
      (_, r) => json(r, 400, { error: { message: `a\u001b[2J\r\nb\u2028c\u202ed${'e'.repeat(900)}` } }),
      /answered 400: a \[2J b c d(?=e{100})[^\p{Cc}\p{Cf}]{1,240}…; /u,
    ],
  ];
  it.each(sentences)('%s', async (_, answer, words) => {
    const { verdict } = await judged(answer);
    expect(verdict.outcome).toBe('unjudged');
    expect(verdict.detail).toMatch(words);
    expect(verdict.detail).not.toMatch(/\n/);
  });
  it('a base URL without /v1', async () => {
    const { verdict } = await judged(
      (_, r) => json(r, 404, { error: 'not found' }),
      {},
      (url) => url.replace(/\/v1$/, ''),
    );
    expect(verdict.detail).toMatch(/answered 404: not found; .*end in \/v1: http:\/\/127\.0\.0\.1:\d+\/v1\?$/);
  });
  it('a block of another model stands: nothing passes by it', async () => {
    const { verdict } = await judged((q, r) => {
      const content = renderVerdict({ rule: 'C1', nonce: nonceOf(q) });
      json(r, 200, whole(q, { model: 'x' }, { content }));
    });
    expect(verdict).toMatchObject({ outcome: 'block', rule: 'C1' });
  });
});

describe('what must not leave by a detail', () => {
  const SECRET = 'sk-live-4f9a8b7c6d5e';
  const pieces = (text: string): string[] =>
    Array.from({ length: Math.max(0, text.length - 5) }, (_, i) => text.slice(i, i + 6));
  it.each([
    ['a line break', `${SECRET}\n${SECRET}`],
    ['a carriage return', `${SECRET}\r${SECRET}`],
    ['a blank', `${SECRET} ${SECRET}`],
    ['a quote that is not ASCII', `“${SECRET}”`],
    ['a NUL', `${SECRET}\u0000x`],
  ])('a key with %s is refused at once, without a piece of it', (_, apiKey) => {
    let message = '';
    try {
      createEndpointJudge({ url: 'http://127.0.0.1:1/v1', model: 'm', apiKey });
    } catch (error) {
      expect(error).toMatchObject({ code: 'judge_key', exitCode: 2 });
      message = String((error as Error).stack);
    }
    expect(message).toContain('TEMPER_JUDGE_API_KEY');
    for (const piece of pieces(SECRET)) expect(message).not.toContain(piece);
  });
  it('blanks around a key are no part of it', async () => {
    const { requests } = await judged((q, r) => completion(r, { content: allow(q) }), { apiKey: ` ${SECRET}\n` });
    expect(requests[0]?.headers.authorization).toBe(`Bearer ${SECRET}`);
  });
  it.each([
    ['the key', (q: Parameters<Answer>[0]) => `bad key ${String(q.headers.authorization)}`],
    ['the text', () => `cannot parse input '${TEXT}'`],
    ['the text as JSON', () => `input: ${JSON.stringify(JSON.stringify(TEXT))}`],
    ['a number of the text', () => 'no such id 01715550142'],
    ['part of the text', () => `unexpected "Call Rossi on 0171"`],
  ])('a server that repeats %s', async (_, sentence) => {
    const { verdict } = await judged((q, r) => json(r, 400, { error: { message: sentence(q) } }), { apiKey: SECRET });
    expect(verdict).toMatchObject({ outcome: 'unjudged', cause: 'http_status' });
    expect(withoutPort(verdict.detail)).not.toMatch(/Rossi|0171|sk-live/);
    expect(verdict.detail).toContain('answered 400');
  });
  it.each([
    ['an error in a 200', (q: string) => ({ error: { message: q } })],
    ['a message', (q: string) => ({ object: 'error', message: q })],
    [
      'an error of the choice',
      (q: string) => ({ choices: [{ finish_reason: 'stop', message: { role: 'assistant' }, error: q }] }),
    ],
    ['a role', (q: string) => ({ choices: [{ finish_reason: 'stop', message: { role: q, content: 'x' } }] })],
    ['the end', (q: string) => ({ choices: [{ finish_reason: q, message: { role: 'assistant', content: 'x' } }] })],
    ['another object', (q: string) => ({ object: q, choices: [] })],
  ])('nor by what is odd in a completion: %s', async (_, body) => {
    for (const words of [`Bearer ${SECRET}`, TEXT]) {
      const { verdict } = await judged((_q, r) => json(r, 200, body(words)), { apiKey: SECRET });
      expect(verdict.outcome).toBe('unjudged');
      expect(withoutPort(verdict.detail)).not.toMatch(/Rossi|0171|sk-live|4f9a8b/);
    }
  });
  it('an answer off the contract that repeats the text', async () => {
    const { verdict } = await judged((_, r) => completion(r, { content: `You said: ${TEXT}` }));
    expect(verdict.cause).toBe('off_contract');
    expect(withoutPort(verdict.detail)).not.toMatch(/Rossi|0171/);
  });
  it.each([
    ['an Error', new Error(`Bearer ${SECRET}`)],
    ['a TypeError with a code', Object.assign(new TypeError(SECRET), { code: 'ERR_INVALID_CHAR' })],
    ['an Error named like the key', Object.assign(new Error('x'), { name: SECRET })],
    ['a string', SECRET],
    ['an object', { toString: (): string => SECRET }],
  ])('a judge that throws %s', async (_, thrown) => {
    const judge: Judge = {
      name: 'j',
      digest: 'd',
      judge: async () => {
        throw thrown;
      },
    };
    const verdict = (await createScreen({ policies: [policy], judge }).screen({ final: 'x' })).verdicts[0];
    expect(verdict).toMatchObject({ outcome: 'unjudged', cause: 'judge_error' });
    expect(JSON.stringify(verdict)).not.toContain('sk-live');
  });
});

describe('a judge that cannot be used at all', () => {
  const ask = async (answer: Answer, calls: number): Promise<string | null> => {
    const server = await startJudgeServer(answer);
    try {
      const judge = createEndpointJudge({ url: server.url, model: 'm', backoffMs: 1 });
      const screen = createScreen({ policies: [policy], judge });
      for (let i = 0; i < calls; i++) await screen.screen({ final: 'x' });
      return screen.hopeless?.() ?? null;
    } finally {
      await server.close();
    }
  };
  const unauthorized: Answer = (_, r) => json(r, 401, { error: { message: 'bad key' } });
  it('is hopeless after the first calls, not after one, and never once it answered', async () => {
    expect(await ask(unauthorized, HOPELESS_CALLS - 1)).toBeNull();
    expect(await ask(unauthorized, HOPELESS_CALLS)).toMatch(/answered 401: bad key/);
    expect(
      await ask((q, r, call) => {
        if (call === 3) completion(r, { content: allow(q) });
        else unauthorized(q, r, call);
      }, HOPELESS_CALLS + 3),
    ).toBeNull();
    // Too long for the judge: another text may fit.
    expect(await ask((_, r) => json(r, 400, {}), HOPELESS_CALLS + 3)).toBeNull();
  });
});

it('no client decides when a judge is too slow: fetch gives up after 300 s', () => {
  const folder = join(packageRoot, 'src', 'safeguard');
  const files = (readdirSync(folder, { recursive: true }) as string[]).filter((name) => name.endsWith('.ts'));
  expect(files).toContain(join('judges', 'http.ts'));
  for (const name of files) expect(readFileSync(join(folder, name), 'utf8')).not.toMatch(/\bfetch\(|undici|\btimeout:/);
});
