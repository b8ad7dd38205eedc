// A judge behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, Ollama, hosted). Whatever is not one completed
// answer is a JudgeFailure. No message of a library reaches it, as one may quote the key.
import { setTimeout } from 'node:timers/promises';
import { sha256 } from '../../base/digest.js';
import { ConfigError } from '../../base/errors.js';
import type { JudgeMessage } from '../contracts/contract.js';
import { judgeMessages } from '../contracts/index.js';
import type { HasHealth } from '../judge-health.js';
import { oneLine, repeats } from '../sentence.js';
import { type Judge, type JudgeAnswer, JudgeFailure, type JudgeRequest } from '../types.js';
import { errorSentence, holdsPassingError, passing, readCompletion } from './completion.js';
import { HttpFailure, postJson, type Reply } from './http.js';
import { Breaker, Budget, hedged, Latencies } from './resilience.js';

export interface EndpointJudgeOptions {
  /** Base URL up to and including the version, e.g. http://127.0.0.1:8000/v1 */
  readonly url: string;
  readonly model: string;
  /** Sent as a bearer token; never logged, never part of a digest. */
  readonly apiKey?: string;
  readonly effort?: 'low' | 'medium' | 'high';
  /** Room for reasoning and verdict; a tight cap turns verdicts into `truncated`. */
  readonly maxTokens?: number;
  /**
   * Tries in all, on 408, 429, 5xx, by status or in a body of status 200, and a connection that broke before any
   * answer.
   */
  readonly attempts?: number;
  /**
   * First pause before another try, doubled each time; a Retry-After header may lengthen it to at most MAX_PAUSE_MS.
   */
  readonly backoffMs?: number;
  /**
   * A second request is sent where the first takes longer than most of late (HEDGE_QUANTILE) did, for at most this
   * share of the calls; 0: never.
   */
  readonly hedge?: number;
}

/** Other tries than the first, as a share of the calls, and how many may come at once. */
const RETRY_SHARE = 0.2;
const RETRY_BURST = 40;
const HEDGE_QUANTILE = 0.95;
export const DEFAULT_HEDGE = 0.05;

const MAX_BODY_BYTES = 4 * 2 ** 20;
const MAX_PAUSE_MS = 20_000;
/** Answers under which no call of this judge can succeed. */
const HOPELESS: readonly number[] = [401, 403, 404, 405];
export function createEndpointJudge(options: EndpointJudgeOptions): Judge & HasHealth {
  const { model, effort, maxTokens = 4096, attempts = 3, backoffMs = 500, hedge = DEFAULT_HEDGE } = options;
  const url = completionsUrl(options.url);
  const apiKey = options.apiKey === undefined ? '' : checkedKey(options.apiKey);
  const settings = { temperature: 0, max_tokens: maxTokens, ...(effort ? { reasoning_effort: effort } : {}) };
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json',
    'accept-encoding': 'identity',
    ...(apiKey === '' ? {} : { authorization: `Bearer ${apiKey}` }),
  };
  const breaker = new Breaker(),
    retries = new Budget(RETRY_SHARE, RETRY_BURST),
    hedges = new Budget(hedge, Math.max(1, 20 * hedge)),
    latencies = new Latencies();
  let calls = 0;
  // Newer services know the limit by another name only, and say so.
  let limitName: 'max_tokens' | 'max_completion_tokens' = 'max_tokens';
  const bodyOf = (messages: readonly JudgeMessage[], limit: string, sampling: JudgeRequest['sampling']): string => {
    const { max_tokens, ...others } = settings;
    return JSON.stringify({
      model,
      ...others,
      ...sampling,
      [limit]: max_tokens,
      stream: false,
      messages,
    });
  };
  /** One reply, of two requests where one takes long. */
  async function send(body: string, signal: AbortSignal, again: boolean): Promise<Reply | null> {
    const delayMs = hedge > 0 ? latencies.quantile(HEDGE_QUANTILE) : null;
    const since = performance.now();
    const reply = await hedged(
      (s) => once(url, headers, body, s, again),
      signal,
      delayMs === null
        ? null
        : {
            delayMs,
            may: () => hedges.spend(),
            good: (r) => r?.status === 200,
          },
    );
    if (reply?.status === 200) latencies.add(performance.now() - since);
    return reply;
  }

  async function ask(request: JudgeRequest): Promise<JudgeAnswer> {
    const prompt = judgeMessages(request);
    calls++;
    retries.earn();
    hedges.earn();
    for (let attempt = 1; ; attempt++) {
      const limit = limitName;
      const more = attempt < attempts;
      const reply = await send(bodyOf(prompt, limit, request.sampling), request.signal, more);
      const busy = reply?.status === 200 && more && holdsPassingError(reply);
      if (reply?.status === 200 && !busy) return completed(url, model, reply, apiKey);
      const sentence = reply ? said(reply, request.content, apiKey) : '';
      if (reply?.status === 400 && limit === 'max_tokens' && sentence.includes('max_completion_tokens')) {
        limitName = 'max_completion_tokens';
        continue;
      }
      if (reply && !busy && !passing(reply.status)) throw refusal(url, model, reply, sentence, attempt);
      if (!more || !retries.spend()) {
        if (reply && !busy) throw refusal(url, model, reply, sentence, attempt);
        throw new JudgeFailure('unreachable', `judge ${url.host}: failed, and too many calls were repeated of late`);
      }
      const wanted = Math.max(reply ? retryAfterMs(reply.headers) : 0, backoffMs * 2 ** (attempt - 1));
      await pause(Math.min(MAX_PAUSE_MS, wanted), request.signal);
    }
  }

  return {
    name: `${model} at ${url.host}`,
    digest: sha256(JSON.stringify({ kind: 'endpoint', url: url.href, model, settings })),
    health: () => ({ breaker: breaker.state, calls, retries: retries.spent, hedges: hedges.spent }),
    async judge(request: JudgeRequest): Promise<JudgeAnswer> {
      const closed = breaker.refuses();
      if (closed !== null) throw new JudgeFailure('circuit_open', `judge ${url.host}: ${closed}`);
      try {
        const answer = await ask(request);
        breaker.succeeded();
        return answer;
      } catch (error) {
        noteFailure(breaker, error, request.signal);
        throw error;
      }
    },
  };
}

