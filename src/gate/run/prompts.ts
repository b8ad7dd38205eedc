// The prompt files of a suite: JSON lines, each a prompt, a conversation, several turns or a text to judge, with what
// the scorer of the test expects of it.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import { inputPieces } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';
import { toConversation } from '../../harmony/chat.js';
import { chatRow } from '../../harmony/chat-row.js';
import type { Effort, Message } from '../../harmony/types.js';
import type { Prompt, Scorer } from '../scorers/scorer.js';

const { messages, tools } = chatRow.shape;
/** Fields beside these are the suite's own: what its metrics slice by, or count only some rows of. */
const own = z.union([z.string().max(256), z.number(), z.boolean()]);
const fixed = {
  id: z.string().min(1).max(200).describe('unique in its file'),
  family: z.string().min(1).max(200).describe('prompts that are not independent are one cluster').optional(),
  system: z.string().min(1).describe('instructions, sent as the developer message').optional(),
  prompt: z.string().min(1).describe('what the user says').optional(),
  turns: z.array(z.string().min(1)).min(1).max(32).describe('what the user says, one after another').optional(),
  messages: messages.optional().describe('a conversation, as rows of chat have it'),
  tools: tools.optional(),
  effort: z.enum(['low', 'medium', 'high']).optional(),
  text: z.string().min(1).describe('a text, in place of a prompt').optional(),
  expect: z.unknown().describe('what the scorer reads').optional(),
};
export const promptRow = z.object(fixed).catchall(own);
export type PromptRow = z.infer<typeof promptRow>;

const KINDS = ['prompt', 'turns', 'messages', 'text'] as const;

/** Of the fields that mean something here, those that are also worth slicing by. */
const SLICED: readonly string[] = ['family', 'effort'];

/** @throws {DataError} what toConversation refuses */
function readPrompt(row: PromptRow, effort: Effort, expect: unknown): Prompt {
  const { id, family = null, system, prompt, turns, text = null } = row;
  const fields = Object.fromEntries(
    Object.entries(row).filter(([key]) => !Object.hasOwn(fixed, key) || SLICED.includes(key)),
  ) as Prompt['fields'];
  const base = { id, family, fields, expect, text };
  if (text !== null) return { ...base, opening: [], turns: [] };
  const conversationOf = (said: NonNullable<PromptRow['messages']>): readonly Message[] =>
    toConversation({
      messages: said,
      reasoning_effort: row.effort ?? effort,
      ...(row.tools ? { tools: row.tools } : {}),
    }).messages;
  const instructions = system === undefined ? [] : [{ role: 'developer', content: system }];
  if (row.messages) return { ...base, opening: conversationOf([...instructions, ...row.messages]), turns: [] };
  // A conversation needs a message; the turns follow.
  const opening = conversationOf([...instructions, { role: 'user', content: '-' }]).slice(0, -1);
  return { ...base, opening, turns: turns ?? [prompt ?? ''] };
}

/** A pattern of a row is compiled when the file is read, not when half of the run is over. */
function badPattern(expect: unknown): string | null {
  const { sign, matches } = (expect ?? {}) as { sign?: unknown; matches?: unknown };
  for (const pattern of [sign, matches]) {
    if (typeof pattern !== 'string') continue;
    try {
      new RegExp(pattern, 'u');
    } catch (e) {
      return (e as Error).message;
    }
  }
  return null;
}

/**
 * @param effort of prompts that do not say it
 * @throws {DataError} row_json, row_schema, no_rows, and what reading refuses
 */
export async function readPrompts(file: string, scorer: Scorer, effort: Effort): Promise<readonly Prompt[]> {
  const pieces: Buffer[] = [];
  for await (const piece of inputPieces(file)) pieces.push(piece);
  const prompts: Prompt[] = [];
  const seen = new Map<string, number>();
  for (const [i, source] of Buffer.concat(pieces).toString('utf8').split('\n').entries()) {
    if (source.trim() === '') continue;
    const line = i + 1;
    const bad = (code: 'row_json' | 'row_schema', why: string): DataError =>
      new DataError(code, `${file}:${line}: ${why}; docs/gate.md says what a prompt is`, { file, line });
    let json: unknown;
    try {
      json = parseJson(source);
    } catch (e) {
      throw bad('row_json', `not JSON (${(e as Error).message})`);
    }
    const parsed = promptRow.safeParse(json);
    if (!parsed.success) throw bad('row_schema', issueText(parsed.error, ''));
    const given = KINDS.filter((kind) => parsed.data[kind] !== undefined);
    if (given.length !== 1)
      throw bad('row_schema', `has ${given.join(' and ') || 'none of them'}, wanted one of ${KINDS.join(', ')}`);
    const expect = scorer.expect.safeParse(parsed.data.expect);
    if (!expect.success) throw bad('row_schema', `scorer ${scorer.name}: ${issueText(expect.error, 'expect')}`);
    const pattern = badPattern(expect.data);
    if (pattern !== null) throw bad('row_schema', `expect: ${pattern}`);
    let prompt: Prompt;
    try {
      prompt = readPrompt(parsed.data, effort, expect.data);
    } catch (e) {
      if (e instanceof DataError) throw bad('row_schema', e.message);
      throw e;
    }
    const before = seen.get(prompt.id);
    if (before !== undefined) throw bad('row_schema', `id ${JSON.stringify(prompt.id)} is that of line ${before}`);
    seen.set(prompt.id, line);
    prompts.push(prompt);
  }
  if (prompts.length === 0)
    throw new DataError('no_rows', `${file}: no prompts; wanted one JSON object a line`, { file });
  return prompts;
}
const issueText = ({ issues: [issue] }: z.ZodError, at: string): string => {
  const path = [...(at === '' ? [] : [at]), ...(issue?.path ?? [])].join('.');
  return `${path === '' ? '' : `${path}: `}${issue?.message ?? 'bad row'}`;
};
