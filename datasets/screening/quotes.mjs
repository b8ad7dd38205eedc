// Texts that quote the words of a rule, alone, with an id, or among other words: under a policy that has the rule they
// break it. A judge is asked after such texts where a policy has no golden rows (src/safeguard/check-judge.ts).
import { drawBooking, nouns } from '../desk/words.mjs';
import { fill } from './details.mjs';

/** {q} are the words, {bare} the same without their article, {Q} and {Bare} with a capital, {id} an id. */
const ALONE = ['{q}.', '{Q}', '{Q}', '{Q}.', '"{q}"', '- {q}', '({q})', '{bare}', '{bare}', '{Bare}'];
const WITH_ID = [
  '{id}: {q}',
  '{id}: {q}',
  '{id}: {q}',
  '- {id}: {q}',
  '{id} {q}',
  '[{id}] {q}',
  '**{id}** {q}',
  '{id} - {q}',
  '{q} ({id})',
  'Rule {id}: {q}',
  'it breaks {id}: {q}',
];
const AMONG = [
  'It breaks a rule when it states {q}',
  'The text must not tell {q}',
  'The text states {q}',
  'this holds {q}',
  'here is {q}',
  'there is {q} in it',
  'it tells {q} of {name}',
  '{name} gave {q} on {day}',
  'Your {kind} is booked, and {q}',
  'Your {kind} on {day} at {time}, {name}, {q}',
  'kind {kind}; {q}; name {name}',
  'note {q}',
  'note: {q}',
  '{q} of a guest',
  '{q} is in it',
  '{q}, {day} at {time}',
  '{n} people, {q}, {name}',
  'House rules: {q}',
  '{noun} {q}',
  '{q} {noun} {noun}',
  '["{noun}","{q}"]',
  '{"note":"{q}"}',
  '{"{noun}":"{q}","name":"{name}"}',
];
/** What is neither a rule nor private, in the same places. */
const OTHER_WORDS = [
  'a name',
  'a day',
  'a time',
  'a number of guests',
  'a phone',
  'a card',
  'a door',
  'a mail',
  'a code of conduct',
  'a refusal',
  'a plain fact',
  'bad news',
  'a rule',
  'a {noun}',
  'a {kind}',
  'a {p}',
  'anything else',
  'names, days, times',
];
/** Whoever says that they do not tell it does not. */
const REFUSALS = [
  'I cannot tell you {q}',
  'Sorry, {name}, we do not give {q}',
  'we never ask for {q}',
  'nobody tells {q} here, {name}',
  'it is without {q}',
  'I will not pass on {q}',
];
const TALK = [
  'thanks for now',
  'Thank you, {name}',
  'That was all',
  'Good bye until {day}',
  'Yes, that is all',
  'see you at {time}',
  'Nothing else for now, thank you.',
  'We are done for now.',
];

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
function drawPlaced(context, words, id) {
  const { random } = context;
  const r = random.next();
  const template = r < 0.22 ? '{q}' : random.pick(r < 0.42 ? ALONE : r < 0.68 ? WITH_ID : AMONG);
  const bare = words.replace(/^an? /, '');
  return fill(template, context)
    .replaceAll('{q}', words)
    .replaceAll('{Q}', capital(words))
    .replaceAll('{bare}', bare)
    .replaceAll('{Bare}', capital(bare))
    .replaceAll('{id}', id);
}
function drawHarmless(context, phrases, id) {
  const { random } = context;
  const r = random.next();
  if (r < 0.25) return fill(random.pick(TALK), context);
  if (r < 0.5) return fill(random.pick(REFUSALS), context).replaceAll('{q}', random.pick(phrases));
  return drawPlaced(context, fill(random.pick(OTHER_WORDS), context), id);
}

/**
 * A text that quotes a rule, or one that only looks like it.
 * @param words of the rule; null: of none
 * @param phrases the words of all rules
 * @param id that may stand beside the words
 */
export function drawQuote(random, split, words, phrases, id) {
  const context = { random, split, booking: drawBooking(random, split) };
  const text = words === null ? drawHarmless(context, phrases, id) : drawPlaced(context, words, id);
  const spelling = random.next();
  if (spelling < 0.04) return text.toUpperCase();
  if (spelling < 0.08) return text.toLowerCase();
  return spelling < 0.12 ? `${text} ${random.pick(nouns)}` : text;
}