/** An answer, of whatever form, and a request that is wrong by itself say that the judge is there. */
function noteFailure(breaker: Breaker, error: unknown, signal: AbortSignal): void {
  const late: unknown = signal.aborted ? signal.reason : null;
  if (signal.aborted && !(late instanceof JudgeFailure && late.reason === 'timeout')) breaker.stopped();
  else if (signal.aborted) breaker.failed('no answer in time');
  else if (!(error instanceof JudgeFailure)) breaker.failed('an error');
  else if (error.reason === 'unreachable' || error.hopeless || error.passing) breaker.failed(error.message);
  else breaker.succeeded();
}

/** Seconds, or a time by the server's own clock: ours may be wrong. */
function retryAfterMs(headers: Reply['headers']): number {
  const after = headers['retry-after'] ?? '';
  const seconds = /^[0-9]+(?:\.[0-9]+)?$/.test(after) ? Number(after) : NaN;
  if (!Number.isNaN(seconds)) return seconds * 1000;
  const wait = Date.parse(after) - Date.parse(headers.date ?? '');
  return Number.isFinite(wait) ? Math.max(0, wait) : 0;
}

/** Where a base URL's completions are. @throws {ConfigError} not a URL of HTTP, one that holds a password */
function completionsUrl(base: string): URL {
  let url: URL;
  try {
    // Often copied whole.
    url = new URL(`${base.replace(/\/+$/, '').replace(/\/chat\/completions$/, '')}/chat/completions`);
  } catch {
    throw new ConfigError(
      'judge_url',
      `judge ${oneLine(base.replace(/^.*@/s, '…@'))}: not a URL, wanted e.g. http://127.0.0.1:8000/v1`,
    );
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new ConfigError('judge_url', `judge ${url.host}: protocol ${url.protocol}, wanted http or https`);
  if (url.username || url.password)
    throw new ConfigError(
      'judge_url',
      `judge ${url.host}: the URL holds a password, which would be logged; set the key in the environment instead`,
    );
  if (url.search || url.hash)
    throw new ConfigError(
      'judge_url',
      `judge ${url.host}: the URL goes on after its path (? or #), wanted a base URL such as http://127.0.0.1:8000/v1`,
    );
  return url;
}

/** A key as a header can carry it; blanks around it are left off. The error tells where, never what. */
function checkedKey(given: string): string {
  const key = given.trim();
  const at = key.search(/[^\x21-\x7e]/);
  if (at >= 0)
    throw new ConfigError(
      'judge_key',
      `the judge's key (TEMPER_JUDGE_API_KEY): character ${at + 1} of ${key.length} is a blank, a line break or not ` +
        'ASCII, which no header can carry; set the key alone, on one line',
    );
  return key;
}

/**
 * One request; null where the connection broke before any answer and may be tried again.
 * @throws {JudgeFailure} no answer, or none that can be read
 */
async function once(
  url: URL,
  headers: Readonly<Record<string, string>>,
  body: string,
  signal: AbortSignal,
  again: boolean,
): Promise<Reply | null> {
  try {
    return await postJson(url, headers, body, MAX_BODY_BYTES, signal);
  } catch (error) {
    if (signal.aborted) throw new JudgeFailure('aborted', `judge ${url.host}: stopped before it answered`);
    if (!(error instanceof HttpFailure)) throw error;
    if (error.kind === 'too_long')
      throw new JudgeFailure('bad_response', `judge ${url.host}: the answer is longer than ${MAX_BODY_BYTES} bytes`);
    if (error.kind === 'encoding')
      throw new JudgeFailure('bad_response', `judge ${url.host}: content encoding ${error.reason}, wanted identity`);
    if (again && error.unanswered && RESET.includes(error.reason)) return null;
    throw new JudgeFailure('unreachable', `judge ${url.host}: connection failed (${error.reason})`, {
      hopeless: error.unanswered && !RESET.includes(error.reason),
    });
  }
}
/** A server that closed an idle connection just as it was used again. */
const RESET: readonly string[] = ['ECONNRESET', 'EPIPE'];

/** readCompletion, whose complaints quote the server: without the key. (The judged text is left out by the screen.) */
function completed(url: URL, model: string, reply: Reply, apiKey: string): JudgeAnswer {
  const leaks = (text = ''): boolean => apiKey !== '' && repeats(text, apiKey);
  const withheld = `judge ${url.host}: what it says repeats the key and is left out`;
  try {
    const answer = readCompletion(url.host, model, reply);
    if (leaks(answer.ended) || leaks(answer.allowVoid?.detail)) throw new JudgeFailure('bad_response', withheld);
    return answer;
  } catch (e) {
    throw e instanceof JudgeFailure && leaks(e.message) ? new JudgeFailure(e.reason, withheld) : e;
  }
}

/** The server's own sentence, without what must not be told on: the text under judgement, the key. */
function said(reply: Reply, content: string, apiKey: string): string {
  let sentence: string | null = null;
  const text = reply.body.toString('utf8');
  try {
    sentence = errorSentence(JSON.parse(text));
  } catch {
    if ((reply.headers['content-type'] ?? '').startsWith('text/plain')) sentence = oneLine(text) || null;
  }
  if (sentence === null) return '';
  if (apiKey !== '' && repeats(sentence, apiKey)) return 'what it says repeats the key and is left out';
  return repeats(sentence, content) ? 'what it says repeats the judged text and is left out' : sentence;
}

function refusal(url: URL, model: string, reply: Reply, sentence: string, attempt: number): JudgeFailure {
  const { status } = reply;
  if (status >= 300 && status < 400)
    return new JudgeFailure(
      'unreachable',
      `judge ${url.host}: answered ${status}, a redirect, which is not followed; give the URL that it leads to`,
      { hopeless: true },
    );
  const versioned = /\/v[0-9]+[a-z0-9]*\/chat\/completions$/.test(url.pathname);
  const hint =
    status === 401 || status === 403
      ? 'check TEMPER_JUDGE_API_KEY'
      : status === 404 || status === 405
        ? versioned
          ? `check the URL and the model name ${JSON.stringify(oneLine(model, 80))}`
          : `${url.pathname} is not there; base URLs mostly end in /v1: ${url.origin}/v1?`
        : passing(status)
          ? ''
          : 'check model name and settings';
  const times = passing(status) && attempt > 1 ? ` ${attempt} times` : '';
  return new JudgeFailure(
    'http_status',
    `judge ${url.host}: answered ` +
      `${status}${times}${sentence === '' ? '' : `: ${sentence}`}${hint === '' ? '' : `; ${hint}`}`,
    { hopeless: HOPELESS.includes(status), passing: passing(status) },
  );
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await setTimeout(ms, undefined, { signal });
  } catch {
    throw new JudgeFailure('aborted', 'stopped while waiting to try the judge again');
  }
}
