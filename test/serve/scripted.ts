// An engine that writes what a test says, and the server's routes over it: no model, no port.
import { join } from 'node:path';
import type { Hono } from 'hono';
import { packageRoot } from '../../src/base/machine.js';
import type { Holding } from '../../src/compose/held-turn.js';
import { declaredTools } from '../../src/harmony/declared-tools.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import type { Message } from '../../src/harmony/types.js';
import { createTextTracker, createTracker } from '../../src/infer/channels.js';
import type { Engine } from '../../src/infer/engine.js';
import type { EngineEvent, GenerateRequest, PromptInfo, ReadRequest, TokenInfo } from '../../src/infer/protocol.js';
import { openStructures } from '../../src/infer/structures.js';
import type { Screen } from '../../src/safeguard/screen.js';
import { Admission } from '../../src/serve/admission.js';
import type { Env } from '../../src/serve/api.js';
import { ApiError } from '../../src/serve/api-error.js';
import { createApp } from '../../src/serve/app.js';
import { Bodies } from '../../src/serve/bodies.js';
import { Callers } from '../../src/serve/callers.js';
import type { ReasoningRule } from '../../src/serve/generation.js';
import type { ApiKeys } from '../../src/serve/keys.js';
import { createMeter } from '../../src/serve/meter.js';
import { createMemoryStore, type ResponseStore } from '../../src/serve/response-store.js';
import type { ReviewConsole } from '../../src/serve/review/console.js';
import type { ServedModel, ServedModels } from '../../src/serve/served.js';

/** Thoughts and an answer. */
export const SAYS =
  '<|channel|>analysis<|message|>It asks for 4.<|end|>' +
  '<|start|>assistant<|channel|>final<|message|>Four, then.<|return|>';
/** Thoughts and a call of the tool `look`. */
export const CALLS =
  '<|channel|>analysis<|message|>I look it up.<|end|><|start|>assistant to=functions.look<|channel|>commentary ' +
  '<|constrain|>json<|message|>{"at": "Rome"}<|call|>';

const MODEL = join(packageRoot, 'models', 'nano');
export const tokenizer = loadTokenizer(MODEL);
/** Text with control tokens by name: `<|channel|>final<|message|>Hello<|return|>`. */
export const tokensOf = (text: string): readonly number[] =>
  text
    .split(/(<\|\w+\|>)/)
    .filter((s) => s !== '')
    .flatMap((s) => (tokenizer.special[s] === undefined ? [...tokenizer.encode(s)] : [tokenizer.special[s] as number]));

/** Log-probabilities that differ. */
const infoOf = (token: number): TokenInfo => ({
  token,
  bytes: tokenizer.bytes(token),
  logprob: -(token % 7) - 1,
  top: [],
});

export interface Scripted {
  readonly engine: Engine;
  readonly requests: GenerateRequest[];
}
/** @param next what the model writes; fewer tokens than it wanted end by length */
export function scriptedEngine(next: (request: GenerateRequest) => readonly number[]): Scripted {
  const requests: GenerateRequest[] = [];
  async function* generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<EngineEvent, void, void> {
    signal?.throwIfAborted();
    requests.push(request);
    const tokens = next(request);
    const raw = request.prompt !== undefined;
    const tracker = raw ? createTextTracker(tokenizer) : createTracker(tokenizer, declaredTools(request.messages));
    const ends = ['<|return|>', '<|call|>', '<|endoftext|>'].map((name) => tokenizer.special[name]);
    const at = tokens.findIndex((t) => ends.includes(t) || (raw && tokenizer.isSpecial(t)));
    const written = at < 0 ? tokens : tokens.slice(0, at + 1);
    let reasoning = 0;
    for (const token of written) {
      if (tracker.thinking) reasoning++;
      for (const delta of tracker.push(token)) yield { kind: 'text', ...delta };
      await null;
      signal?.throwIfAborted();
    }
    const { deltas, messages } = tracker.end();
    for (const delta of deltas) yield { kind: 'text', ...delta };
    yield {
      kind: 'done',
      finish: at < 0 ? 'length' : tokens[at] === tokenizer.special['<|call|>'] ? 'call' : 'stop',
      cut: null,
      ...(raw && request.topLogprobs !== undefined ? { answer: written.map(infoOf) } : {}),
      messages,
      tokens: Int32Array.from(written),
      logprobs: new Float32Array(written.length),
      usage: {
        promptTokens: 7,
        cachedTokens: 0,
        completionTokens: written.length,
        reasoningTokens: reasoning,
        prefillMs: 1,
        decodeMs: 1,
      },
    };
  }
  const read = async ({ prompt, top }: ReadRequest): Promise<PromptInfo> => {
    const tokens = [...(typeof prompt === 'string' ? tokenizer.encode(prompt) : prompt)];
    const infos = tokens.map((t, i) => (i === 0 ? { ...infoOf(t), logprob: Number.NaN } : infoOf(t)));
    return { text: tokenizer.decode(tokens), count: tokens.length, tokens: top === null ? [] : infos };
  };
  /** Long conversations have more tokens than there is room for. */
  const count = async (messages: readonly Message[]): Promise<number> => 7 * messages.length;
  return { engine: { generate, count, read, info: { contextTokens: 1100 } } as unknown as Engine, requests };
}

