// Where a prompt is cut so that others may go on from there. Whether there is a cut depends on the tokens before it
// alone: two prompts with the same beginning are cut alike in it, so that what one has computed has the other's bits.
import type { Tokenizer } from '../harmony/types.js';

/** Pieces shorter than this cost more in passes than they save. */
const MIN_PIECE_TOKENS = 64;

/**
 * Places where an assistant's message begins, `<|start|>assistant` before them: a conversation that went on has them in
 * common with what it was, as the prompt of each turn ends there.
 * @param after the opening, which is a cut of its own; 0: there is none
 */
export function turnCuts(prompt: Int32Array, tokenizer: Tokenizer, after: number): readonly number[] {
  const start = tokenizer.special['<|start|>'],
    role = tokenizer.encode('assistant');
  const cuts: number[] = [];
  let last = after;
  for (let i = after; i < prompt.length; i++) {
    if (prompt[i] !== start) continue;
    const at = i + 1 + role.length;
    if (at - last < MIN_PIECE_TOKENS || at > prompt.length || !role.every((t, j) => prompt[i + 1 + j] === t)) continue;
    cuts.push(at);
    last = at;
  }
  return cuts;
}
