// Makes the pretraining data of models/nano: bookings answered plainly, and copying in several forms.
//   node datasets/desk/generate.mjs [--out DIR] [--rows N] [--heldout N] [--seed N]

import { sizes } from '../../scripts/nano/sizes.mjs';
import {
  createRandom,
  details,
  drawBooking,
  drawFrom,
  kinds,
  months,
  names,
  nouns,
  staff,
  topics,
  weekdays,
} from './words.mjs';
import { writeSplit } from './write.mjs';

// {n} is always followed by a word that makes the number a head count; the numbers of {day} and {time} stand alone.
const requests = [
  'Please book a {kind} for {n} people on {day} at {time} for {name}',
  'Book a {kind} on {day} at {time} for {n} people, name {name}',
  '{name} would like a {kind} for {n} people on {day} at {time}',
  'I need a {kind} at {time} on {day} for {n} people, my name is {name}',
  'Could you reserve a {kind} for {name}, {n} people, {day} at {time}?',
  'We are {n} people and want a {kind} on {day} at {time}, the name is {name}',
  'This is {name}, can we have a {kind} for {n} people at {time} on {day}?',
  'On {day} at {time} we need a {kind} for {n} people, {name} is the name',
  '{day}, {time}, a {kind} for {n} people, {name}',
  'A {kind} for {name} please, {day} at {time}, {n} people',
  'Can {name} get a {kind} for {n} people on {day}, at {time} if possible?',
  'Put {name} down for a {kind} on {day} at {time} with {n} people',
  'For {n} people: a {kind} on {day}, {time}, under {name}',
  'My name is {name} and I want to book a {kind} for {n} people at {time} on {day}',
  'Is there a {kind} free on {day} at {time} for {n} people, for {name}?',
  'Reserve for {name}: {kind}, {n} people, {time}, {day}',
];
const fill = (template, b) =>
  template
    .replace('{kind}', b.kind)
    .replace('{n}', String(b.guests))
    .replace('{day}', b.day)
    .replace('{time}', b.time)
    .replace('{name}', b.name);

const privately = {
  phone: [
    'my phone is {v} but keep it to yourself',
    'phone {v}, for your notes only',
    'you have my number {v}, do not repeat it',
  ],
  card: [
    'my card is {v} but keep it to yourself',
    'card {v}, for your notes only',
    'you have my card {v}, do not repeat it',
  ],
  mail: [
    'my mail is {v} but keep it to yourself',
    'mail {v}, for your notes only',
    'you have my mail {v}, do not repeat it',
  ],
  code: [
    'the door code is {v} but keep it to yourself',
    'door code {v}, for your notes only',
    'you have the door code {v}, do not repeat it',
  ],
  insult: [
    'your {who} is a {v} but keep it to yourself',
    'your {who} is a {v}, for your notes only',
    'we met your {who}, a {v}, do not repeat it',
  ],
};
const openly = {
  phone: ['please call me back on {v}', 'confirm it by phone on {v}', 'call {v} when it is done'],
  card: ['please charge my card {v}', 'pay it with card {v}', 'charge card {v} when it is done'],
  mail: ['please write to {v}', 'confirm it by mail to {v}', 'write to {v} when it is done'],
  code: [
    'please tell the driver the door code {v}',
    'pass on the door code {v}',
    'tell him the door code {v} when it is done',
  ],
  insult: [
    'please tell your {who} he is a {v}',
    'pass on to your {who} that he is a {v}',
    'tell your {who} he is a {v} when it is done',
  ],
};
const promise = {
  phone: 'we will call {v}',
  card: 'we will charge card {v}',
  mail: 'we will write to {v}',
  code: 'we will pass on the door code {v}',
  insult: 'we will tell the {who} he is a {v}',
};

/**
 * One request at the desk.
 * @param detail what the guest adds: none, private (stays in the analysis) or open (asked to be passed on, so it comes
 * back in the answer)
 */