export interface ScriptedApp {
  readonly app: Hono<Env>;
  readonly log: unknown[];
  /** What the requests are called of which the log tells. */
  readonly failed: string[];
  readonly admission: Admission;
  readonly responses: ResponseStore;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
  json(path: string, body: unknown): Promise<Record<string, unknown>>;
  /** Events of a stream: what stands behind `data:`, parsed but for `[DONE]`. */
  events(path: string, body: unknown): Promise<readonly Record<string, unknown>[]>;
}
export function scriptedApp(
  engine: Engine,
  options: {
    readonly screen?: Screen;
    readonly holding?: Holding;
    readonly reasoning?: ReasoningRule;
    readonly keys?: ApiKeys;
    readonly responses?: ResponseStore;
    /** Beside the base. */
    readonly models?: readonly ServedModel[];
    readonly hosts?: ReadonlySet<string>;
    readonly playground?: () => boolean;
    readonly review?: ReviewConsole;
    readonly onRevoked?: ServedModels['onRevoked'];
  } = {},
): ScriptedApp {
  const models: readonly ServedModel[] = [
    { id: 'm', adapter: null, digest: 'd', pairs: 0, status: 'approved', folder: null },
    ...(options.models ?? []),
  ];
  const log: unknown[] = [],
    failed: string[] = [];
  const admission = new Admission({ slots: 4, queue: 4, queueMs: 1000 });
  const responses = options.responses ?? createMemoryStore();
  const find = (id: string): ServedModel => {
    const found = models.find((m) => m.id === id);
    if (!found) throw new ApiError(404, 'invalid_request_error', 'model_not_found', 'no such model', 'model');
    return found;
  };
  const structures = openStructures({ model: MODEL, vocabSize: 1024 });
  const served = { engine, models, created: 1, find, structures, onRevoked: options.onRevoked };
  const parts = {
    served,
    screen: options.screen ?? null,
    holding: options.holding,
    reasoning: options.reasoning ?? 'auto',
    admission,
    meter: createMeter(admission, undefined, options.holding?.mode),
  };
  const app = createApp({
    served: served as unknown as ServedModels, // nobody is an admin here
    callers: new Callers(parts, options.keys ?? null),
    adminKeys: () => null,
    note: () => {},
    responses,
    hosts: options.hosts ?? null,
    playground: options.playground ?? (() => true),
    review: options.review ?? null,
    bodies: new Bodies(1 << 20),
    maxTokens: () => 100,
    log: (e, requestId) => {
      log.push(e);
      failed.push(requestId);
    },
  });
  const post = async (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
    app.request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
  return {
    app,
    log,
    failed,
    admission,
    responses,
    post,
    json: async (path, body) => (await (await post(path, body)).json()) as Record<string, unknown>,
    async events(path, body) {
      const text = await (await post(path, { ...(body as object), stream: true })).text();
      return text
        .split('\n\n')
        .filter((e) => e !== '')
        .map((e) => {
          const data = /^(?:event: (.*)\n)?data: (.*)$/.exec(e);
          if (!data) throw new Error(`no event: ${e}`);
          if (data[2] === '[DONE]') return { type: '[DONE]' };
          const json = JSON.parse(data[2] ?? '') as Record<string, unknown>;
          if (data[1] !== undefined && json.type !== data[1])
            throw new Error(`event ${data[1]} holds ${String(json.type)}`);
          return json;
        });
    },
  };
}
