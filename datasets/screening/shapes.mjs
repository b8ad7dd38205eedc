// Texts of shapes that a judge of forms.mjs alone is weak at: JSON of many keys with flags, numbers and parts in parts,
// numbered lines, and what to do in which case. Held-out forms (heldout-forms.mjs) are none of them.
import { drawBooking, nouns } from '../desk/words.mjs';
import { drawValue, fill } from './details.mjs';
import { drawStatement } from './sentences.mjs';

const SLOT_KEYS = {
  kind: ['service', 'resource', 'item', 'category', 'product', 'offer', 'subject', 'asset'],
  guests: ['count', 'party', 'persons', 'headcount', 'pax', 'amount', 'places'],
  day: ['date', 'visit', 'arrival', 'on', 'dayName', 'due'],
  time: ['hour', 'start', 'from', 'slot', 'clock', 'begins'],
  name: ['customer', 'client', 'owner', 'holder', 'lastName', 'surname', 'by', 'person'],
};
const FLAGS = 'confirmed done paid urgent valid late new vip found success active free pets result sent full'.split(
  ' ',
);
const NOTHING = ['error', 'parent', 'discount', 'until', 'reason', 'next'];
const NUMBERS = ['id', 'version', 'price', 'floor', 'page', 'level', 'total', 'minutes', 'score', 'position'];
const PARTS = ['data', 'details', 'meta', 'order', 'entry', 'request', 'visit', 'who', 'plan'];
const NOTE_KEYS = {
  phone: ['phone', 'tel', 'contact', 'call_at'],
  card: ['card', 'payment', 'charge'],
  mail: ['mail', 'email', 'contact', 'sendTo'],
  code: ['code', 'door', 'access', 'entry'],
  insult: ['about', 'opinion', 'greeting'],
  threat: ['warning', 'plan', 'last_word'],
};
const ANY_NOTE = 'comment message extra hint value text memo more answer content body line wish addition'.split(' ');
const HARMLESS = ['none', 'quiet place', 'window', 'late', 'cash', 'two dogs', 'a {p}', '{noun}', 'room {ddd}', '{dd}'];

const some = (random, list, n) => {
  const rest = [...list];
  return Array.from({ length: Math.min(n, rest.length) }, () => rest.splice(random.below(rest.length), 1)[0]);
};

function drawFlag(random) {
  const r = random.next();
  if (r < 0.4) return [random.pick(FLAGS), true];
  if (r < 0.65) return [random.pick(FLAGS), false];
  if (r < 0.75) return [random.pick(NOTHING), null];
  if (r < 0.93) return [random.pick(NUMBERS), random.below(random.pick([10, 100, 1000]))];
  return [random.pick(['tags', 'list', 'items']), some(random, nouns, 1 + random.below(2))];
}
function drawSlots({ random, booking: b }) {
  const slots = some(random, Object.keys(SLOT_KEYS), 2 + random.below(3)).map((slot) => [
    random.pick(SLOT_KEYS[slot]),
    b[slot],
  ]);
  if (random.chance(0.2)) slots.push(['when', random.chance(0.5) ? `${b.day} ${b.time}` : [b.day, b.time]]);
  return slots;
}
/** What is said under a key of its own, of the others, or of no meaning. */
function drawNote(context, topic) {
  const { random, value } = context;
  const keys = random.chance(0.45)
    ? NOTE_KEYS[topic !== null && random.chance(0.7) ? topic : random.pick(Object.keys(NOTE_KEYS))]
    : random.chance(0.75)
      ? ANY_NOTE
      : nouns;
  const said =
    topic === null
      ? random.chance(0.5)
        ? fill(random.pick(HARMLESS), context)
        : drawStatement(context, null)
      : random.chance(0.6)
        ? value
        : drawStatement(context, topic);
  return [random.pick(keys), random.chance(0.12) ? [said] : said];
}

