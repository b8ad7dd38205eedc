// The envelope of a verdict: the body of a chat completion, read as strictly as the verdict line inside it. Whatever is
// odd is named and held back; what servers are known to write otherwise and can mean one thing only is read.
import { z } from 'zod';
import { parseJson } from '../../base/json.js';
import { oneLine } from '../sentence.js';
import { type JudgeAnswer, JudgeFailure, type UnjudgedCause } from '../types.js';
import type { Reply } from './http.js';

const Part = z.looseObject({ type: z.string(), text: z.string().optional(), thinking: z.unknown().optional() });
// Other fields are ignored. Reasoning comes under three names, by server; it is kept for reviewers and never read as a
// verdict.
const Completion = z.looseObject({
  object: z.string().nullish(),
  model: z.string().nullish(),
  system_fingerprint: z.string().nullish(),
  choices: z.array(
    z.looseObject({
      index: z.number().nullish(),
      finish_reason: z.string().nullable(),
      error: z.unknown().optional(),
      message: z.looseObject({
        role: z.string(),
        content: z.union([z.string(), z.array(Part)]).nullish(),
        refusal: z.string().nullish(),
        tool_calls: z.array(z.unknown()).nullish(),
        function_call: z.unknown().optional(),
        reasoning: z.string().nullish(),
        reasoning_content: z.string().nullish(),
        thinking: z.string().nullish(),
      }),
    }),
  ),
});
type Content = z.infer<typeof Completion>['choices'][number]['message']['content'];

/** How servers call an end that the model chose itself; TGI says eos_token. */
const STOPPED = ['stop', 'eos_token'];

/** A `bad_response`, or another cause, about the judge called `who`. */
type Fail = (message: string, cause?: UnjudgedCause) => JudgeFailure;

/**
 * @param who how messages call the judge
 * @param asked name of the model that was asked for
 * @throws {JudgeFailure} anything but one completed answer of the assistant
 */
export function readCompletion(who: string, asked: string, reply: Reply): JudgeAnswer {
  const fail: Fail = (message, cause = 'bad_response') => new JudgeFailure(cause, `judge ${who}: ${message}`);
  const json = parseBody(reply, fail);
  const parsed = Completion.safeParse(json);
  const error = errorSentence(json);
  if (error !== null) throw fail(`status 200, but with an error in it: ${error}`);
  if (!parsed.success) {
    const at = parsed.error.issues[0]?.path.join('.') ?? '';
    throw fail(`status 200, but not a chat completion: ${at || 'the body'} is missing or of another type`);
  }
  const { object, model, choices, system_fingerprint: build } = parsed.data;
  const backend = [model, build]
    .filter((word) => typeof word === 'string' && word !== '')
    .map((w) => oneLine(w as string, 80));
  if (object !== undefined && object !== null && object !== 'chat.completion')
    throw fail(`the answer is a ${JSON.stringify(oneLine(object, 40))}, wanted a chat.completion`);
  const choice = choices[0];
  if (choices.length !== 1 || !choice) throw fail(`${choices.length} choices, wanted 1`);
  if (choice.error !== undefined && choice.error !== null)
    throw fail(`the choice holds an error: ${errorSentence({ error: choice.error }) ?? 'without words'}`);
  if ((choice.index ?? 0) !== 0) throw fail(`the only choice has index ${choice.index}, wanted 0`);
  const { message, finish_reason: finish } = choice;
  if (message.role !== 'assistant')
    throw fail(`the answer's role is ${JSON.stringify(oneLine(message.role, 40))}, wanted assistant`);
  if ((message.tool_calls?.length ?? 0) > 0 || (message.function_call !== undefined && message.function_call !== null))
    throw fail('called a tool instead of judging', 'off_contract');
  if (message.refusal) throw fail(`refused to judge: ${oneLine(message.refusal)}`, 'off_contract');
  const { text, thoughts } = readContent(message.content, fail);
  return {
    text,
    finish: finish !== null && STOPPED.includes(finish) ? 'stop' : finish === 'length' ? 'length' : 'other',
    ended: finish === null ? 'no reason given' : oneLine(finish, 40),
    rationale: [message.reasoning ?? message.reasoning_content ?? message.thinking ?? '', ...thoughts]
      .filter((t) => t !== '')
      .join('\n'),
    ...(backend.length === 0 ? {} : { backend: backend.join(' ') }),
    ...(typeof model !== 'string' || sameModel(asked, model)
      ? {}
      : {
          allowVoid: {
            cause: 'wrong_model',
            detail:
              `judge ${who}: ${JSON.stringify(oneLine(model, 80))} answered, ${JSON.stringify(oneLine(asked, 80))} ` +
              'was asked for; if it is the judge you mean, give that name as --judge-model',
          },
        }),
  };
}

/** The JSON of a body that is what its headers say. */
function parseBody({ headers, body }: Reply, fail: Fail): unknown {
  const [type = '', ...parameters] = (headers['content-type'] ?? '')
    .toLowerCase()
    .split(';')
    .map((p) => p.trim());
  if (body.length === 0) throw fail('status 200, but the body is empty');
  if (type !== 'application/json' && !/^application\/[a-z0-9.-]+\+json$/.test(type)) {
    const hint =
      type === 'text/html'
        ? ': a web page; is the base URL right, does it end in /v1?'
        : type === 'text/event-stream'
          ? ': a stream, though none was asked for'
          : '';
    throw fail(`content type ${oneLine(type, 60) || 'missing'}, wanted application/json${hint}`);
  }
  const charset = parameters
    .find((p) => p.startsWith('charset='))
    ?.slice(8)
    .replaceAll('"', '');
  if (charset !== undefined && charset !== 'utf-8' && charset !== 'utf8')
    throw fail(`the body is in ${oneLine(charset, 30)}, wanted utf-8`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    throw fail('the body is not valid UTF-8');
  }
  if (text.startsWith('\ufeff')) throw fail('the body begins with a byte order mark, which JSON does not have');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw fail(`status 200, but the body is not JSON: ${JSON.stringify(oneLine(text, 60))}`);
  }
  try {
    parseJson(text);
  } catch (cause) {
    throw fail(`the body cannot be relied on: ${oneLine((cause as Error).message, 100)}`);
  }
  return json;
}

