// What is released of a turn as the Responses API tells it: a response that grows, and an event for each thing that is
// added. A stream and its whole are made by the same writer.
import type { TokenInfo } from '../infer/protocol.js';
import { logprobsOf } from './chat-response.js';
import type { Answer, Released } from './generation.js';

import { copyOf } from './json-pieces.js';
import type { PartHead } from './parts.js';
import { isKept } from './release-gate.js';
import type { InputItem } from './responses-items.js';
import type { ResponsesRequest } from './responses-request.js';
import { seal } from './seal.js';

type Body = Record<string, unknown>;
export type ResponseEvent = Body & { readonly type: string; readonly sequence_number: number };

/** `resp_…`; items are named after it, so that a stream, its whole and what is stored agree. */
const itemId = (kind: 'msg' | 'rs' | 'fc' | 'call', response: string, index: number): string =>
  `${kind}_${response.slice('resp_'.length)}${String(index).padStart(4, '0')}`;

interface Open {
  readonly part: PartHead;
  readonly item: Body;
  text: string;
  /** Log-probabilities, where they are asked for. */
  readonly tokens: TokenInfo[];
}

export class ResponseWriter {
  readonly #output: Body[] = [];
  #open: Open | null = null;
  #sequence = 0;
  #state: Body;

  constructor(
    readonly id: string,
    readonly request: ResponsesRequest,
    readonly created: number = Math.floor(Date.now() / 1000),
  ) {
    const status = request.background ? 'queued' : 'in_progress';
    this.#state = { status, completed_at: null, error: null, incomplete_details: null, usage: null };
  }

  /** As it stands. */
  get response(): Body {
    const { body, store, previous, background, truncates, effort } = this.request;
    return {
      id: this.id,
      object: 'response',
      created_at: this.created,
      ...this.#state,
      background,
      instructions: body.instructions ?? null,
      max_output_tokens: body.max_output_tokens ?? null,
      metadata: body.metadata ?? {},
      model: body.model,
      output: copyOf(this.#output),
      parallel_tool_calls: body.parallel_tool_calls ?? true,
      previous_response_id: previous,
      reasoning: { effort, summary: null },
      service_tier: 'default',
      store,
      temperature: body.temperature ?? 1,
      text: { format: body.text?.format ?? { type: 'text' }, verbosity: 'medium' },
      tool_choice: body.tool_choice ?? 'auto',
      tools: (body.tools ?? []).map((t) => ({
        type: 'function',
        name: t.name,
        description: t.description ?? null,
        parameters: t.parameters ?? null,
        strict: t.strict ?? false,
      })),
      top_logprobs: body.top_logprobs ?? 0,
      top_p: body.top_p ?? 1,
      truncation: truncates ? 'auto' : 'disabled',
    };
  }

  #event(type: string, fields: Body): ResponseEvent {
    return { type, sequence_number: this.#sequence++, ...fields };
  }
  #whole(type: string): ResponseEvent {
    return this.#event(type, { response: this.response });
  }