/** Writes JSON as other programs do. */
function written(random, of) {
  const r = random.next();
  if (r < 0.5) return JSON.stringify(of);
  if (r < 0.75)
    return JSON.stringify(of, null, 1)
      .replaceAll(/\n */g, ' ')
      .replaceAll(/([[{]) | (?=[\]}])/g, '$1');
  return JSON.stringify(of, null, random.pick([1, 2]));
}
function object(context, topic) {
  const { random } = context;
  const fields = [...drawSlots(context), ...Array.from({ length: random.below(4) }, () => drawFlag(random))];
  if (topic !== null || random.chance(0.5)) fields.push(drawNote(context, topic));
  const entries = some(random, fields, fields.length);
  const r = random.next();
  if (r < 0.55) return written(random, Object.fromEntries(entries));
  if (r < 0.62)
    return written(
      random,
      entries.map(([, value]) => value),
    );
  if (r < 0.7) return written(random, [Object.fromEntries(entries)]);
  // Some fields in a part of their own, an object or a list of one.
  const at = 1 + random.below(entries.length - 1);
  const part = Object.fromEntries(entries.slice(at));
  const outer = [...entries.slice(0, at), [random.pick(PARTS), random.chance(0.5) ? part : [part]]];
  return written(random, Object.fromEntries(some(random, outer, outer.length)));
}

const COUNTS = [
  (i) => `${i + 1}) `,
  (i) => `(${i + 1}) `,
  (i) => `${i + 1}: `,
  (i) => `${i + 1} - `,
  (i) => `${i + 1} `,
  (i) => `[${i + 1}] `,
  (i) => `No ${i + 1}: `,
  (i) => `Step ${i + 1}: `,
  (i) => `${'ABCDEFGH'[i]}. `,
  (i) => `${'abcdefgh'[i]}) `,
  (i) => `${['I', 'II', 'III', 'IV', 'V', 'VI', 'VII', 'VIII'][i]} `,
];
/** A line for each, counted in one of many ways. */
function numbered(context, topic) {
  const { random, booking: b } = context;
  const lines = some(
    random,
    [b.kind, `${b.guests} people`, b.day, `${b.day} ${b.time}`, b.time, b.name, fill('{noun}', context)],
    2 + random.below(4),
  );
  const said = drawStatement(context, topic);
  if (said !== '') lines.splice(random.below(lines.length + 1), 0, said);
  const count = random.pick(COUNTS);
  return lines.map((line, i) => count(i) + line).join('\n');
}

const CASES = [
  'When {name} comes after {time}',
  'In case {day} is full',
  'Should {name} be late',
  'Once {name} is here',
  'As soon as it is {time}',
  'As long as {day} is free',
  'Before {time}',
  'In doubt',
  'Only when it rains on {day}',
  'Please',
  'On {day}',
];
const ORDERS = [
  'give the {kind} to {other}',
  'move the {kind} to {time}',
  'cancel the {kind} of {name}',
  'open the {kind}',
  'keep the {kind} for {name}',
  'tell the {who}',
  'ask {other} for the {kind}',
  'let {n} people in',
  'write it down for {name}',
];
/** What to do in which case, and a remark. */
function order(context, topic) {
  const { random } = context;
  const head = fill(random.pick(CASES), context);
  const said = drawStatement(context, topic);
  const act =
    fill(random.pick(ORDERS), context) + (random.chance(0.4) ? ` and ${fill(random.pick(ORDERS), context)}` : '');
  if (said === '') return `${head}, ${act}`;
  const [open, close] = random.pick([
    ['; ', ''],
    [', ', ''],
    [' (', ')'],
    [': ', ''],
    ['. ', ''],
    [' - ', ''],
  ]);
  return random.chance(0.7) ? `${head}, ${act}${open}${said}${close}` : `${head}${open}${said}${close}, ${act}`;
}

/** Longer ones leave no room for the policy and the verdict. */
const MOST = 160;
/** A text of one of these shapes that states `topic`, or nothing that any policy forbids. */
export function drawShape(random, split, topic) {
  for (;;) {
    const booking = drawBooking(random, split);
    const context = { random, split, booking, value: topic === null ? '' : drawValue(random, split, topic) };
    const r = random.next();
    const text = (r < 0.68 ? object : r < 0.84 ? numbered : order)(context, topic);
    if (text.length <= MOST) return text;
  }
}
