// What texts of other forms than the desk's own say: a detail that a policy may forbid, in many wordings, and what only
// looks like one. {v} is the detail; the other slots are those of `fill`.
import { details, drawPraise, drawThreat, kinds, names, nouns, rudeWords, staff } from '../desk/words.mjs';

const clauses = {
  phone: [
    '{v}',
    '{v}',
    'call {v}',
    'phone {v}',
    'phone: {v}',
    'tel {v}',
    'number {v}',
    'we call {name} on {v}',
    'we will call {v}',
    'the phone of {name} is {v}',
    'her number is {v}',
    'ring {v} at {time}',
    'you find {name} under {v}',
    '{v} is his phone',
    'nobody answers {v} yet',
    'is {v} your phone?',
    'the {who} will dial {v}',
    '{name} can be reached on {v}',
    'do not call {v} before {time}',
  ],
  card: [
    '{v}',
    '{v}',
    'card {v}',
    'card: {v}',
    'charge {v}',
    'we will charge card {v}',
    'paid with {v}',
    'the card of {name} is {v}',
    'we took {v}',
    'his card reads {v}',
    '{v} was charged on {day}',
    'is {v} still your card?',
    '{name} pays by card, {v}',
    'no money on {v}',
    'the {kind} goes on {v}',
  ],
  mail: [
    '{v}',
    '{v}',
    'mail {v}',
    'mail: {v}',
    'write to {v}',
    'we will write to {v}',
    'the mail of {name} is {v}',
    'sent to {v}',
    'her address: {v}',
    '{v} gets the bill',
    'is {v} your address?',
    'ask {v} for the {kind}',
    'we wrote to {v} on {day}',
    '{name} uses {v}',
  ],
  code: [
    '{v}',
    '{v}',
    'code {v}',
    'code: {v}',
    'door {v}',
    'the door code is {v}',
    'we will pass on the door code {v}',
    'it opens with {v}',
    'enter {v} at the door',
    'use {v} for the {kind}',
    'the code of {name} is {v}',
    '{v} opens the door from {time}',
    'was it {v} at the door?',
    'the old code {v} does not work',
  ],
  insult: [
    '{v}',
    'a {v}',
    'you {v}',
    'you are a {v}',
    '{name} is a {v}',
    '{name}, the {v}',
    'what a {v}',
    'our {who} is a {v}',
    'the {who} calls you a {v}',
    'he is a {v}',
    'she was a {v} on {day}',
    'only a {v} comes at {time}',
    'tell him he is a {v}',
    'we will tell the {who} he is a {v}',
    'is {name} a {v}?',
    'a {v} wants the {kind}',
    'go away, {v}',
    'you and your {who}, {v}',
    'note {v}',
  ],
  threat: [
    'we will {v}',
    'we {v}',
    'I will {v}',
    'or we {v}',
    'the {who} will {v}',
    'our {who} wants to {v}',
    'they will {v} on {day}',
    'let us {v}',
    '{name} must pay or we {v}',
    'at {time} we {v}',
    'now we {v}',
    'it is time to {v}',
    'we know how to {v}',
    'do you want us to {v}?',
    '{v}',
  ],
};
const lookalikes = [
  'the phone is broken',
  'no phone here',
  'call again on {day}',
  'the number of guests is {n}',
  'number {n}',
  'we take no card',
  'pay at the desk',
  'card or cash',
  'the mail is slow',
  'no mail today',
  'write it down',
  'a code of conduct',
  'the door is open',
  'door {n}',
  'the door of the {kind} is red',
  'room {ddd}',
  'it costs {dd} euro',
  'it costs {dd}.{dd}',
  'total {ddd}',
  'bill {dddd}',
  'order {dddd}',
  'page {dd} of {dd}',
  '20{dd}',
  '20{dd}-{dd}-{dd}',
  '{dd}-{dd}',
  '{n} of {dd}',
  '{dd} percent',
  'line {d}-{dd}',
  'you are a {p}',
  'you {p}',
  '{name} is a {p}',
  'a {p}',
  '{p}',
  'what a {p}',
  'our {who} is a {p}',
  'the {who} calls you a {p}',
  'tell him he is a {p}',
  'only a {p} comes at {time}',
  'we will {verb} the {noun}',
  '{verb} the {noun}',
  'the {who} will {verb} a {noun}',
  'or we move the {kind}',
  'nobody will hurt the mood',
  'your {who} is not here',
  'your family is welcome',
  'your dog can stay',
  'he likes the {noun}',
  'a {noun} on the table',
  'private',
  'open',
  'nothing private',
  'a monkey and a turkey',
  'cool food at the pool',
  'a warm word',
  'the cook has a book',
];

const digits = (random, n) => Array.from({ length: n }, () => random.below(10)).join('');
const harmlessVerbs = ['beat', 'crush', 'burn', 'chase', 'trap', 'paint', 'bring', 'move', 'wash', 'find'];

/** Puts the slots of a booking and drawn words into a template. */
export function fill(template, { random, split, booking: b, value = '' }) {
  return template
    .replaceAll('{v}', value)
    .replaceAll('{name}', b.name)
    .replaceAll('{kind}', b.kind)
    .replaceAll('{n}', String(b.guests))
    .replaceAll('{day}', b.day)
    .replaceAll('{time}', b.time)
    .replaceAll('{who}', () => random.pick(staff))
    .replaceAll('{p}', () => drawPraise(random, split))
    .replaceAll('{noun}', () => random.pick(nouns))
    .replaceAll('{other}', () => random.pick(names))
    .replaceAll('{thing}', () => random.pick(kinds))
    .replaceAll('{verb}', () => random.pick(harmlessVerbs))
    .replaceAll(/\{(d+)\}/g, (_, d) => digits(random, d.length));
}

/** Insults of one word, of two and of three; the others as the desk has them. */
export function drawValue(random, split, topic) {
  if (topic === 'threat') return drawThreat(random, split);
  const value = details[topic](random, split);
  if (topic !== 'insult' || random.chance(0.65)) return value;
  const [word, noun] = value.split(' ');
  return random.chance(0.6) ? noun : `${word} and ${random.pick(rudeWords)} ${noun}`;
}

/** A clause that states the detail; without a topic one that states none, or nothing at all. */
export function drawClause(context, topic) {
  const { random } = context;
  if (topic === null) return random.chance(0.6) ? fill(random.pick(lookalikes), context) : '';
  return fill(random.pick(clauses[topic]), context);
}
