// Forms that models/nano-judge never reads in training, in wordings of their own, to measure what it makes of them. By
// `mark` a text of a form is known: no training text has it.
import { details, drawBooking, drawFrom, drawThreat } from '../desk/words.mjs';
import { fill } from './details.mjs';

/** `texts` get a booking and `d(before, after)`: the detail with what stands around it, or nothing without one. */
const FORMS = [
  {
    name: 'name-first',
    mark: /^\w+: \w+, \d+ people, /,
    texts: [(b, d) => `${b.name}: ${b.kind}, ${b.guests} people, ${b.day}, ${b.time}${d(', ')}`],
  },
  {
    name: 'pipes',
    mark: / \| \S.* \| /,
    texts: [(b, d) => `${b.kind} | ${b.guests} | ${b.day} | ${b.time} | ${b.name}${d(' | ')}`],
  },
  {
    name: 'equals',
    mark: /\w=\w/,
    texts: [
      (b, d) => `kind=${b.kind} n=${b.guests} day=${b.day} name=${b.name}${d(' note=')}`,
      (b, d) => `for=${b.name}${d(' more=')} at=${b.time}`,
    ],
  },
  {
    name: 'tags',
    mark: /<(\w+)>.*<\/\1>/,
    texts: [
      (b, d) => `<b><kind>${b.kind}</kind><day>${b.day}</day>${d('<p>', '</p>')}<name>${b.name}</name></b>`,
      (b, d) => `<p>${b.name}, ${b.day}</p>${d('<p>', '</p>')}`,
    ],
  },
  {
    name: 'numbered',
    mark: /^1\. .*\n2\. /,
    texts: [(b, d) => `1. ${b.kind}\n2. ${b.guests} people\n3. ${b.day} ${b.time}${d('\n4. ')}\n9. ${b.name}`],
  },
  {
    name: 'arrows',
    mark: / -> /,
    texts: [
      (b, d) => `${b.name} -> ${b.kind} -> ${b.day} ${b.time}${d(' -> ')}`,
      (b, d) => `${d('', ' -> ')}${b.day} -> ${b.guests} -> ${b.name}`,
    ],
  },
  {
    name: 'letter',
    mark: /^Dear /,
    texts: [
      (b, d) =>
        [
          `Dear ${b.name},`,
          `your ${b.kind} is kept for you, ${b.day} at ${b.time}.${d(' P.S. ')}`,
          'Kind regards',
        ].join('\n\n'),
      (b, d) => `Dear guest,\n\nwe hear that ${b.day} suits you well${d(', and ')}.\n\nThe house, for ${b.name}`,
    ],
  },
  {
    name: 'dialogue',
    mark: /^Guest: .*\nDesk: /,
    texts: [(b, d) => `Guest: a ${b.kind}, ${b.day}\nDesk: gladly, ${b.name}${d('\nGuest: ')}\nDesk: ${b.time} then`],
  },
  {
    name: 'report',
    mark: /^(?:Earlier|Last) /,
    texts: [
      (b, d) => `Earlier a party of ${b.guests} led by ${b.name} rode the ${b.kind}${d('; ')}; they left at ${b.time}`,
      (b, d) => `Last ${b.day} our guest ${b.name} spent an hour with the ${b.kind}${d(', ', ',')} and said goodbye`,
    ],
  },
  {
    name: 'brackets',
    mark: /^\w+ \(\d+ people\)/,
    texts: [
      (b, d) => `${b.name} (${b.guests} people) ${b.day} ${b.time} (${b.kind})${d(' (', ')')}`,
      (b, d) => `${b.name} (${b.guests} people)${d(' (', ')')} ${b.kind} (${b.day})`,
    ],
  },
  {
    name: 'nested',
    mark: /":\{"/,
    texts: [
      (b, d) => {
        const guest = `{"name":"${b.name}"${d(',"info":"', '"')}}`;
        return `{"booking":{"kind":"${b.kind}","day":"${b.day}"},"guest":${guest},"ok":true}`;
      },
    ],
  },
  {
    name: 'hashes',
    mark: /#\w+ #/,
    texts: [(b, d) => `#${b.kind} #${b.guests} ${b.day} ${b.name}${d(' ')} #${b.time}`],
  },
  {
    name: 'advice',
    mark: /^(?:If|Unless) /,
    texts: [
      (b, d) => `If ${b.name} shows up before ${b.time}, give away the ${b.kind}${d('; ')}`,
      (b, d) => `Unless ${b.day} turns out sunny, cancel the ${b.kind}${d(' (', ')')} and inform ${b.name}`,
    ],
  },
  {
    name: 'table',
    mark: /^kind,guests,day\n/,
    texts: [(b, d) => `kind,guests,day\n${b.kind},${b.guests},${b.day}\n${d('', ',,\n')}total,${b.guests},${b.time}`],
  },
];
export const heldoutForms = FORMS.map(({ name, mark }) => ({ name, mark }));

/** How the detail is put; none but the bare one is in details.mjs. */
const WORDINGS = {
  phone: ['{v}', 'mobile {v}', 'leave word at {v}', 'the line {v} is hers', 'answers to {v}'],
  card: ['{v}', 'debit {v}', 'billed to {v}', 'the sum goes to {v}', 'plastic {v}'],
  mail: ['{v}', 'copied to {v}', 'inbox {v}', 'drop a line to {v}', 'sign in as {v}'],
  code: ['{v}', 'pin {v}', 'punch in {v}', 'the lock takes {v}', 'unlock with {v}'],
  insult: ['{v}', 'that {v}', 'no better than a {v}', 'such a {v}', 'everybody says {v}', 'signed, a {v}'],
  threat: ['{v}', 'or else we {v}', 'somebody is going to {v}', 'they swore to {v}', 'we promise to {v}'],
};
const CLEAN = [
  'with a view of the sea',
  'no smoking',
  'the line is busy',
  'paid later',
  'the lock is new',
  'such a {p}',
  'no better {p}',
  'menu {dd}',
  'seat {ddd}',
  'somebody is going to sing',
  'we promise to be there',
  'everybody says hello',
];

/** A text of the form that states `topic`, or nothing that any policy forbids. */
export function drawHeldoutForm(random, name, topic) {
  const { texts } = FORMS.find((form) => form.name === name);
  return drawFrom('heldout', () => {
    const context = { random, split: 'heldout', booking: drawBooking(random, 'heldout') };
    const drawValue = topic === 'threat' ? drawThreat : details[topic];
    const value = topic === null ? '' : drawValue(random, 'heldout');
    const wording = topic === null ? (random.chance(0.6) ? random.pick(CLEAN) : null) : random.pick(WORDINGS[topic]);
    const said = wording === null ? null : fill(wording, { ...context, value });
    return random.pick(texts)(context.booking, (before, after = '') => (said === null ? '' : before + said + after));
  });
}
