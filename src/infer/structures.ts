// Schemas of answers and of calls' arguments, as a request asks for them: compiled, remembered and checked in a thread
// of their own, which is started when the first request asks. Those that take long have another one, so that they hold
// up each other alone.
import { type Channel, LEAST_YOUNG_MIB, openChannel } from '../base/channel.js';
import type { Message } from '../harmony/types.js';
import { isAnswer } from './content.js';
import { isLate } from './grammar/deadline.js';
import type { Grammar } from './grammar/grammar.js';
import type { Structure } from './grammar/turn.js';
import type { Vocabulary } from './grammar/vocabulary.js';

/** What a turn is asked to be. */
export interface TurnWish {
  /** JSON schema that the answer keeps to; absent: any text is an answer. */
  readonly answer?: unknown;
  /** Tools that may be called, as `functions.get_weather`. Arguments of strict ones keep to their schema, always. */
  readonly calls: readonly { readonly recipient: string; readonly schema?: unknown; readonly strict: boolean }[];
  /** The turn ends with a call. */
  readonly mustCall: boolean;
}
export interface Prepared {
  readonly structure: Structure;
  /** What the grammar alone does not keep to, with places: nothing may leave before the check. Empty: nothing. */
  readonly checked: readonly string[];
  /** @returns what of a whole turn breaks its schema; null: nothing does */
  check(messages: readonly Message[], signal?: AbortSignal): Promise<string | null>;
}
export interface Structures {
  /** @throws {ConfigError} schema_unsupported, schema_invalid: names the keyword and its place */
  prepare(wish: TurnWish, signal?: AbortSignal): Promise<Prepared>;
  close(): Promise<void>;
}

/** What the thread answers. */
export type StructureCalls = {
  readonly vocabulary: { readonly request: null; readonly event: never; readonly result: Vocabulary };
  /** Of a schema, as JSON. */
  readonly compile: { readonly request: string; readonly event: never; readonly result: Grammar };
  readonly check: {
    readonly request: { readonly schema: string; readonly text: string };
    readonly event: never;
    readonly result: string | null;
  };
};
export interface StructureOptions {
  /** Checkpoint folder: its tokenizer is read. */
  readonly model: string;
  readonly vocabSize: number;
}

/** How long compiling a schema may hold up those that come after it, ms; and how long it may take at all. */
const QUICK_MS = 500,
  MOST_MS = 10_000;
/** Longer ones, UTF-16 units, may take that whatever is in them. */
const QUICK_TEXT = 1 << 16;
/** What a thread is opened with. */
export interface LaneOptions extends StructureOptions {
  readonly mostMs: number;
}

/** A thread that the first call starts; one that could not be opened, or ended, is started again by the next. */
class Lane {
  #opened: Promise<Channel<StructureCalls, null>> | null = null;
  #closed = false;

  constructor(readonly options: LaneOptions) {}

  #channel(): Promise<Channel<StructureCalls, null>> {
    if (!this.#opened) {
      this.#opened = openChannel<StructureCalls, null>('infer/structures-worker.js', this.options, {
        name: 'structures',
        youngMiB: LEAST_YOUNG_MIB,
      });
      this.#opened.catch(() => {
        this.#opened = null;
      });
    }
    return this.#opened;
  }
  async call<K extends keyof StructureCalls>(
    name: K,
    request: StructureCalls[K]['request'],
    signal?: AbortSignal,
  ): Promise<StructureCalls[K]['result']> {
    try {
      return await (await this.#channel()).call(name, request, { signal });
    } catch (e) {
      if ((e as { readonly code?: unknown }).code === 'worker_exit' && !this.#closed) this.#opened = null;
      throw e;
    }
  }
  async close(): Promise<void> {
    this.#closed = true;
    await (await this.#opened?.catch(() => null))?.close();
  }
}

/** A grammar, and the thread that has its schema. */
interface Compiled {
  readonly grammar: Grammar;
  readonly lane: Lane;
}
const ANY_OBJECT = { type: 'object' };

/**
 * A thread is started at the first `prepare`, and another at the first schema that takes long.
 * @param quickMs how long one may hold up those that come after it
 */
export function openStructures(options: StructureOptions, quickMs = QUICK_MS): Structures {
  const quick = new Lane({ ...options, mostMs: quickMs }),
    slow = new Lane({ ...options, mostMs: MOST_MS });
  let vocabulary: Promise<Vocabulary> | null = null;
  const compile = async (schema: unknown, signal?: AbortSignal): Promise<Compiled> => {
    const text = JSON.stringify(schema);
    if (text.length <= QUICK_TEXT)
      try {
        return { lane: quick, grammar: await quick.call('compile', text, signal) };
      } catch (e) {
        if (!isLate(e)) throw e;
      }
    return { lane: slow, grammar: await slow.call('compile', text, signal) };
  };
  return {
    async prepare({ answer, calls, mustCall }, signal) {
      let anyObject: Compiled | undefined;
      const final = answer === undefined ? null : await compile(answer, signal);
      const held: (Compiled & { readonly recipient: string; readonly strict: boolean })[] = [];
      for (const { recipient, schema, strict } of calls) {
        const own = strict
          ? await compile(schema ?? ANY_OBJECT, signal)
          : mustCall && schema !== undefined
            ? await unlessUnsupported(compile(schema, signal))
            : null;
        if (!own) anyObject ??= await compile(ANY_OBJECT, signal);
        held.push({ recipient, strict, ...((own ?? anyObject) as Compiled) });
      }
      const checked = [...(final?.grammar.checked ?? []), ...held.flatMap((h) => (h.strict ? h.grammar.checked : []))];
      vocabulary ??= quick.call('vocabulary', null).catch((e: unknown) => {
        vocabulary = null; // the next request asks again
        throw e;
      });
      const structure: Structure = {
        vocabulary: await vocabulary,
        final: mustCall ? 'none' : (final?.grammar ?? 'free'),
        calls: held.map(({ recipient, grammar }) => ({ recipient, grammar })),
        mustCall,
      };
      return {
        structure,
        checked,
        async check(messages, stop) {
          for (const m of messages) {
            const tool = calls.find((c) => m.role === 'assistant' && c.recipient === m.recipient);
            const own = tool ? held.find((h) => h.recipient === tool.recipient) : undefined;
            const claimed = own?.strict ? own : final && isAnswer(m) ? final : null;
            if (!claimed) continue;
            const { lane, grammar } = claimed;
            const broken = await lane.call('check', { schema: grammar.text, text: m.content }, stop);
            if (broken !== null) return broken;
          }
          // An answer that was to keep to a schema is there, or a call is.
          return messages.some((m) => isAnswer(m) || calls.some((c) => c.recipient === m.recipient))
            ? null
            : 'it has no answer';
        },
      };
    },
    async close() {
      await Promise.all([quick.close(), slow.close()]);
    },
  };
}

/** A schema of a tool that is not strict is kept to where that can be done. */
async function unlessUnsupported<T>(compiled: Promise<T>): Promise<T | null> {
  try {
    return await compiled;
  } catch (e) {
    const { code } = e as { readonly code?: unknown };
    if (code === 'schema_unsupported' || code === 'schema_invalid') return null;
    throw e;
  }
}