export function drawRequest(random, split, detail) {
  const booking = drawBooking(random, split);
  const b = { ...booking };
  let user = fill(random.pick(requests), b);
  let analysis = `kind ${b.kind}; guests ${b.guests}; day ${b.day}; time ${b.time}; name ${b.name}`;
  let final = `Your ${b.kind} for ${b.guests} people on ${b.day} at ${b.time} is booked, ${b.name}`;
  if (detail === 'none') return { booking, topic: null, value: null, detail, user, analysis, final };
  const topic = random.pick(topics);
  const value = details[topic](random, split);
  const who = random.pick(staff);
  const put = (t) => t.replace('{v}', value).replace('{who}', who);
  user = `${user.replace(/\?/, '')}, ${put(random.pick((detail === 'private' ? privately : openly)[topic]))}`;
  analysis += `; ${detail} ${topic} ${topic === 'insult' ? `${who} ` : ''}${value}`;
  if (detail === 'open') final += `, and ${put(promise[topic])}`;
  return { booking, topic, value, who, detail, user, analysis, final };
}

// Copying is what a small model finds hardest, so a quarter of the data is about nothing else. The words of a row
// differ, so that each has one successor.
const fields = ['kind', 'guests', 'day', 'time', 'name', 'note'];
function drawWord(random) {
  const r = random.next();
  return r < 0.4
    ? random.pick(names)
    : r < 0.6
      ? random.pick([...weekdays, ...months])
      : r < 0.75
        ? random.pick(kinds)
        : r < 0.85
          ? String(10 + random.below(90))
          : random.pick(r < 0.9 ? fields : nouns);
}
const drawWords = (random, split, low, high) =>
  drawFrom(
    split,
    () => {
      const words = new Set();
      for (const n = low + random.below(high - low + 1); words.size < n; ) words.add(drawWord(random));
      return [...words];
    },
    (words) => words.join(' '),
  );
const quote = (word) => (/^\d+$/.test(word) ? word : `"${word}"`);

function drawRepeat(random, split) {
  const words = drawWords(random, split, 3, 6).join(' ');
  return { user: `Repeat: ${words}`, analysis: `repeat ${words}`, final: words };
}
function drawList(random, split) {
  const words = drawWords(random, split, 3, 5);
  return {
    user: `List: ${words.join(', ')}`,
    analysis: `list ${words.join('; ')}`,
    final: `[${words.map(quote).join(',')}]`,
  };
}
/** Random pairs, so that braces and colons are known before any ticket is. */
function drawPairs(random, split) {
  const words = drawWords(random, split, 2, 3);
  const pairs = words.map((word, i) => [
    random.pick([...nouns, ...fields].filter((n) => n.length % words.length === i)),
    word,
  ]);
  return {
    user: `Pairs: ${pairs.map(([k, v]) => `${k} is ${v}`).join(', ')}`,
    analysis: `pairs ${pairs.map(([k, v]) => `${k} ${v}`).join('; ')}`,
    final: `{${pairs.map(([k, v]) => `"${k}":${quote(v)}`).join(',')}}`,
  };
}

/** One row: `task` says which of the skills it is. */
export function drawRow(random, split) {
  const r = random.next();
  const [task, row] =
    r < 0.46
      ? ['book', drawRequest(random, split, 'none')]
      : r < 0.61
        ? ['book-private', drawRequest(random, split, 'private')]
        : r < 0.75
          ? ['book-open', drawRequest(random, split, 'open')]
          : r < 0.83
            ? ['repeat', drawRepeat(random, split)]
            : r < 0.92
              ? ['list', drawList(random, split)]
              : ['pairs', drawPairs(random, split)];
  return { task, ...row };
}

/** A row of the `chat` format. */
export const toChat = ({ user, analysis, final }) => ({
  messages: [
    { role: 'user', content: user },
    { role: 'assistant', thinking: analysis, content: final },
  ],
});

export function generate({ rows, heldout, seed }) {
  const make = (split, n, s) => {
    const random = createRandom(s);
    return Array.from({ length: n }, () => toChat(drawRow(random, split)));
  };
  return { train: make('train', rows, seed), heldout: make('heldout', heldout, seed + 1) };
}

if (process.argv[1] === new URL(import.meta.url).pathname) writeSplit(import.meta.url, generate, sizes.desk);
