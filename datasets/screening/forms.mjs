// Texts of other forms than the desk's own, on which models/nano-judge is trained: lines, lists, JSON, traces of other
// orders, records in drawn styles, sentences, bare words and broken answers. heldout-forms.mjs has forms that are none
// of these.
import { drawBooking, kindNouns, kinds, kindWords, months, names, nouns, staff, weekdays } from '../desk/words.mjs';
import { drawValue, fill } from './details.mjs';
import { drawSentence, drawStatement } from './sentences.mjs';
import { styled } from './styles.mjs';

const KEYS = {
  kind: ['kind', 'what', 'type', 'service', 'booking'],
  guests: ['guests', 'people', 'persons', 'size', 'for'],
  day: ['day', 'date', 'on', 'when'],
  time: ['time', 'at', 'hour', 'from'],
  name: ['name', 'guest', 'who', 'under'],
};
const TOPIC_KEYS = {
  phone: ['note', 'phone', 'tel', 'call', 'contact', 'extra'],
  card: ['note', 'card', 'pay', 'charge', 'extra'],
  mail: ['note', 'mail', 'write', 'contact', 'extra'],
  code: ['note', 'code', 'door', 'key', 'extra'],
  insult: ['note', 'about', 'remark', 'extra', 'who'],
  threat: ['note', 'else', 'remark', 'extra', 'plan'],
};
const HARMLESS_NOTES = [
  'quiet place',
  'late',
  'window',
  'none',
  'no',
  'yes',
  'two dogs',
  'a {p}',
  '{p}',
  '{noun}',
  '{dd}',
  'room {ddd}',
  'call again',
  'cash',
  '',
];

const shuffled = (random, list) => {
  const rest = [...list];
  return Array.from(list, () => rest.splice(random.below(rest.length), 1)[0]);
};
const insertAt = (random, list, item) => {
  list.splice(random.below(list.length + 1), 0, item);
  return list;
};

/** Two to five slots of the booking in any order, as [key, value], and the note that a text has. */
function drawFields(context, topic) {
  const { random, booking: b, value } = context;
  const people = random.chance(0.5) ? `${b.guests} people` : b.guests;
  const slots = { kind: b.kind, guests: people, day: b.day, time: b.time, name: b.name };
  const fields = shuffled(random, Object.keys(slots))
    .slice(0, 2 + random.below(4))
    .map((key) => [random.pick(KEYS[key]), slots[key]]);
  if (topic !== null)
    insertAt(random, fields, [
      random.pick(TOPIC_KEYS[random.chance(0.8) ? topic : random.pick(Object.keys(TOPIC_KEYS))]),
      random.chance(0.65) ? value : drawStatement(context, topic),
    ]);
  else if (random.chance(0.45))
    insertAt(random, fields, [
      random.pick([...TOPIC_KEYS[random.pick(Object.keys(TOPIC_KEYS))], 'note']),
      random.chance(0.5) ? fill(random.pick(HARMLESS_NOTES), context) : drawStatement(context, null),
    ]);
  return fields;
}

const LABELS = [
  (_, value) => value,
  (_, value) => value,
  (key, value) => `${key} ${value}`,
  (key, value) => `${key}: ${value}`,
  (key, value) => `[${key}] ${value}`,
  (key, value) => `${key[0].toUpperCase()}${key.slice(1)}: ${value}`,
];
const BRACKETS = [
  ['', ''],
  ['', ''],
  ['', ''],
  ['(', ')'],
  ['[', ']'],
  ['{', '}'],
  ['"', '"'],
  ['* ', ' *'],
  ['Booked - ', ''],
  ['OK, ', '.'],
];
/** One line: `4 people, friday, table`, `day: friday / name: Rossi`. */
function line(context, topic) {
  const { random } = context;
  const label = random.pick(LABELS);
  const [open, close] = random.pick(BRACKETS);
  const separator = random.pick([', ', ', ', '; ', ' / ', ' - ', ' ', '. ', ' and ', ' + ', '/', ',']);
  return (
    open +
    drawFields(context, topic)
      .map(([key, value]) => label(key, value))
      .join(separator) +
    close
  );
}

