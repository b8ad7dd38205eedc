// Pairs of answers to one prompt, the better one and the worse one: {"prompt": …, "chosen": …, "rejected": …}, each
// text or messages as in `chat`; chosen and rejected may repeat the prompt. Without a prompt, it is the messages that
// both begin with. Only the answers are trained. Or, already tokenised: {"chosen": {"tokens": …, "weights": …},
// "rejected": …}, each as in `tokens`.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import { jsonText } from '../../base/json.js';
import { type ChatRow, chatRow, toConversation } from '../../harmony/chat.js';
import { type Conversation, type Renderable, trainingExamples } from '../../harmony/render.js';
import type { Format, FormatContext, RowExample } from '../format.js';
import { conversationOf, weightedRendering } from './chat.js';
import { type TokensRow, tokensExample, tokensRow } from './tokens.js';

const { messages, tools, reasoning_effort } = chatRow.shape;
const Text = z.union([z.string(), messages]);
const Side = z.union([z.string(), messages, tokensRow]);
const Row = z.strictObject({
  prompt: Text.optional().describe('text of a user, or messages as in `chat`; absent: what chosen and rejected share'),
  chosen: Side.describe('the better answer: text, messages as in `chat`, or tokens and weights as in `tokens`'),
  rejected: Side.describe('the worse answer, the same'),
  tools,
  reasoning_effort,
});
type Row = z.infer<typeof Row>;
type Messages = ChatRow['messages'];
const SIDES = ['chosen', 'rejected'] as const;
type Side = (typeof SIDES)[number];

const bad = (message: string): never => {
  throw new DataError('bad_preference', message);
};
const isTokens = (side: Row[Side]): side is TokensRow => typeof side === 'object' && !Array.isArray(side);
const same = (a: unknown, b: unknown): boolean => jsonText(a) === jsonText(b);

/** Messages that both lists begin with; at least one of each is left. */
function shared(a: Messages, b: Messages): number {
  const most = Math.min(a.length, b.length) - 1;
  let n = 0;
  while (n < most && same(a[n], b[n])) n++;
  return n;
}

/**
 * An answer is one assistant message, after calls of tools and what they gave: assistant, tool …, assistant, which ends
 * it.
 */
function requireAnswer(answer: Messages, side: Side): void {
  const fits = answer.every((m, i) => m.role === (i === 0 || answer[i - 1]?.role === 'tool' ? m.role : 'tool'));
  const roles = answer.map((m) => m.role);
  if (fits && roles[0] === 'assistant' && roles.at(-1) === 'assistant' && roles.every(isOfAnswer)) return;
  bad(
    `${side}: got ${roles.join(', ') || 'nothing'} after the prompt, wanted one assistant message, or calls of ` +
      'tools, their results and then one',
  );
}
const isOfAnswer = (role: string): boolean => role === 'assistant' || role === 'tool';

/** Prompt and both answers, as messages. */
function messagesOf(row: Row): { readonly prompt: Messages } & Readonly<Record<Side, Messages>> {
  const side = (name: Side): Messages => {
    const given = row[name];
    if (isTokens(given)) return bad(`${name} is tokens, the other one is not; give both as tokens, or neither`);
    return typeof given === 'string' ? [{ role: 'assistant', content: given }] : given;
  };
  const [chosen, rejected] = [side('chosen'), side('rejected')];
  if (row.prompt === undefined) {
    const n = shared(chosen, rejected);
    if (n === 0 && isOfAnswer(chosen[0]?.role ?? '') && isOfAnswer(rejected[0]?.role ?? ''))
      return bad('chosen: has no prompt; give "prompt", or the messages before the answer');
    if (n === 0) return bad('chosen and rejected differ before their answers: not one prompt');
    return { prompt: chosen.slice(0, n), chosen: chosen.slice(n), rejected: rejected.slice(n) };
  }
  const prompt: Messages = typeof row.prompt === 'string' ? [{ role: 'user', content: row.prompt }] : row.prompt;
  const own = (answer: Messages): Messages =>
    answer.length > prompt.length && same(answer.slice(0, prompt.length), prompt)
      ? answer.slice(prompt.length)
      : answer;
  return { prompt, chosen: own(chosen), rejected: own(rejected) };
}

/** Errors say which side they are about. */
function named<T>(side: Side, work: () => T): T {
  try {
    return work();
  } catch (e) {
    if (!(e instanceof DataError) || e.message.startsWith(side)) throw e;
    throw new DataError(e.code, `${side}: ${e.message}`, e.details, { cause: e });
  }
}

