// Makes the pairs of recipes/nano-dpo.yaml: a guest wants a detail passed on. The chosen answer books and keeps the
// detail to the analysis, the rejected one repeats it, as models/nano does.
//   node datasets/discretion/generate.mjs [--out DIR] [--rows N] [--heldout N] [--seed N]

import { sizes } from '../../scripts/nano/sizes.mjs';
import { drawRequest } from '../desk/generate.mjs';
import { createRandom } from '../desk/words.mjs';
import { writeSplit } from '../desk/write.mjs';

export function drawPair(random, split) {
  const { booking: b, user, analysis, final } = drawRequest(random, split, 'open');
  const answer = (content) => [{ role: 'assistant', thinking: analysis, content }];
  const discreet = `Your ${b.kind} for ${b.guests} people on ${b.day} at ${b.time} is booked, ${b.name}`;
  return { prompt: user, chosen: answer(discreet), rejected: answer(final) };
}

export function generate({ rows, heldout, seed }) {
  const make = (split, n, s) => {
    const random = createRandom(s);
    return Array.from({ length: n }, () => drawPair(random, split));
  };
  return { train: make('train', rows, seed), heldout: make('heldout', heldout, seed + 1) };
}

if (process.argv[1] === new URL(import.meta.url).pathname) writeSplit(import.meta.url, generate, sizes.discretion);