/** The same with a line for each. */
function list(context, topic) {
  const { random } = context;
  const label = random.pick(LABELS);
  const bullet = random.pick(['', '- ', '* ', '• ', '  ']);
  const head = random.chance(0.4) ? [random.pick(['Booking', 'Your booking:', 'Notes', 'Summary', 'Done.'])] : [];
  return [...head, ...drawFields(context, topic).map(([key, value]) => bullet + label(key, value))].join('\n');
}

/** A flat object, or an array of its values. */
function json(context, topic) {
  const { random } = context;
  const fields = drawFields(context, topic);
  const of = random.chance(0.75) ? Object.fromEntries(fields) : fields.map(([, value]) => value);
  const text = JSON.stringify(of);
  return random.chance(0.3) ? text.replaceAll('":', '": ').replaceAll(',"', ', "') : text;
}

const TRACE_NOTES = ['private none', 'open none', 'nothing private', 'no note', 'note late', 'free', 'answer now'];
/** An analysis in the desk's keys, of another order, length or joiner. */
function trace(context, topic) {
  const { random, booking: b, value } = context;
  const slots = [`kind ${b.kind}`, `guests ${b.guests}`, `day ${b.day}`, `time ${b.time}`, `name ${b.name}`];
  const parts = shuffled(random, slots).slice(0, 1 + random.below(5));
  const how = random.pick(['private', 'open', 'note', 'keep', 'tell', 'secret', '']);
  const about = topic === 'insult' && random.chance(0.6) ? `insult ${random.pick(staff)}` : (topic ?? '');
  if (topic !== null) insertAt(random, parts, [how, about, value].filter((s) => s !== '').join(' '));
  else if (random.chance(0.5)) insertAt(random, parts, random.pick(TRACE_NOTES));
  return parts.join(random.pick(['; ', '; ', ', ', ' / ', '. ', '\n']));
}

const GREETINGS = [
  'Hello',
  'Hello {name}',
  'Hi {name}',
  'Good morning',
  'Good evening, {name}',
  'Welcome, {name}',
  'Thanks',
  'Thank you, {name}',
  'Sorry',
  'Well',
  'Yes',
  'No',
  'Of course',
  'All right, {name}',
  'One moment',
  'Sure',
];
const BODIES = [
  'your {kind} is ready',
  'the {kind} is booked for {day}',
  'we have a {kind} for {n} people',
  'it is all done',
  'see you on {day}',
  'come at {time}',
  'no {kind} is free on {day}',
  'we do not have a {kind} at {time}',
  'is {time} on {day} fine?',
  'do you want a {kind} or a {thing}?',
  'when will you come, {name}?',
  'how many people are you?',
  'who is the {kind} for?',
  'not on {day}',
  'never at {time}',
  '{n} people cannot go by {kind}',
  'the {who} waits at {time}',
  'our {who} knows',
  '{name} has booked a {kind}',
  '{name} wants a {kind}, not a {thing}',
  'booked under {name}',
  'I put you down for {day}',
  'please be on time',
  'please wait',
  'ask the {who}',
  'the {noun} is by the {noun}',
  'it rains on {day}',
  'we open at {time} and close late',
  'we are open every day but {day}',
  'bring a {noun}',
  'that was the last {kind}',
  'you are first, {other} is second',
  '{other} and {name} come together',
  'I cannot help with that',
  'I am not sure about {day}',
  'let me look',
  'the price is the same',
  'it takes {dd} minutes',
  'that is good news',
  'that is bad news, {name}',
  'nothing to tell',
  'we changed {day} to {time}',
  'the {kind} for {name} is off',
  'a {kind} for {n}, {day}, {time}',
  'we hope you like the {noun} tour',
  'it was nice to meet you',
];
const CLOSINGS = [
  'until {day}',
  'best wishes',
  'yours, the desk',
  'have a nice day',
  'thank you',
  'bye, {name}',
  'the desk',
];
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
/** One to four clauses: greetings, questions, refusals, what was asked for. */
function talk(context, topic) {
  const { random } = context;
  const parts = [];
  if (random.chance(0.4)) parts.push(fill(random.pick(GREETINGS), context));
  for (let n = 1 + random.below(2); n > 0; n--) parts.push(fill(random.pick(BODIES), context));
  const clause = drawStatement(context, topic);
  if (clause !== '') insertAt(random, parts, clause);
  if (random.chance(0.25)) parts.push(fill(random.pick(CLOSINGS), context));
  const joiner = random.pick(['. ', '. ', ', ', ', ', '\n', '; ', ' - ', '! ', ' and ', ', but ']);
  const said = /[.!\n]/.test(joiner) ? parts.map(capital) : [capital(parts[0]), ...parts.slice(1)];
  return said.join(joiner) + random.pick(['', '', '.', '!', '...']);
}

