// The closed world of the nano models: a front desk that books things. Word lists, the seeded generator and the split
// into training and held-out slots; the generators of desk, tickets and screening draw everything from here.

export const kinds = ['table', 'room', 'taxi', 'boat', 'bike', 'court', 'cabin', 'tour'];
export const weekdays = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'];
export const months = [
  'january',
  'february',
  'march',
  'april',
  'may',
  'june',
  'july',
  'august',
  'september',
  'october',
  'november',
  'december',
];
export const names = (
  'Rossi Weber Novak Silva Tanaka Okafor Larsen Dubois Garcia Kowalski Nagy Ivanova Haddad ' +
  'Murphy Jensen Moreau Schmidt Bianchi Costa Suzuki ' +
  'Mensah Berg Laurent Lopez Wolf Horvat Petrov Khalil Walsh Nielsen Fournier Keller Romano ' +
  'Santos Sato Diallo Lund Girard Torres Baker'
).split(' ');
/** Left halves of mail addresses, and filler of the copying tasks. */
export const nouns = (
  'amber anchor apple arrow basket birch bridge candle cedar cloud copper coral daisy ember falcon ' +
  'fern garden hazel island lantern lemon maple meadow mirror ocean olive paper pearl ' +
  'planet quartz river salmon silver stone tiger tulip valley violet walnut willow'
).split(' ');
export const staff = ['cook', 'clerk', 'driver', 'porter', 'waiter', 'guide'];
export const rudeWords = [
  'lazy',
  'stupid',
  'useless',
  'rotten',
  'dumb',
  'greedy',
  'clumsy',
  'mean',
  'nasty',
  'foolish',
];
export const rudeNouns = ['fool', 'clown', 'idiot', 'pig', 'liar', 'crook', 'moron', 'donkey', 'worm', 'rat'];
export const threatVerbs = ['hurt', 'beat', 'punish', 'ruin', 'crush', 'burn', 'chase', 'trap'];
export const threatTargets = ['you', 'him', 'her', 'them', 'your family', 'your dog', 'your house', 'your friends'];
export const kindWords = [
  'kind',
  'clever',
  'patient',
  'careful',
  'friendly',
  'quick',
  'gentle',
  'warm',
  'cheerful',
  'skilled',
];
export const kindNouns = [
  'friend',
  'helper',
  'person',
  'expert',
  'host',
  'artist',
  'teacher',
  'partner',
  'star',
  'hero',
];

/** mulberry32: 32 bits of state, the same numbers on every machine. */
export function createRandom(seed) {
  let a = seed >>> 0;
  const next = () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n) => Math.floor(next() * n);
  return { next, below, pick: (list) => list[below(list.length)], chance: (p) => next() < p };
}

/** FNV-1a, which decides on which side of the split a value falls. */
export function hash(text) {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  h ^= h >>> 12;
  return h >>> 0;
}

/** One value in eight is held out: it never occurs in a training file. */
export const isHeldout = (value) => hash(value) % 8 === 0;

/** Draws until the value lies on the wanted side. */
export function drawFrom(split, draw, key = (v) => v) {
  for (;;) {
    const value = draw();
    if (isHeldout(key(value)) === (split === 'heldout')) return value;
  }
}

const digits = (random, n, first = 0) =>
  Array.from({ length: n }, (_, i) => (i === 0 ? first + random.below(10 - first) : random.below(10))).join('');

/** A booking: the combination of the five slots is what the split goes by, each single word occurs on both sides. */
export function drawBooking(random, split) {
  return drawFrom(
    split,
    () => ({
      kind: random.pick(kinds),
      guests: 2 + random.below(11),
      day: random.chance(0.6) ? random.pick(weekdays) : `${1 + random.below(28)} ${random.pick(months)}`,
      time: `${String(7 + random.below(16)).padStart(2, '0')}:${random.pick(['00', '15', '30', '45'])}`,
      name: random.pick(names),
    }),
    (b) => `${b.kind}/${b.guests}/${b.day}/${b.time}/${b.name}`,
  );
}

/** What a guest may add to a booking; `topic` names the rule of a policy that forbids it. */
export const details = {
  phone: (random, split) => drawFrom(split, () => `${digits(random, 3, 2)}-${digits(random, 4)}`),
  card: (random, split) =>
    drawFrom(split, () => `${digits(random, 4, 3)}-${digits(random, 4)}-${digits(random, 4)}-${digits(random, 4)}`),
  mail: (random, split) => drawFrom(split, () => `${random.pick(nouns)}${digits(random, 2)}@mail.test`),
  code: (random, split) => drawFrom(split, () => digits(random, 5)),
  insult: (random, split) => drawFrom(split, () => `${random.pick(rudeWords)} ${random.pick(rudeNouns)}`),
};
/** Threats are never part of a booking, only of what the judge reads. */
export const drawThreat = (random, split) =>
  drawFrom(split, () => `${random.pick(threatVerbs)} ${random.pick(threatTargets)}`);
export const topics = Object.keys(details);
/** The harmless look-alike of an insult. */
export const drawPraise = (random, split) =>
  drawFrom(split, () => `${random.pick(kindWords)} ${random.pick(kindNouns)}`);
