// Records in a style that is drawn for each text: what stands between, before and around its parts. There are more such
// styles than texts; signs and orders of the forms in heldout-forms.mjs are not among them.
const SIGNS = [
  ',',
  ';',
  '/',
  '-',
  '.',
  ':',
  '+',
  '*',
  '~',
  '_',
  '&',
  '%',
  '!',
  '>',
  '<',
  '^',
  '"',
  '@',
  '·',
  '•',
  '—',
  '»',
];
const BETWEEN = [' and ', ' then ', ' with ', ' plus ', ', also ', ', then ', ' next ', ' but '];
const AROUND = [
  ['[', ']'],
  ['{', '}'],
  ['"', '"'],
  ["'", "'"],
  ['*', '*'],
  ['**', '**'],
  ['_', '_'],
  ['~', '~'],
  ['`', '`'],
  ['- ', ''],
  ['* ', ''],
  ['> ', ''],
  ['+ ', ''],
  ['the ', ''],
  ['', '!'],
  ['', '.'],
  ['', ';'],
];
const OUTER = [
  ['{ ', ' }'],
  ['[', ']'],
  ['(', ')'],
  ['"', '"'],
  ['```\n', '\n```'],
  ['*** ', ' ***'],
  ['--- ', ''],
  ['', ' ---'],
  ['> ', ''],
  ['~ ', ' ~'],
  ['', ' (end)'],
  ['', ' etc.'],
];
const HEADS = [
  'Booking',
  'Record',
  'Desk',
  'New',
  'Today',
  'For the file',
  'Plan',
  'Card',
  'Note',
  'Entry',
  'Copy',
  'OK',
];
const JOINTS = [
  ' ',
  ': ',
  ':',
  ' - ',
  '-',
  ' is ',
  '/',
  ' / ',
  ' ~ ',
  '.',
  '. ',
  '_',
  ' : ',
  ', ',
  ' * ',
  '>',
  '\n',
  '... ',
];

const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);
function drawSeparator(random) {
  const r = random.next();
  const sign = random.pick(SIGNS);
  if (r < 0.2) return `${sign} `;
  if (r < 0.35) return ` ${sign} `;
  if (r < 0.43) return sign;
  if (r < 0.53) return ` ${sign}${random.pick(SIGNS)} `;
  if (r < 0.58) return `${sign}\n`;
  if (r < 0.78) return '\n';
  if (r < 0.82) return '\n\n';
  if (r < 0.9) return random.pick([' ', '  ', '   ', '\t']);
  return random.pick(BETWEEN);
}
/** How a part is marked by its place: `a) `, `(2) `, `[3] `, or not at all. */
function drawNumbering(random) {
  if (random.chance(0.85)) return () => '';
  const count = random.chance(0.5) ? (i) => String(i + 1) : (i) => 'abcdefgh'[i];
  const [before, after] = random.pick([
    ['', ') '],
    ['(', ') '],
    ['[', '] '],
    ['', ' - '],
    ['', ': '],
    ['No ', ' '],
    ['', '/ '],
  ]);
  return (i) => before + count(i) + after;
}
/** How a part says what it is. */
function drawLabel(random) {
  if (random.chance(0.4)) return (_, value) => value;
  const spelt = random.pick([(k) => k, (k) => k, capitalised, capitalised, (k) => k.toUpperCase(), (k) => k.charAt(0)]);
  const joint = random.pick(JOINTS);
  if (random.chance(0.1)) return (key, value) => `${value}${joint}${spelt(key)}`;
  return (key, value) => spelt(key) + joint + value;
}

/**
 * Parts of a record in a style of its own.
 * @param fields [key, value] of each part
 */
export function styled(random, fields) {
  const separator = drawSeparator(random);
  const number = drawNumbering(random);
  const label = drawLabel(random);
  const [open, close] = random.chance(0.3) ? random.pick(AROUND) : ['', ''];
  const [first, last] = random.chance(0.2) ? random.pick(OUTER) : ['', ''];
  const head = random.chance(0.2) ? random.pick(HEADS) + random.pick([':', ' ', ': ', '\n', ' - ', '. ', ':\n']) : '';
  const parts = fields.map(([key, value], i) => number(i) + open + label(key, value) + close);
  return first + head + parts.join(separator) + last;
}