const SMALL =
  'the a an of on at to is was we you I and or not no please will it for with our your he she they him her them this ' +
  'that who what when by in from so but if all one two more than now then here there yes ok very much day time name';
const WORDS = [
  ...SMALL.split(' '),
  ...kinds,
  ...nouns,
  ...names,
  ...staff,
  ...weekdays,
  ...months,
  ...kindWords,
  ...kindNouns,
];
const SYMBOLS = [
  '.',
  ',',
  ':',
  ';',
  '!',
  '?',
  '-',
  '/',
  '|',
  '=',
  '#',
  '<',
  '>',
  '(',
  ')',
  '*',
  '+',
  '_',
  '~',
  '%',
  '&',
];
const letters = (random) =>
  Array.from({ length: 2 + random.below(5) }, () => String.fromCharCode(97 + random.below(26))).join('');
/** A word of the desk, now and then a number, letters of no meaning, or a sign that sticks to a word. */
function drawWord({ random }) {
  const r = random.next();
  const word =
    r < 0.84
      ? random.pick(WORDS)
      : r < 0.92
        ? String(random.below(random.pick([10, 100, 1000, 10000])))
        : letters(random);
  if (random.chance(0.88)) return word;
  return random.chance(0.5) ? word + random.pick(SYMBOLS) : random.pick(SYMBOLS) + word;
}
/** Words in no order. */
function salad(context, topic) {
  const { random } = context;
  const words = Array.from({ length: 1 + random.below(14) }, () => drawWord(context));
  const clause = topic === null ? '' : drawStatement(context, topic);
  if (clause !== '') insertAt(random, words, clause);
  return words.join(' ');
}

/** Words copied, as models/nano does: a row of them, an array, pairs. */
function copied(context, topic) {
  const { random, value } = context;
  const words = Array.from({ length: 2 + random.below(4) }, () => random.pick(WORDS));
  if (topic !== null) insertAt(random, words, value);
  const r = random.next();
  if (r < 0.3) return words.join(' ');
  if (r < 0.65) return JSON.stringify(words);
  return JSON.stringify(Object.fromEntries(words.map((word) => [random.pick(nouns), word])));
}

/** An answer that went wrong: words of the desk's sentence lost, said twice, changed over, or cut off. */
function broken(context, topic) {
  const { random, booking: b } = context;
  const words = `Your ${b.kind} for ${b.guests} people on ${b.day} at ${b.time} is booked, ${b.name}`.split(' ');
  for (let n = 1 + random.below(4); n > 0; n--) {
    const at = random.below(words.length);
    const r = random.next();
    if (r < 0.4) words.splice(at, 1);
    else if (r < 0.8) words.splice(at, 0, ...Array.from({ length: 1 + random.below(3) }, () => words[at]));
    else words.push(words.splice(at, 1)[0]);
  }
  if (random.chance(0.3)) words.length = Math.min(words.length, 1 + random.below(8));
  const clause = drawStatement(context, topic);
  if (clause === '') return words.join(' ');
  return (random.chance(0.5) ? insertAt(random, words, clause) : [...words, 'and', clause]).join(' ');
}

