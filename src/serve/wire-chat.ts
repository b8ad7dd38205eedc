// What /v1/chat/completions answers.
import { z } from 'zod';
import { finish, own, ownOfMany, TokenShape, UsageShape } from './wire-shared.js';

const reasoning = { reasoning: z.string().optional(), reasoning_content: z.string().optional() };
const head = { id: z.string(), created: z.int(), model: z.string() };
const logprobs = z.object({ content: z.array(TokenShape), refusal: z.null() }).nullable();
const call = z.object({
  id: z.string(),
  type: z.literal('function'),
  function: z.object({ name: z.string(), arguments: z.string() }),
});

export const ChatShape = z
  .object({
    ...head,
    object: z.literal('chat.completion'),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({
          role: z.literal('assistant'),
          content: z.string().nullable(),
          refusal: z.string().nullable(),
          tool_calls: z.array(call).optional(),
          ...reasoning,
        }),
        logprobs,
        finish_reason: finish,
      }),
    ),
    usage: UsageShape,
    ...ownOfMany,
  })
  .meta({ id: 'ChatCompletion' });

const labelled = { metadata: z.record(z.string(), z.string()) };
export const StoredChatShape = ChatShape.extend(labelled).meta({ id: 'StoredChatCompletion' });
const page = { first_id: z.string().nullable(), last_id: z.string().nullable(), has_more: z.boolean() };
export const StoredChatsShape = z
  .object({ object: z.literal('list'), data: z.array(StoredChatShape), ...page })
  .meta({ id: 'StoredChatCompletions' });
export const StoredMessagesShape = z
  .object({
    object: z.literal('list'),
    data: z.array(
      z.looseObject({
        id: z.string(),
        role: z.string(),
        content: z.string().nullable(),
        refusal: z.string().nullable(),
        name: z.string().nullable(),
        content_parts: z.array(z.looseObject({ type: z.string() })).nullable(),
      }),
    ),
    ...page,
  })
  .meta({ id: 'StoredChatMessages' });
export const ChatDeletedShape = z
  .object({ id: z.string(), object: z.literal('chat.completion.deleted'), deleted: z.literal(true) })
  .meta({ id: 'ChatCompletionDeleted' });

export const ChatChunkShape = z
  .object({
    ...head,
    object: z.literal('chat.completion.chunk'),
    choices: z.array(
      z.object({
        index: z.int(),
        delta: z.object({
          role: z.literal('assistant').optional(),
          content: z.string().optional(),
          refusal: z.string().optional(),
          tool_calls: z
            .array(
              z.object({
                index: z.int(),
                id: z.string().optional(),
                type: z.literal('function').optional(),
                function: z.object({ name: z.string().optional(), arguments: z.string() }),
              }),
            )
            .optional(),
          ...reasoning,
        }),
        logprobs,
        finish_reason: finish.nullable(),
      }),
    ),
    usage: UsageShape.nullable().optional().describe('null in all chunks but the last, where it is asked for'),
    ...own,
  })
  .meta({ id: 'ChatCompletionChunk' });
