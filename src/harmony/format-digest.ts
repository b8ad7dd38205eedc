// What the chat format is, as one digest: what its code makes of a conversation with everything in it. Another
// rendering of any part of it is another format, whatever version it came with.
import { sha256 } from '../base/digest.js';
import { type ChatRow, toConversation } from './chat.js';
import { renderConversation, renderPrompt } from './render.js';
import { REQUIRED_CONTROL_TOKENS } from './tokenizer-file.js';
import type { Tokenizer } from './types.js';

/** Bytes as tokens: what the format is does not depend on a vocabulary. */
const bytesAsTokens: Tokenizer = {
  vocabSize: 256 + REQUIRED_CONTROL_TOKENS.length,
  special: Object.fromEntries(REQUIRED_CONTROL_TOKENS.map((name, i) => [name, 256 + i])),
  encode: (text) => Int32Array.from(Buffer.from(text)),
  decode: () => '',
  bytes: (token) => Uint8Array.of(token),
  isSpecial: (token) => token >= 256,
  digest: '',
  close: () => {},
};
const PROBE: ChatRow = {
  reasoning_effort: 'high',
  tools: [
    {
      type: 'function',
      function: {
        name: 'look_up',
        description: 'Looks something up.',
        parameters: {
          type: 'object',
          properties: { what: { type: 'string' }, most: { type: 'integer', default: 3 } },
          required: ['what'],
        },
      },
    },
  ],
  messages: [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'One? <|end|>' },
    { role: 'assistant', reasoning_content: 'Thinking.', content: 'One.' },
    { role: 'user', content: 'Two?' },
    {
      role: 'assistant',
      reasoning_content: 'Looking.',
      tool_calls: [{ id: 'c1', type: 'function', function: { name: 'look_up', arguments: '{"what":"two"}' } }],
    },
    { role: 'tool', tool_call_id: 'c1', content: '{"found":2}' },
    { role: 'assistant', reasoning_content: 'Found.', content: 'Two.' },
  ],
};
let known: string | undefined;
/** sha256, hex. */
export function chatFormatDigest(): string {
  if (known !== undefined) return known;
  const conversation = toConversation(PROBE);
  const written = [renderConversation, renderPrompt].map((render) => render(conversation, bytesAsTokens).join(' '));
  known = sha256(written.join('\n'));
  return known;
}