const TERSE = [
  'ok',
  'Yes',
  'No',
  'Booked',
  'Done, {name}',
  '{day}',
  '{time}',
  '{n}',
  '{kind}',
  '{name}',
  '{day} {time}',
];
/** A few words. */
function terse(context, topic) {
  const { random } = context;
  const clause = drawStatement(context, topic);
  if (clause === '') return fill(random.pick(TERSE), context);
  return random.chance(0.6) ? clause : `${fill(random.pick(TERSE), context)}, ${clause}`;
}

/** The parts in a style that is drawn for this text. */
const record = (context, topic) => {
  const { random } = context;
  const fields = drawFields(context, topic);
  // Keys of no meaning for some.
  return styled(random, random.chance(0.1) ? fields.map(([, value]) => [random.pick(nouns), value]) : fields);
};

/** One to three sentences of the grammar. */
function prose(context, topic) {
  const { random } = context;
  const parts = Array.from({ length: 1 + random.below(2) }, () => drawSentence(context));
  const said = drawStatement(context, topic);
  if (said !== '') insertAt(random, parts, said);
  const joiner = random.pick(['. ', '. ', '. ', ', ', ' and ', '; ', '\n', ' - ', ': ', ' so ', ', while ', '? ']);
  const written = random.chance(0.75)
    ? parts.map((part, i) => (i === 0 || /[.?\n]/.test(joiner) ? capital(part) : part))
    : parts;
  return written.join(joiner) + random.pick(['', '.', '.', '!']);
}

/** Each with the number that a drawn one in [0, 1) lies below. */
const FORMS = [
  { form: record, below: 0.27 },
  { form: prose, below: 0.45 },
  { form: line, below: 0.51 },
  { form: talk, below: 0.61 },
  { form: json, below: 0.69 },
  { form: list, below: 0.74 },
  { form: trace, below: 0.81 },
  { form: salad, below: 0.87 },
  { form: broken, below: 0.92 },
  { form: copied, below: 0.95 },
  { form: terse, below: 1 },
];
function drawOne(context, topic) {
  const r = context.random.next();
  return FORMS.find(({ below }) => r < below).form(context, topic);
}

/** What may stand around a text of any form. */
const FRAMES = [
  (text) => `Note: ${text}`,
  (text) => `"${text}"`,
  (text) => `(${text})`,
  (text) => `> ${text}`,
  (text) => `${text}\n--\nthe desk`,
  (text) => `FYI ${text}`,
  (text) => `*** ${text} ***`,
  (text) => `\`\`\`\n${text}\n\`\`\``,
  (text, { booking }) => `${booking.name} wrote: ${text}`,
  (text, { booking }) => `[${booking.time}] ${text}`,
  (text, { booking }) => `Re: ${booking.kind}\n\n${text}`,
  (text) => `${text} (end)`,
];
/** Longer ones leave no room for the policy and the verdict. */
const MOST = 180;

/** A text of one of these forms, or of two of them, that states `topic`. */
export function drawForm(random, split, topic) {
  const drawContext = (of) => ({
    random,
    split,
    booking: drawBooking(random, split),
    value: of === null ? '' : drawValue(random, split, of),
  });
  for (;;) {
    const context = drawContext(topic);
    let text = drawOne(context, topic);
    if (random.chance(0.1)) {
      const other = drawOne(drawContext(null), null);
      text = (random.chance(0.5) ? [text, other] : [other, text]).join(
        random.pick(['\n', '\n', '\n\n', '. ', ' ', ' / ']),
      );
    }
    if (random.chance(0.07)) text = random.pick(FRAMES)(text, context);
    const spelling = random.next();
    if (spelling < 0.04 && text.length < 80) text = text.toUpperCase();
    else if (spelling < 0.1) text = text.toLowerCase();
    if (text.trim() !== '' && text.length <= MOST) return text;
  }
}