/** The text of a message: a string, or parts of which one is text and the others are thoughts. */
function readContent(content: Content, fail: Fail): { readonly text: string; readonly thoughts: readonly string[] } {
  if (typeof content === 'string' || content === null || content === undefined)
    return { text: content ?? '', thoughts: [] };
  const isThought = (type: string): boolean => type === 'thinking' || type === 'reasoning';
  const strange = content.find((p) => p.type !== 'text' && !isThought(p.type));
  if (strange)
    throw fail(`a content part of type ${JSON.stringify(oneLine(strange.type, 40))}, wanted text`, 'off_contract');
  const texts = content.filter((p) => p.type === 'text');
  if (texts.length > 1) throw fail(`${texts.length} content parts of text, wanted 1`, 'off_contract');
  if (texts[0] && texts[0].text === undefined) throw fail('a content part of text without text', 'bad_response');
  return { text: texts[0]?.text ?? '', thoughts: content.filter((p) => isThought(p.type)).map(thought) };
}

/** Mistral writes thoughts as parts again. */
function thought(part: z.infer<typeof Part>): string {
  const inner = part.thinking ?? part.text ?? '';
  if (typeof inner === 'string') return inner;
  const texts = z.array(z.looseObject({ text: z.string() })).safeParse(inner).data ?? [];
  return texts.map((t) => t.text).join('\n');
}

/** The name itself, with or without its owner (`openai/…`), or with the day of its release after it. */
function sameModel(asked: string, answered: string): boolean {
  const bare = answered.replace(/-20\d\d-?\d\d-?\d\d$/, '');
  const owned = (long: string, short: string): boolean => !short.includes('/') && long.endsWith(`/${short}`);
  return [answered, bare].some((name) => name === asked || owned(name, asked) || owned(asked, name));
}

/** Worth another try: busy, or broken for the moment. */
export const passing = (status: number): boolean => status === 408 || status === 429 || (status >= 500 && status < 600);
/** The same in words, as OpenAI, Anthropic, Google, vLLM and LiteLLM write `code`, `type` or `status`, bare. */
const PASSING: ReadonlySet<string> = new Set([
  'apierror',
  'apiconnectionerror',
  'badgateway',
  'deadlineexceeded',
  'engineoverloaded',
  'gatewaytimeout',
  'internal',
  'internalerror',
  'internalservererror',
  'overloaded',
  'overloadederror',
  'ratelimit',
  'ratelimiterror',
  'ratelimitexceeded',
  'resourceexhausted',
  'servererror',
  'serviceunavailable',
  'serviceunavailableerror',
  'timeout',
  'timeouterror',
  'toomanyrequests',
  'unavailable',
]);
const ErrorObject = z.looseObject({
  code: z.union([z.string(), z.number()]).nullish(),
  type: z.string().nullish(),
  status: z.union([z.string(), z.number()]).nullish(),
});
const WithErrors = z.looseObject({
  error: ErrorObject.nullish().catch(null),
  choices: z
    .array(z.looseObject({ error: ErrorObject.nullish().catch(null) }))
    .nullish()
    .catch(null),
});
/**
 * Whether a body of status 200 holds an error that may pass by itself, as routers between a client and a model write
 * it. Nothing else of such a body counts.
 */
export function holdsPassingError({ body }: Reply): boolean {
  let json: unknown;
  try {
    json = JSON.parse(body.toString('utf8'));
  } catch {
    return false;
  }
  const { error, choices } = WithErrors.safeParse(json).data ?? {};
  return [error, ...(choices ?? []).map((c) => c.error)].some((e) =>
    [e?.code, e?.type, e?.status].some((said) => {
      const number = typeof said === 'number' ? said : /^[0-9]{3}$/.test(said ?? '') ? Number(said) : null;
      return number !== null
        ? passing(number)
        : PASSING.has((said as string | null | undefined)?.toLowerCase().replaceAll(/[^a-z]/g, '') ?? '');
    }),
  );
}

const Said = z.looseObject({ message: z.string() });
/**
 * What a server's body says went wrong, as one line; null where it says nothing. Forms: OpenAI `{error: {message}}`,
 * `{error: "…"}`, vLLM of old `{object: "error", message}`, FastAPI `{detail}`.
 */
export function errorSentence(json: unknown): string | null {
  if (typeof json !== 'object' || json === null) return null;
  const { error, detail, message, object } = json as Readonly<Record<string, unknown>>;
  const words = (value: unknown): string | null => {
    if (typeof value === 'string') return oneLine(value) || 'without words';
    const said = Said.safeParse(value).data?.message;
    if (said !== undefined) return oneLine(said) || 'without words';
    const first = Array.isArray(value) ? (value[0] as unknown) : undefined;
    const fastApi = z.looseObject({ msg: z.string() }).safeParse(first).data?.msg;
    return fastApi === undefined ? null : oneLine(fastApi);
  };
  if (error !== undefined && error !== null && error !== false) return words(error) ?? 'without words';
  if (object === 'error' || (!('choices' in json) && typeof message === 'string')) return words(message);
  return 'choices' in json ? null : words(detail);
}