  /** In the background: it waits. */
  queued(): readonly ResponseEvent[] {
    return [this.#whole('response.created'), this.#whole('response.queued')];
  }
  /** Events of what was released. `end` is told by `finish`, after it was stored. */
  of(event: Exclude<Released, { readonly kind: 'end' }>): readonly ResponseEvent[] {
    if (event.kind === 'begin') {
      const { background } = this.request;
      this.#state = { ...this.#state, status: 'in_progress' };
      return [...(background ? [] : [this.#whole('response.created')]), this.#whole('response.in_progress')];
    }
    const closed = this.#open?.part.index === event.part.index ? [] : this.#close('completed');
    if (event.kind === 'sealed') return [...closed, ...this.#sealed(event.part, event.text)];
    const opened = this.#open ? [] : this.#begin(event.part);
    return [...closed, ...opened, ...this.#delta(event.text, event.tokens)];
  }

  /** Forgets what was released so far, where nothing of it was sent. */
  clear(): void {
    this.#open = null;
    this.#output.length = 0;
  }

  /** The answer is there: what is open is closed, and the response says how it ended. */
  end({ finish, refusal, usage, screening }: Answer): readonly ResponseEvent[] {
    const cut = finish === 'length' || finish === 'content_filter';
    const events = [...this.#close(cut ? 'incomplete' : 'completed')];
    if (refusal !== null) events.push(...this.#refusal(refusal));
    this.#state = {
      status: cut ? 'incomplete' : 'completed',
      completed_at: cut ? null : Math.floor(Date.now() / 1000),
      error: null,
      incomplete_details: cut ? { reason: finish === 'length' ? 'max_output_tokens' : 'content_filter' } : null,
      usage: {
        input_tokens: usage.promptTokens,
        input_tokens_details: { cached_tokens: usage.cachedTokens, cache_write_tokens: 0 },
        output_tokens: usage.completionTokens,
        output_tokens_details: { reasoning_tokens: usage.reasoningTokens },
        total_tokens: usage.promptTokens + usage.completionTokens,
      },
      ...(screening ? { temper: screening } : {}),
    };
    return events;
  }
  /** The last event, after `end`. */
  last(): ResponseEvent {
    return this.#whole(`response.${String(this.#state.status)}`);
  }
  failed(message: string): ResponseEvent {
    this.#close('incomplete');
    this.#state = { ...this.#state, status: 'failed', error: { code: 'server_error', message } };
    return this.#whole('response.failed');
  }
  cancelled(): ResponseEvent {
    this.#close('incomplete');
    this.#state = { ...this.#state, status: 'cancelled' };
    return this.#whole('response.cancelled');
  }

  /** The items of an answer that a conversation keeps, thoughts among them: not to be sent. */
  kept({ kept, finish }: Answer): readonly InputItem[] {
    return kept.filter(isKept).flatMap((part): InputItem[] => {
      if (part.kind === 'reasoning')
        return [{ type: 'reasoning', content: [{ type: 'reasoning_text', text: part.text }] }];
      if (part.kind === 'content')
        return [{ type: 'message', role: 'assistant', content: part.text, phase: phaseOf(part) }];
      // Cut off, its arguments are none that anybody could have answered.
      return finish === 'length'
        ? []
        : [{ type: 'function_call', call_id: this.#callId(part), name: part.name, arguments: part.text }];
    });
  }
  #callId(part: PartHead): string {
    return itemId('call', this.id, part.index);
  }

  #add(item: Body): ResponseEvent {
    this.#output.push(item);
    return this.#event('response.output_item.added', {
      output_index: this.#output.length - 1,
      item: copyOf(item),
    });
  }
  get #at(): { readonly output_index: number; readonly item_id: unknown } {
    return { output_index: this.#output.length - 1, item_id: this.#output.at(-1)?.id };
  }
  #done(item: Body, status: string | null): ResponseEvent {
    if (status !== null) item.status = status;
    return this.#event('response.output_item.done', {
      output_index: this.#output.length - 1,
      item: copyOf(item),
    });
  }

  #begin(part: PartHead): readonly ResponseEvent[] {
    const { id } = this;
    const item: Body =
      part.kind === 'call'
        ? {
            id: itemId('fc', id, part.index),
            type: 'function_call',
            status: 'in_progress',
            arguments: '',
            call_id: this.#callId(part),
            name: part.name,
          }
        : part.kind === 'reasoning'
          ? { id: itemId('rs', id, part.index), type: 'reasoning', summary: [], content: [], status: 'in_progress' }
          : {
              id: itemId('msg', id, part.index),
              type: 'message',
              status: 'in_progress',
              role: 'assistant',
              content: [],
              phase: phaseOf(part),
            };
    const added = this.#add(item);
    this.#open = { part, item, text: '', tokens: [] };
    if (part.kind === 'call') return [added];
    return [
      added,
      this.#event('response.content_part.added', { ...this.#at, content_index: 0, part: partOf(part, '') }),
    ];
  }
  #delta(delta: string, tokens: readonly TokenInfo[] = []): readonly ResponseEvent[] {
    const open = this.#open;
    if (!open) return [];
    open.tokens.push(...tokens);
    if (delta === '' && tokens.length === 0) return [];
    open.text += delta;
    if (open.part.kind === 'call')
      return [this.#event('response.function_call_arguments.delta', { ...this.#at, delta })];
    if (open.part.kind === 'reasoning')
      return [this.#event('response.reasoning_text.delta', { ...this.#at, content_index: 0, delta })];
    return [
      this.#event('response.output_text.delta', {
        ...this.#at,
        content_index: 0,
        delta,
        logprobs: logprobsOf(tokens),
      }),
    ];
  }
  #close(status: 'completed' | 'incomplete'): readonly ResponseEvent[] {
    const open = this.#open;
    if (!open) return [];
    this.#open = null;
    const { part, item, text } = open,
      logprobs = logprobsOf(open.tokens);
    if (part.kind === 'call') {
      item.arguments = text;
      const fields = { ...this.#at, name: part.name, arguments: text };
      return [this.#event('response.function_call_arguments.done', fields), this.#done(item, status)];
    }
    const whole = partOf(part, text, logprobs);
    item.content = [whole];
    // Shown or not: who asks for it hands it back.
    if (part.kind === 'reasoning' && this.request.body.include?.includes('reasoning.encrypted_content'))
      item.encrypted_content = seal(text);
    const said =
      part.kind === 'reasoning'
        ? this.#event('response.reasoning_text.done', { ...this.#at, content_index: 0, text })
        : this.#event('response.output_text.done', { ...this.#at, content_index: 0, text, logprobs });
    const over = this.#event('response.content_part.done', { ...this.#at, content_index: 0, part: whole });
    return [said, over, this.#done(item, status)];
  }
  #sealed(part: PartHead, text: string): readonly ResponseEvent[] {
    const id = itemId('rs', this.id, part.index);
    const item = { id, type: 'reasoning', summary: [], encrypted_content: text };
    return [this.#add(item), this.#done(item, null)];
  }
  #refusal(refusal: string): readonly ResponseEvent[] {
    const id = itemId('msg', this.id, this.#output.length);
    const item: Body = { id, type: 'message', status: 'in_progress', role: 'assistant', content: [] };
    const part = { type: 'refusal', refusal };
    const added = this.#add(item);
    const at = { ...this.#at, content_index: 0 };
    const events = [
      added,
      this.#event('response.content_part.added', { ...at, part: { type: 'refusal', refusal: '' } }),
      this.#event('response.refusal.delta', { ...at, delta: refusal }),
      this.#event('response.refusal.done', { ...at, refusal }),
      this.#event('response.content_part.done', { ...at, part }),
    ];
    item.content = [part];
    return [...events, this.#done(item, 'completed')];
  }
}

const phaseOf = (part: PartHead): 'commentary' | 'final_answer' =>
  part.channel === 'commentary' ? 'commentary' : 'final_answer';
const partOf = (part: PartHead, text: string, logprobs: unknown = []): Body =>
  part.kind === 'reasoning'
    ? { type: 'reasoning_text', text }
    : { type: 'output_text', text, annotations: [], logprobs };
