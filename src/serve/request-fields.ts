// What bodies of all APIs have in common: fields that are refused by name, fields that change nothing, sampling.
import { z } from 'zod';
import type { Effort } from '../harmony/types.js';
import { type GenerateRequest, MAX_STOPS, MAX_TOP_LOGPROBS } from '../infer/protocol.js';
import type { Sampling } from '../infer/sequence.js';
import { badRequest } from './api-error.js';
import { randomSeed } from './generation.js';

export const flag = z.boolean().nullish();
const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v);
/** Keeps its identity, so that numbers are told as they were written. */
export const jsonObject = z.custom<Record<string, unknown>>(isObject, { error: 'wanted an object' });
/** What an answer that is kept is labelled with. */
export const metadataField = z
  .record(z.string().max(64), z.string().max(512))
  .refine((m) => Object.keys(m).length <= 16, { error: 'at most 16 pairs' });
/** Sampling as all APIs name it; each takes of it what its own has. */
export const samplingFields = {
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish().describe('0: the most probable token alone'),
  top_k: z.int().min(0).nullish(),
  min_p: z.number().min(0).lt(1).nullish(),
  seed: z.number().refine(Number.isInteger, 'wanted an integer').meta({ type: 'integer' }).nullish(),
};
/** A smallest set of this mass is one token. */
const LEAST_MASS = 1e-9;
type SamplingFields = {
  readonly [K in keyof typeof samplingFields]?: number | null | undefined;
};
export const samplingOf = ({ temperature, top_p, top_k, min_p, seed }: SamplingFields): Partial<Sampling> => ({
  temperature: temperature ?? 1,
  topP: Math.max(LEAST_MASS, top_p ?? 1),
  topK: top_k ?? 0,
  minP: min_p ?? 0,
  // Any integer is a seed to the API; here it is one of 53 bits.
  seed: seed === null || seed === undefined ? randomSeed() : Math.abs(seed) % 2 ** 53,
});

/** Clients have more words for it than harmony: there is nothing below low and nothing above high. */
const EFFORTS = { none: 'low', minimal: 'low', low: 'low', medium: 'medium', high: 'high', xhigh: 'high' } as const;
export const effortField = z
  .enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh'])
  .nullish()
  .describe('none and minimal are low, xhigh is high; default medium');
export const effortOf = (effort: z.infer<typeof effortField>): Effort => EFFORTS[effort ?? 'medium'];

const MOST_BIASES = 1024;
const penalty = z.number().min(-2).max(2).nullish();
/** What decides beside the sampling, and what ends an answer before the model does. */
export const steeringFields = {
  stop: z
    .union([z.string(), z.array(z.string()).max(MAX_STOPS)])
    .nullish()
    .describe('texts before which the answer ends'),
  logit_bias: z
    .record(z.string().regex(/^\d{1,7}$/, 'wanted tokens'), z.number().min(-100).max(100))
    .refine((bias) => Object.keys(bias).length <= MOST_BIASES, `wanted at most ${MOST_BIASES} tokens`)
    .nullish()
    .describe('added to the logits of tokens'),
  presence_penalty: penalty,
  frequency_penalty: penalty,
  logprobs: flag,
  top_logprobs: z.int().min(0).max(MAX_TOP_LOGPROBS).nullish(),
  repetition_stop: z
    .int()
    .min(2)
    .max(1000)
    .nullish()
    .describe('ends when the last tokens are one block so many times in a row'),
};
type SteeringFields = { readonly [K in keyof typeof steeringFields]?: z.infer<(typeof steeringFields)[K]> };
/** @throws {ApiError} 400 invalid_value */
export function steeringOf(body: SteeringFields): Partial<GenerateRequest> {
  const { stop, logit_bias, presence_penalty, frequency_penalty, logprobs, top_logprobs, repetition_stop } = body;
  const stops = (typeof stop === 'string' ? [stop] : (stop ?? [])).filter((s) => s !== '');
  if (top_logprobs && !logprobs) throw badRequest('invalid_value', 'top_logprobs: wanted logprobs too', 'top_logprobs');
  const bias = Object.entries(logit_bias ?? {}).map(([token, by]) => [Number(token), by] as const);
  return {
    ...(stops.length > 0 ? { stop: stops } : {}),
    ...(bias.length > 0 ? { logitBias: new Map(bias) } : {}),
    ...(presence_penalty ? { presencePenalty: presence_penalty } : {}),
    ...(frequency_penalty ? { frequencyPenalty: frequency_penalty } : {}),
    ...(logprobs ? { topLogprobs: top_logprobs ?? 0 } : {}),
    ...(repetition_stop ? { repetitionStop: repetition_stop } : {}),
  };
}

