// Schemas of answers and of calls' arguments, as a request asks for them: compiled, remembered and checked in a thread
// of their own, which is started when the first request asks.
import { type Channel, LEAST_YOUNG_MIB, openChannel } from '../base/channel.js';
import type { Message } from '../harmony/types.js';
import { isAnswer } from './content.js';
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

const ANY_OBJECT = { type: 'object' };

/** A thread is started at the first `prepare`. */
export function openStructures(options: StructureOptions): Structures {
  let opened: Promise<Channel<StructureCalls, null>> | null = null;
  let vocabulary: Promise<Vocabulary> | null = null;
  let closed = false;
  const channel = (): Promise<Channel<StructureCalls, null>> => {
    if (!opened) {
      opened = openChannel<StructureCalls, null>('infer/structures-worker.js', options, {
        name: 'structures',
        youngMiB: LEAST_YOUNG_MIB,
      });
      // One that could not be opened, or ended, is opened again by the next request.
      opened.catch(() => {
        opened = null;
        vocabulary = null;
      });
    }
    return opened;
  };
  const call = async <K extends keyof StructureCalls>(
    name: K,
    request: StructureCalls[K]['request'],
    signal?: AbortSignal,
  ): Promise<StructureCalls[K]['result']> => {
    try {
      return await (await channel()).call(name, request, { signal });
    } catch (e) {
      if ((e as { readonly code?: unknown }).code === 'worker_exit' && !closed) {
        opened = null;
        vocabulary = null;
      }
      throw e;
    }
  };
  return {
    async prepare({ answer, calls, mustCall }, signal) {
      const compile = (schema: unknown): Promise<Grammar> => call('compile', JSON.stringify(schema), signal);
      let anyObject: Grammar | undefined;
      const final = answer === undefined ? null : await compile(answer);
      const held: { readonly recipient: string; readonly grammar: Grammar; readonly strict: boolean }[] = [];
      for (const { recipient, schema, strict } of calls) {
        const own = strict
          ? await compile(schema ?? ANY_OBJECT)
          : mustCall && schema !== undefined
            ? await unlessUnsupported(compile(schema))
            : null;
        if (!own) anyObject ??= await compile(ANY_OBJECT);
        held.push({ recipient, strict, grammar: (own ?? anyObject) as Grammar });
      }
      const checked = [...(final?.checked ?? []), ...held.flatMap((h) => (h.strict ? h.grammar.checked : []))];
      vocabulary ??= call('vocabulary', null).catch((e: unknown) => {
        vocabulary = null; // the next request asks again
        throw e;
      });
      const structure: Structure = {
        vocabulary: await vocabulary,
        final: mustCall ? 'none' : (final ?? 'free'),
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
            const schema = own?.strict ? own.grammar.text : final && isAnswer(m) ? final.text : undefined;
            if (schema === undefined) continue;
            const broken = await call('check', { schema, text: m.content }, stop);
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
      closed = true;
      await (await opened?.catch(() => null))?.close();
    },
  };
}

/** A schema of a tool that is not strict is kept to where that can be done. */
async function unlessUnsupported(grammar: Promise<Grammar>): Promise<Grammar | null> {
  try {
    return await grammar;
  } catch (e) {
    const { code } = e as { readonly code?: unknown };
    if (code === 'schema_unsupported' || code === 'schema_invalid') return null;
    throw e;
  }
}
