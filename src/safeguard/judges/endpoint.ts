// A judge behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, Ollama, hosted). Whatever is not one completed
// answer is a JudgeFailure.
import { setTimeout } from 'node:timers/promises';
import { z } from 'zod';
import { sha256 } from '../../base/digest.js';
import { ConfigError } from '../../base/errors.js';
import { renderJudgePrompt } from '../contract.js';
import { type Judge, type JudgeAnswer, JudgeFailure, type JudgeRequest } from '../types.js';

export interface EndpointJudgeOptions {
  /** Base URL up to and including the version, e.g. http://127.0.0.1:8000/v1 */
  readonly url: string;
  readonly model: string;
  /** Sent as a bearer token; never logged, never part of a digest. */
  readonly apiKey?: string;
  readonly effort?: 'low' | 'medium' | 'high';
  /** Room for reasoning and verdict; a tight cap turns verdicts into `truncated`. */
  readonly maxTokens?: number;
  /** Tries in all, on 429 and 5xx only. */
  readonly attempts?: number;
  /**
   * First pause before another try, doubled each time; a Retry-After header may lengthen it to at most MAX_PAUSE_MS.
   */
  readonly backoffMs?: number;
}

const MAX_BODY_BYTES = 4 * 2 ** 20;
const MAX_PAUSE_MS = 20_000;

// Other fields are ignored. Reasoning comes under three names, by server; it is kept for reviewers and never read as a
// verdict.
const Completion = z.object({
  choices: z.array(
    z.object({
      finish_reason: z.string().nullable(),
      message: z.object({
        content: z.string().nullable(),
        refusal: z.unknown().optional(),
        tool_calls: z.array(z.unknown()).nullish(),
        reasoning: z.string().nullish(),
        reasoning_content: z.string().nullish(),
        thinking: z.string().nullish(),
      }),
    }),
  ),
});

export function createEndpointJudge(options: EndpointJudgeOptions): Judge {
  const { model, effort, maxTokens = 4096, attempts = 3, backoffMs = 500 } = options;
  let url: URL;
  try {
    url = new URL(`${options.url.replace(/\/+$/, '')}/chat/completions`);
  } catch (cause) {
    throw new ConfigError(
      'judge_url',
      `judge ${options.url}: not a URL, wanted e.g. http://127.0.0.1:8000/v1`,
      {},
      { cause },
    );
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new ConfigError('judge_url', `judge ${options.url}: protocol ${url.protocol}, wanted http or https`);
  if (url.username || url.password)
    throw new ConfigError(
      'judge_url',
      `judge ${url.host}: the URL holds a password, which would be logged; set the key in the environment instead`,
    );

  const settings = { temperature: 0, max_tokens: maxTokens, ...(effort ? { reasoning_effort: effort } : {}) };
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json',
    ...(options.apiKey ? { authorization: `Bearer ${options.apiKey}` } : {}),
  };

  async function once(
    body: string,
    signal: AbortSignal,
  ): Promise<JudgeAnswer | { readonly retryAfterMs: number; readonly status: number }> {
    let response: Response;
    // A redirect would carry policy and content elsewhere.
    try {
      response = await fetch(url, { method: 'POST', headers, body, signal, redirect: 'error' });
    } catch (cause) {
      throw connectionFailure(url, cause, signal);
    }
    if (response.status === 429 || response.status >= 500) {
      await response.body?.cancel().catch(() => {});
      const seconds = Number(response.headers.get('retry-after') ?? '0');
      return { retryAfterMs: Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : 0, status: response.status };
    }
    if (response.status !== 200) {
      await response.body?.cancel().catch(() => {});
      throw new JudgeFailure('http_status', `judge ${url.host} answered ${response.status}; check model name and key`);
    }
    return readCompletion(url, await readBody(url, response, signal));
  }

  return {
    name: `${model} at ${url.host}`,
    digest: sha256(JSON.stringify({ kind: 'endpoint', url: url.href, model, settings })),
    async judge(request: JudgeRequest): Promise<JudgeAnswer> {
      const prompt = renderJudgePrompt(request);
      const body = JSON.stringify({
        model,
        ...settings,
        stream: false,
        messages: [
          { role: 'system', content: prompt.developer },
          { role: 'user', content: prompt.user },
        ],
      });
      for (let attempt = 1; ; attempt++) {
        const result = await once(body, request.signal);
        if ('text' in result) return result;
        if (attempt >= attempts)
          throw new JudgeFailure('http_status', `judge ${url.host} answered ${result.status} ${attempt} times`);
        await pause(
          Math.min(MAX_PAUSE_MS, Math.max(result.retryAfterMs, backoffMs * 2 ** (attempt - 1))),
          request.signal,
        );
      }
    },
  };
}

function connectionFailure(url: URL, cause: unknown, signal: AbortSignal): JudgeFailure {
  if (signal.aborted) return new JudgeFailure('aborted', `judge ${url.host}: stopped before it answered`, { cause });
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  const code =
    inner instanceof Error && 'code' in inner ? String(inner.code) : inner instanceof Error ? inner.message : 'error';
  return new JudgeFailure('unreachable', `judge ${url.host}: connection failed (${code})`, { cause });
}

async function readBody(url: URL, response: Response, signal: AbortSignal): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      bytes += chunk.length;
      if (bytes > MAX_BODY_BYTES)
        throw new JudgeFailure('bad_response', `judge ${url.host}: the answer is longer than ${MAX_BODY_BYTES} bytes`);
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof JudgeFailure) throw cause;
    throw connectionFailure(url, cause, signal);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function readCompletion(url: URL, body: string): JudgeAnswer {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    throw new JudgeFailure(
      'bad_response',
      `judge ${url.host}: status 200, but the body is not JSON: ${JSON.stringify(body.slice(0, 60))}`,
    );
  }
  const parsed = Completion.safeParse(json);
  if (!parsed.success)
    throw new JudgeFailure(
      'bad_response',
      `judge ${url.host}: status 200, but not a chat completion (${parsed.error.issues[0]?.path.join('.') ?? ''})`,
    );
  const { choices } = parsed.data;
  const choice = choices[0];
  if (choices.length !== 1 || !choice)
    throw new JudgeFailure('bad_response', `judge ${url.host}: ${choices.length} choices, wanted 1`);
  const { message, finish_reason: finish } = choice;
  if ((message.tool_calls?.length ?? 0) > 0)
    throw new JudgeFailure('off_contract', `judge ${url.host}: called a tool instead of judging`);
  if (message.refusal !== undefined && message.refusal !== null)
    throw new JudgeFailure('off_contract', `judge ${url.host}: refused to judge`);
  return {
    text: message.content ?? '',
    finish: finish === 'stop' ? 'stop' : finish === 'length' ? 'length' : 'other',
    rationale: message.reasoning ?? message.reasoning_content ?? message.thinking ?? '',
  };
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await setTimeout(ms, undefined, { signal });
  } catch (cause) {
    throw new JudgeFailure('aborted', 'stopped while waiting to try the judge again', { cause });
  }
}