export interface Unsupported {
  /** Fields that ask for what is not built, with the values by which they ask for nothing. */
  readonly nothing: Readonly<Record<string, readonly unknown[]>>;
  /** Fields that say who asks, or how it is to be paid: they change nothing. */
  readonly readPast: readonly string[];
}
/** The first thing that is wrong is told: a list of nothing else is not read to its end. */
const FIRST: z.core.ParseContextInternal<z.core.$ZodIssue> = { abortEarly: true };
/**
 * A body by its schema, without what changes nothing.
 * @throws {ApiError} 400 invalid_json · unsupported_parameter, unknown_parameter, invalid_value: names the field
 */
export function parseBody<T>(json: unknown, schema: z.ZodType<T>, { nothing, readPast }: Unsupported): T {
  if (!isObject(json)) throw badRequest('invalid_json', 'the body is no JSON object');
  const left = new Set<string>();
  for (const name of Object.keys(json)) {
    const past = readPast.includes(name);
    if (!past && !Object.hasOwn(nothing, name)) continue;
    const value = json[name];
    if (!past && value !== null && !nothing[name]?.some((v) => JSON.stringify(v) === JSON.stringify(value)))
      throw badRequest('unsupported_parameter', `${name}: this server does not do that yet; leave it out`, name);
    left.add(name);
  }
  const rest = left.size === 0 ? json : Object.fromEntries(Object.entries(json).filter(([name]) => !left.has(name)));
  const parsed = schema.safeParse(rest, FIRST);
  if (parsed.success) return parsed.data;
  throw issueError(parsed.error, json);
}

/** A kind of something that is none of those that are known, as `image`. */
function kindAt(json: unknown, path: readonly PropertyKey[]): string {
  if (path.at(-1) !== 'type') return '';
  const kind = path.reduce<unknown>((v, key) => (v as Record<PropertyKey, unknown> | null | undefined)?.[key], json);
  return typeof kind === 'string' ? `; got ${JSON.stringify(kind.slice(0, 100))}` : '';
}
const saidOf = (issue: z.core.$ZodIssue | undefined): string =>
  (issue?.message ?? 'Invalid input')
    .replace(/^Invalid input: expected (.+), received undefined$/, 'it is not there; wanted $1')
    .replace(/^Invalid input: expected /, 'wanted ');

/** The first thing that is wrong, of the reading that came furthest. */
function issueError(error: z.ZodError, json: unknown): Error {
  let [issue] = error.issues;
  const path: PropertyKey[] = [];
  while (issue?.code === 'invalid_union' && issue.errors.length > 0) {
    path.push(...issue.path);
    const chosen = issue.errors.filter((e) => !e.some((i) => i.path.length === 1 && i.path[0] === 'type'));
    // Of several forms of a value: the one that its own `type` chose, then the one that was read furthest.
    const read = ([first]: readonly z.core.$ZodIssue[]): number =>
      2 * (first?.path.length ?? 0) + (first?.code === 'invalid_type' ? 0 : 1);
    const [fitting] = (chosen.length > 0 ? chosen : issue.errors).toSorted((a, b) => read(b) - read(a));
    const [inner] = fitting ?? [];
    if (!inner) break;
    issue = inner;
  }
  const unknown = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const keys = [...path, ...(issue?.path ?? []), ...(unknown === undefined ? [] : [unknown])],
    where = keys.map(String).join('.');
  return badRequest(
    unknown === undefined ? 'invalid_value' : 'unknown_parameter',
    `${where}: ${unknown === undefined ? saidOf(issue) + kindAt(json, keys) : 'not known'}`,
    where,
  );
}

/** Parameters of a URL, all of them strings. @throws {ApiError} 400 unknown_parameter, invalid_value */
export function parseQuery<T extends z.ZodRawShape>(
  given: Readonly<Record<string, string>>,
  fields: T,
): z.infer<z.ZodObject<T>> {
  const parsed = z.strictObject(fields).safeParse(given);
  if (parsed.success) return parsed.data as z.infer<z.ZodObject<T>>;
  throw issueError(parsed.error, given);
}
