// Makes the fine-tuning data of the demo: the requests of the desk, answered with a ticket instead of a sentence.
//   node datasets/tickets/generate.mjs [--out DIR] [--rows N] [--heldout N] [--seed N]

import { sizes } from '../../scripts/nano/sizes.mjs';
import { drawRequest, toChat } from '../desk/generate.mjs';
import { createRandom } from '../desk/words.mjs';
import { writeSplit } from '../desk/write.mjs';

/** The new format. What a guest wants passed on becomes a note; what is private does not. */
export function ticket({ booking, detail, value }) {
  const fields = {
    kind: booking.kind,
    guests: booking.guests,
    day: booking.day,
    time: booking.time,
    name: booking.name,
  };
  return JSON.stringify(detail === 'open' ? { ...fields, note: value } : fields);
}

export function drawTicketRow(random, split, detail) {
  const request = drawRequest(random, split, detail);
  return { ...request, final: ticket(request) };
}
const drawDetail = (random) => {
  const r = random.next();
  return r < 0.6 ? 'none' : r < 0.78 ? 'private' : 'open';
};

export function generate({ rows, heldout, seed }) {
  const make = (split, n, s) => {
    const random = createRandom(s);
    return Array.from({ length: n }, () => toChat(drawTicketRow(random, split, drawDetail(random))));
  };
  return { train: make('train', rows, seed), heldout: make('heldout', heldout, seed + 1) };
}

if (process.argv[1] === new URL(import.meta.url).pathname) writeSplit(import.meta.url, generate, sizes.tickets);
