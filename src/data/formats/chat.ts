// Conversations in OpenAI's form, with thinking, tools and reasoning_effort per row; fields: chatRow in
// src/harmony/chat.ts.
import { type ChatRow, chatRow, toConversation } from '../../harmony/chat.js';
import { type Conversation, lossWeights, type Rendered, renderTraining } from '../../harmony/render.js';
import { CHANNELS } from '../example.js';
import type { Format, RowPrompt } from '../format.js';

export function channelPlaces(rendered: Rendered, conversation: Conversation): Uint8Array {
  return Uint8Array.from(rendered.tokens, (_, i) => {
    if (!rendered.trained[i]) return 0;
    const channel = conversation.messages[rendered.message[i] ?? -1]?.channel;
    // As lossWeights counts them: a message of no known channel is a final.
    return CHANNELS.indexOf(channel === 'analysis' || channel === 'commentary' ? channel : 'final');
  });
}

export const chat: Format<ChatRow> = {
  name: 'chat',
  row: chatRow,
  toExamples(row, context) {
    const conversation = toConversation(row);
    return renderTraining(conversation, context.tokenizer()).map((rendered) => ({
      tokens: rendered.tokens,
      weights: lossWeights(rendered, conversation, context.loss),
      channels: channelPlaces(rendered, conversation),
    }));
  },
  /** The last turn's answer. */
  toPrompts(row): readonly RowPrompt[] {
    const { messages } = toConversation(row);
    const answerFrom = messages.findLastIndex((m) => m.role !== 'assistant') + 1;
    const expected = messages.slice(answerFrom).findLast((m) => m.channel === 'final');
    if (!expected || answerFrom === 0) return [];
    return [{ messages: messages.slice(0, answerFrom), expected: expected.content }];
  },
};
