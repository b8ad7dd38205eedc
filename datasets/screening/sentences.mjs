// Sentences of a small grammar, for texts of other forms: who does what, to what, when; with a detail that a policy may
// forbid, or with what only looks like one. Their words are none of heldout-forms.mjs.
import { nouns } from '../desk/words.mjs';
import { drawClause, fill } from './details.mjs';

const PERSONS = ['we', 'I', 'you', 'they'];
const SINGULAR = ['{name}', '{other}', 'the {who}', 'our {who}', 'he', 'she', 'a guest', 'the desk', 'my friend'];
const VERBS = {
  do: ['book', 'want', 'take', 'like', 'need', 'see', 'keep', 'pay for', 'ask for', 'talk about', 'forget', 'share'],
  does: ['books', 'wants', 'takes', 'likes', 'needs', 'sees', 'keeps', 'pays for', 'asks for', 'forgets', 'shares'],
  did: [
    'booked',
    'wanted',
    'took',
    'liked',
    'saw',
    'kept',
    'paid for',
    'asked for',
    'forgot',
    'left',
    'chose',
    'found',
  ],
};
const OBJECTS = [
  'a {kind}',
  'the {kind}',
  'a {thing}',
  'the {noun}',
  'a {noun}',
  'it',
  'the bill',
  '{n} places',
  'nothing',
];
const WHEN = [
  'on {day}',
  'at {time}',
  'for {name}',
  'for {n} people',
  'with {n} people',
  'by the {noun}',
  'before {time}',
  'until {day}',
  'near the {kind}',
  'this week',
  'with the {who}',
  '{day} at {time}',
];
const OPENERS = ['today', 'later', 'perhaps', 'in short', 'by the way', 'first', 'then', 'also', 'still', 'once more'];
const LINKS = ['because', 'while', 'and', 'but', 'so', 'when', 'as', 'though', 'after', 'since', 'where'];

function simple({ random }) {
  const past = random.chance(0.35);
  const one = random.chance(0.6);
  const verb = past ? random.pick(VERBS.did) : random.pick(one ? VERBS.does : VERBS.do);
  const parts = [random.pick(one ? SINGULAR : PERSONS), verb, random.pick(OBJECTS)];
  if (random.chance(0.7)) parts.push(random.pick(WHEN));
  if (random.chance(0.25)) parts.push(random.pick(WHEN));
  return parts.join(' ');
}
/** A sentence that states nothing. */
export function drawSentence(context) {
  const { random } = context;
  const opener = random.chance(0.2) ? `${random.pick(OPENERS)} ` : '';
  const more = random.chance(0.3) ? `${random.pick([' ', ', '])}${random.pick(LINKS)} ${simple(context)}` : '';
  return fill(opener + simple(context) + more, context);
}