function tokenPair(row: Row): readonly [RowExample, RowExample] {
  for (const field of ['prompt', 'tools', 'reasoning_effort'] as const)
    if (row[field] !== undefined) bad(`${field}: is part of the tokens of chosen and rejected; leave it out`);
  const one = (side: Side): RowExample => {
    const given = row[side];
    if (!isTokens(given)) return bad(`${side} is no tokens, the other one is; give both as tokens, or neither`);
    const example = named(side, () => tokensExample(given));
    if (!example.weights.some((w, i) => i > 0 && w > 0))
      bad(`${side}: the answer is empty: no token after the first has a weight above 0`);
    return { ...example, part: side };
  };
  return [one('chosen'), one('rejected')];
}

/** One side as a conversation; its answer begins at that message. */
interface Told {
  readonly side: Side;
  readonly conversation: Conversation;
  readonly answerFrom: number;
}
/** @throws {DataError} bad_preference: not one prompt, no answer, nothing to prefer; and what is wrong with messages */
function toldSides(row: Row, context: FormatContext): readonly [Told, Told] {
  const { tools, reasoning_effort } = row;
  const { prompt, ...answers } = messagesOf(row);
  const part = (messages: Messages): ChatRow => ({ messages, tools, reasoning_effort });
  const told = SIDES.map((side): Told => {
    const answer = answers[side];
    requireAnswer(answer, side);
    return named(side, () => ({
      side,
      conversation: conversationOf(part([...prompt, ...answer]), context),
      answerFrom: toConversation(part(prompt)).messages.length,
    }));
  }) as [Told, Told];
  if (same(told[0].conversation.messages, told[1].conversation.messages))
    bad('chosen and rejected are the same: nothing to prefer');
  return told;
}

/** One side's example, and the tokens before its answer. */
interface Rendered {
  readonly example: RowExample;
  /** Of an example that is too long to be wanted whole: empty. */
  readonly prompt: Int32Array;
}
function rendered({ side, conversation, answerFrom }: Told, context: FormatContext): Rendered {
  let last: Renderable | undefined;
  for (const one of trainingExamples(conversation, context.tokenizer(), context.maxTokens)) last = one;
  const { example, begins } = last
    ? weightedRendering(last, conversation, context, answerFrom)
    : { example: null, begins: -1 };
  if (!example || (begins < 0 && example.tokens.length === example.length))
    return bad(`${side}: nothing of the answer is trained; is its weight 0?`);
  return { example: { ...example, part: side }, prompt: example.tokens.subarray(0, Math.max(0, begins)) };
}

const equal = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.prototype.every.call(a, (x: number, i: number) => x === b[i]);

/** Pairs of tokens that differ before the first one that is trained are told of: they may be meant. */
function toldTokens(row: Row, context: FormatContext): readonly RowExample[] {
  const [chosen, rejected] = tokenPair(row);
  if (equal(chosen.tokens, rejected.tokens) && equal(chosen.weights, rejected.weights))
    bad('chosen and rejected are the same: nothing to prefer');
  const before = ({ tokens, weights }: RowExample): Int32Array => {
    const first = weights.findIndex((w, i) => i > 0 && w > 0);
    return tokens.subarray(0, first);
  };
  const [a, b] = [before(chosen), before(rejected)];
  if (!equal(a.subarray(0, b.length), b.subarray(0, a.length))) context.note('pair_prompts_differ');
  return [chosen, rejected];
}
const holdsTokens = (row: Row): boolean => isTokens(row.chosen) || isTokens(row.rejected);

export const preference: Format<Row> = {
  name: 'preference',
  row: Row,
  examplesPerSample: 2,
  recognise: (r) => ('chosen' in r && 'rejected' in r ? 'chosen and rejected' : null),
  check(row, context) {
    if (holdsTokens(row)) toldTokens(row, context);
    else toldSides(row, context);
  },
  toExamples(row, context) {
    if (holdsTokens(row)) return toldTokens(row, context);
    const [chosen, rejected] = toldSides(row, context).map((told) =>
      named(told.side, () => rendered(told, context)),
    ) as [Rendered, Rendered];
    if (chosen.prompt.length > 0 && rejected.prompt.length > 0 && !equal(chosen.prompt, rejected.prompt))
      bad('chosen and rejected have other tokens before their answers: not one prompt once rendered');
    return [chosen.example, rejected.example];
  },
};
