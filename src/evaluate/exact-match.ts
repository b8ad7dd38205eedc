// Exact match of generated answers. How they are generated is passed in.
import pLimit from 'p-limit';
import type { Prompt } from '../data/example.js';
import type { Message } from '../harmony/types.js';

/** Answers a conversation with the text of its final channel; null when the model gave none. */
export type GenerateFinal = (messages: readonly Message[], signal?: AbortSignal) => Promise<string | null>;
export interface ExactMatch {
  readonly rows: number;
  readonly matches: number;
  readonly rate: number;
  readonly misses: readonly { readonly line: number; readonly expected: string; readonly got: string | null }[];
}

/**
 * Share of prompts whose generated final is the expected text, character for character but for white space around it.
 */
export async function exactMatch(
  prompts: readonly Prompt[],
  generate: GenerateFinal,
  options: {
    readonly concurrency?: number;
    readonly signal?: AbortSignal;
    readonly onProgress?: (done: number, matches: number) => void;
    readonly maxMisses?: number;
  } = {},
): Promise<ExactMatch> {
  const { concurrency = 8, signal, onProgress, maxMisses = 20 } = options;
  const misses: { line: number; expected: string; got: string | null }[] = [];
  let done = 0,
    matches = 0;
  await pLimit(concurrency).map(prompts, async (prompt) => {
    signal?.throwIfAborted();
    const got = await generate(prompt.messages, signal);
    done++;
    if (got !== null && got.trim() === prompt.expected.trim()) matches++;
    else misses.push({ line: prompt.source.line, expected: prompt.expected, got });
    onProgress?.(done, matches);
  });
  misses.sort((a, b) => a.line - b.line);
  return {
    rows: prompts.length,
    matches,
    rate: prompts.length ? matches / prompts.length : Number.NaN,
    misses: misses.slice(0, maxMisses),
  };
}