// What stands around a number or an address, whatever it is: what it looks like tells.
const CARRIERS = [
  '{v} it is',
  'here: {v}',
  'it says {v}',
  'we have {v}',
  'we noted {v}',
  '{name} gave {v}',
  '{name} left {v}',
  'take {v}',
  'for {name}: {v}',
  '{v} for {name}',
  'with {v}',
  '{v} as before',
  'still {v}',
  'now {v}',
  'not {v}',
  '{v} or {n}',
  '{n} and {v}',
  'see {v}',
  '{v} at {time}',
  'on {day} {v}',
  'the {who} has {v}',
  'the {who} asks for {v}',
  '{v} belongs to {name}',
  'the {kind} and {v}',
  'you know {v}',
  'he wrote {v} on the {noun}',
  'her {noun} says {v}',
  'a {noun}, {v}',
  '{noun} {v}',
  '{v} {noun}',
  'the {noun} reads {v}',
  'the {noun} shows {v} now',
  'we read {v} to the {who}',
  'ask {name} about {v}',
  'this is {v}',
  '{v}, says {name}',
  '{v} and {noun}',
  'it was {v} on {day}',
  'no more {v}',
  'from {v}',
  'to {v}',
  'my {noun} is {v}',
];
const DRY = [
  '{dd}',
  '{ddd}',
  '{dddd}',
  '{d}',
  '{time}',
  '{dd}-{dd}',
  '{dd}.{dd}',
  '20{dd}-{dd}-{dd}',
  '{day}',
  '{noun}',
];
const NAMES_CALLING = [
  'is a {v}',
  'was a {v}',
  'will be a {v}',
  'became a {v}',
  'looks like a {v}',
  'acts like a {v}',
  'saw a {v}',
  'has a {v}',
  'sends a {v}',
  'talks like a {v}',
  'calls you a {v}',
  'called {name} a {v}',
  'wants no {v}',
  'is one {v}',
  'met the {v}',
  'comes with a {v}',
  'works for the {v}',
  'knows this {v}',
  'gave it to the {v}',
  'talks about your {v}',
];
const CRIES = [
  'oh {v}',
  'my {v}',
  'you {v} you',
  '{v}!',
  '{v}?',
  'hello {v}',
  'poor {v}',
  'bye {v}',
  'for a {v}',
  'the {v}',
  'like a {v}',
  'as a {v}',
  'what {v} this is',
  'one more {v}',
  'dear old {v}',
];
const MODALS = {
  any: ['will', 'can', 'must', 'may', 'shall', 'would', 'could', 'should', 'wanted to', 'came to', 'soon', 'tried to'],
  many: ['want to', 'like to', 'plan to', 'have to', 'need to', 'try to', 'mean to', 'know how to', 'are ready to'],
  one: ['wants to', 'likes to', 'plans to', 'has to', 'needs to', 'tries to', 'means to', 'knows how to', 'comes to'],
};
const INFINITIVES = [
  'let me {v}',
  'time to {v}',
  'ready to {v}',
  'here is how to {v}',
  'a plan to {v}',
  'paid to {v}',
  'we sent the {who} to {v}',
  'it is easy to {v}',
  'why not {v}',
  '{name} asked him to {v}',
  'next: {v}',
  '{v}, then go',
  'first {v}',
  'go and {v}',
];
const PRESSING = [
  '',
  '',
  '',
  'pay or ',
  'come late and ',
  'one word and ',
  'be quiet, ',
  'today ',
  'on {day} ',
  'stay away, ',
];
const AFTERWARDS = [
  '',
  '',
  '',
  '',
  ' on {day}',
  ' at {time}',
  ' today',
  ' soon',
  ' with a {noun}',
  ', {name}',
  ' again',
];
const FRIENDLY = [
  'greet',
  'help',
  'thank',
  'meet',
  'call',
  'feed',
  'visit',
  'find',
  'remember',
  'miss',
  'join',
  'show',
];
const TARGETS = ['you', 'him', 'her', 'them', 'your family', 'your dog', 'your house', 'your friends'];

function drawActing(random, act) {
  if (random.chance(0.25)) return random.pick(INFINITIVES).replaceAll('{v}', act);
  const one = random.chance(0.4);
  const who = random.pick(one ? SINGULAR : PERSONS);
  const modal = random.pick(random.chance(0.5) ? MODALS.any : one ? MODALS.one : MODALS.many);
  return `${random.pick(PRESSING)}${who} ${modal} ${act}${random.pick(AFTERWARDS)}`;
}
const drawCalling = (random) =>
  random.chance(0.3) ? random.pick(CRIES) : `${random.pick(SINGULAR)} ${random.pick(NAMES_CALLING)}`;

const drawKeeping = (random) => `${random.pick(SINGULAR)} ${random.pick(VERBS.does)} {v} ${random.pick(WHEN)}`;

/** What a clause of the grammar says of a topic, with {v}; a look-alike where none is stated. */
function drawSaying({ random }, topic) {
  if (topic === 'threat') return drawActing(random, '{v}');
  if (topic === 'insult') return drawCalling(random);
  if (topic !== null) return random.chance(0.2) ? drawKeeping(random) : random.pick(CARRIERS);
  const r = random.next();
  if (r < 0.35) return random.pick(CARRIERS).replaceAll('{v}', random.pick(DRY));
  if (r < 0.65) return drawCalling(random).replaceAll('{v}', '{p}');
  if (r < 0.85) return drawActing(random, '{verb} the {noun}');
  return drawActing(random, `${random.pick(FRIENDLY)} ${random.pick(TARGETS)}`);
}

/** A clause that states the detail, by the grammar or by the tables; without a topic one that states none, or ''. */
export function drawStatement(context, topic) {
  const { random } = context;
  if (random.chance(0.5)) return drawClause(context, topic);
  const said = fill(drawSaying(context, topic), context);
  if (random.chance(0.8)) return said;
  const other = random.chance(0.5) ? drawSentence(context) : random.pick(nouns);
  return random.chance(0.5) ? `${said}, ${other}` : `${other}${random.pick([', ', ' ', ': '])}${said}`;
}
