// Markup that is plain text in a row: to the model it is letters, and it would learn to write them.
import { DataError } from '../base/errors.js';
import { jsonText } from '../base/json.js';
import type { ChatMessage, ChatRow } from '../harmony/chat-row.js';
import type { FormatContext } from './format.js';

/** Control tokens, of harmony and of other templates. */
const TOKEN = /<\|[a-z_]{2,24}\|>|\[\/?INST\]|<(?:start|end)_of_turn>/;
/** What only a rendered conversation holds; a control token alone may be what a text speaks of. */
export const RENDERED = new RegExp(
  [
    String.raw`<\|message\|>`,
    String.raw`<\|channel\|>\s*(?:analysis|commentary|final)`,
    String.raw`<\|start\|>\s*(?:system|developer|user|assistant|tool|functions\.)`,
    String.raw`\S\s*<\|(?:return|call|end)\|>\s*$`,
  ].join('|'),
);
/** Reasoning inside the answer, as other models write it. */
const THINKING = /^\s*(?:<(?:think|thinking|reasoning|thought)>|\[THINK\])|<\/(?:think|thinking)>|\[\/THINK\]/i;

/** Says what to do about a text that is trained. @throws {DataError} markup */
function checkTrained(text: string, where: string, context: FormatContext): void {
  if (!text.includes('<') && !text.includes('[')) return;
  const found = RENDERED.exec(text) ?? THINKING.exec(text);
  if (found && context.markup === 'refuse') {
    const harmony = found[0].includes('<|');
    throw new DataError(
      'markup_in_text',
      `${where}: has ${harmony ? "harmony's" : 'reasoning'} markup ${JSON.stringify(found[0].trim())} as plain text, ` +
        `which would be trained letter by letter; ${
          harmony
            ? 'give conversations that are rendered already as format harmony'
            : 'put the reasoning into "thinking"'
        }, or set ${context.settings.markup} to train the text as it is`,
    );
  }
  if (found || TOKEN.test(text)) context.note('markup_as_text');
}

const textsOf = (m: ChatMessage): readonly (readonly [string, string | null | undefined])[] => [
  ['content', typeof m.content === 'string' ? m.content : m.content?.map((p) => p.text ?? p.refusal ?? '').join('')],
  ['thinking', m.thinking],
  ['reasoning', m.reasoning],
  ['reasoning_content', m.reasoning_content],
  ['refusal', m.refusal],
  ...(m.tool_calls ?? []).map(
    ({ function: { arguments: a } }, i) => [`tool_calls[${i}]`, typeof a === 'string' ? a : jsonText(a)] as const,
  ),
];

/** @throws {DataError} markup_in_text: in what an assistant is trained to write */
export function checkMarkup(row: ChatRow, context: FormatContext): void {
  for (const [i, m] of row.messages.entries())
    for (const [field, text] of textsOf(m)) {
      if (typeof text !== 'string') continue;
      if (m.role === 'assistant' && m.weight !== 0) checkTrained(text, `messages[${i}].${field}`, context);
      else if (TOKEN.test(text)) context.note('markup_as_text');
    }
}

/** The same of a row of plain text. */
export function checkPlainText(text: string, context: FormatContext, field = 'text'): void {
  checkTrained(text, field, context);
}
