// What is released of a turn in Anthropic's shape. A call is told when it is whole, so that its input is always JSON.
import { sha256 } from '../base/digest.js';
import { exactText, parseJson } from '../base/json.js';
import type { DoneEvent } from '../infer/protocol.js';
import { depthOf, MAX_DEPTH } from './body.js';
import type { Answer, Released } from './generation.js';
import { JsonBytes } from './json-pieces.js';
import type { PartHead } from './parts.js';

type Body = Record<string, unknown>;
export type MessagesEvent = Body & { readonly type: string };

const STOP_REASONS = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'refusal',
} as const;
/** Tokens that were read from the cache are counted by themselves here. */
const deltaUsageOf = (usage: DoneEvent['usage'] | null): Body => ({
  input_tokens: (usage?.promptTokens ?? 0) - (usage?.cachedTokens ?? 0),
  output_tokens: usage?.completionTokens ?? 0,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: usage?.cachedTokens ?? 0,
  output_tokens_details: usage ? { thinking_tokens: usage.reasoningTokens } : null,
  server_tool_use: null,
});
const usageOf = (usage: DoneEvent['usage'] | null): Body => ({
  ...deltaUsageOf(usage),
  cache_creation: null,
  inference_geo: null,
  service_tier: 'standard',
  speed: null,
});

/**
 * A call's input as JSON: an object, its numbers as they were written. What a model wrote and is none is told as it is,
 * under a name that no tool declares.
 */
export function inputOf(text: string): string {
  if (text.trim() === '') return '{}';
  if (depthOf(text) <= MAX_DEPTH)
    try {
      const input = compactOf(text);
      if (input.startsWith('{')) return input;
    } catch {
      // no JSON
    }
  return JSON.stringify({ invalid_json: text });
}
/** @throws {SyntaxError} no JSON */
function compactOf(text: string): string {
  try {
    return exactText(parseJson(text));
  } catch {
    return JSON.stringify(JSON.parse(text)); // a key twice: the last counts
  }
}

interface Open {
  readonly part: PartHead;
  text: string;
}

export class MessageWriter {
  readonly #content: Body[] = [];
  #open: Open | null = null;
  #end: Body = { stop_reason: null, stop_sequence: null, stop_details: null, usage: usageOf(null) };

  constructor(
    readonly id: string,
    readonly model: string,
    /** Thoughts were asked for. */
    readonly thinking: boolean,
  ) {}

  get message(): Body {
    const { id, model } = this;
    return {
      id,
      type: 'message',
      role: 'assistant',
      model,
      container: null,
      diagnostics: null,
      content: [...this.#content],
      ...this.#end,
    };
  }

  of(event: Released): readonly MessagesEvent[] {
    switch (event.kind) {
      case 'begin':
        return [{ type: 'message_start', message: this.message }];
      case 'sealed': {
        const closed = this.#close(false);
        return [...closed, ...this.#block({ type: 'redacted_thinking', data: event.text }, [])];
      }
      case 'piece':
        if (event.part.kind === 'reasoning' && !this.thinking) return [];
        return this.#piece(event.part, event.text);
      case 'end':
        return this.#last(event.answer);
    }
  }

  /** Forgets what was released so far, where nothing of it was sent. */
  clear(): void {
    this.#open = null;
    this.#content.length = 0;
  }

  #piece(part: PartHead, text: string): readonly MessagesEvent[] {
    const events: MessagesEvent[] = [];
    if (this.#open?.part.index !== part.index) {
      events.push(...this.#close(false));
      this.#open = { part, text: '' };
      if (part.kind !== 'call') {
        const content_block =
          part.kind === 'reasoning'
            ? { type: 'thinking', thinking: '', signature: '' }
            : { type: 'text', text: '', citations: null };
        events.push({ type: 'content_block_start', index: this.#content.length, content_block });
      }
    }
    const open = this.#open as Open;
    open.text += text;
    if (part.kind === 'call' || text === '') return events;
    const delta = part.kind === 'reasoning' ? { type: 'thinking_delta', thinking: text } : { type: 'text_delta', text };
    return [...events, { type: 'content_block_delta', index: this.#content.length, delta }];
  }
  /** @param cut the turn ended in it: a call is then none */
  #close(cut: boolean): readonly MessagesEvent[] {
    const open = this.#open;
    this.#open = null;
    if (!open) return [];
    const { part, text } = open;
    const index = this.#content.length;
    const stop: MessagesEvent = { type: 'content_block_stop', index };
    if (part.kind === 'content') {
      this.#content.push({ type: 'text', text, citations: null });
      return [stop];
    }
    if (part.kind === 'reasoning') {
      // Nothing is proven by it; clients want one to hand it back.
      const signature = sha256(text);
      this.#content.push({ type: 'thinking', thinking: text, signature });
      return [{ type: 'content_block_delta', index, delta: { type: 'signature_delta', signature } }, stop];
    }
    if (cut) return [];
    const input = inputOf(text);
    const id = `toolu_${this.id.slice('msg_'.length)}${part.index}`;
    const block = { type: 'tool_use', id, name: part.name, input: new JsonBytes([Buffer.from(input)]) };
    return this.#block({ ...block, caller: { type: 'direct' } }, [{ type: 'input_json_delta', partial_json: input }]);
  }
  /** A block that is whole when it begins. */
  #block(block: Body, deltas: readonly Body[]): readonly MessagesEvent[] {
    const index = this.#content.length;
    this.#content.push(block);
    const content_block = block.type === 'tool_use' ? { ...block, input: {} } : block;
    return [
      { type: 'content_block_start', index, content_block },
      ...deltas.map((delta) => ({ type: 'content_block_delta', index, delta })),
      { type: 'content_block_stop', index },
    ];
  }
  #last({ finish, refusal, usage, screening, stop }: Answer): readonly MessagesEvent[] {
    const events = [...this.#close(finish === 'length')];
    const end = {
      stop_reason: stop !== null && refusal === null ? 'stop_sequence' : STOP_REASONS[finish],
      stop_sequence: refusal === null ? stop : null,
      stop_details: refusal === null ? null : { type: 'refusal', category: null, explanation: refusal },
    };
    const more = screening ? { temper: screening } : {};
    this.#end = { ...end, usage: usageOf(usage), ...more };
    return [
      ...events,
      { type: 'message_delta', delta: { ...end, container: null }, usage: deltaUsageOf(usage), ...more },
      { type: 'message_stop' },
    ];
  }
}
