// Rules that no id with a digit begins: called by words (`spam`, `self-harm/intent`) or by letters (`a)`, `(b)`). Words
// stand at the head of many lines, so they are rules only where nothing else can be meant; doubtful lines are named.

/** What a line may be called, with its place and how sure that is. */
export interface Named {
  readonly kind: 'word' | 'letter';
  readonly id: string;
  readonly says: string;
  /** From 1. */
  readonly line: number;
  /** Back-ticked: the author wrote a name. */
  readonly quoted: boolean;
  /** Why it may be no rule, or one that cannot be cited; null: it is one. */
  readonly doubt: string | null;
}

const WORD = String.raw`[A-Za-z][A-Za-z0-9]{0,31}(?:[-_/][A-Za-z0-9]{1,31}){0,4}`;
const AT_HEAD = new RegExp(
  String.raw`^[ \t]{0,40}((?:[-*+•>]|#{1,6}|\|)[ \t]+)?([*_]{0,3})(\x60?)(${WORD}(?:[ \t]${WORD}){0,4})(\x60?)` +
    String.raw`[*_]{0,3}[ \t]{0,40}(?:([:|–—])[*_]{0,3}|(-)[ \t]|([^ \t:|–—-])|$)(.*)$`,
  'u',
);
const LETTERED = /^[ \t]{0,40}(?:[-*+•>][ \t]+)?[*_]{0,3}\(?([A-Za-z])[.)][*_]{0,3}[ \t]+(\S.*)$/u;
/** As long as a verdict's rule may be. */
const MAX_ID = 32;
/** Heads of lines that say something about the text, the answer or the policy. */
const OTHER_HEADS = new Set(
  (
    'a an and answer allow allowed also always analysis assistant author background be block blocked but categories ' +
    'category caution channel commentary content context criteria date decide decision definition definitions ' +
    'description developer do else example examples exception exceptions exclude excludes ' +
    'false final flag for format ' +
    'goal guideline guidelines hint id if important in include includes ' +
    'input instruction instructions invalid it json ' +
    'key kind label labels level likewise meaning message method must name never no nonce none not ' +
    'note notes null of or other ' +
    'otherwise output overview policies policy procedure process prompt purpose question rationale reason reasoning ' +
    'reference references response role rule rules safe scope score section see severity so ' +
    'step steps summary system ' +
    'task terms text that the then there these they this tip title todo tool true type unsafe ' +
    'user valid value verdict ' +
    'version violates violation violations warning we when where yes you'
  ).split(' '),
);

/** The word or letter that heads a line; null: neither. */
export function namedBy(text: string, line: number): Named | null {
  const letter = LETTERED.exec(text);
  if (letter) return { kind: 'letter', id: letter[1] ?? '', says: letter[2] ?? '', line, quoted: false, doubt: null };
  const match = AT_HEAD.exec(text);
  if (!match) return null;
  const [, mark, , open, id = '', close, sign, dash, more, says = ''] = match;
  const quoted = open !== '' && close !== '';
  const ends = sign !== undefined || dash !== undefined || more !== undefined;
  // Text goes on after it: a name only where it was written as one.
  if (more !== undefined && !(quoted && /[*_\x60][ \t]+$/.test(text.slice(0, text.length - says.length - 1))))
    return null;
  if (OTHER_HEADS.has(id.toLowerCase()) || (!mark && !quoted && !ends) || (open === '') !== (close === '')) return null;
  const table = sign === '|' || mark?.startsWith('|') === true;
  const doubt =
    id.includes(' ') || id.includes('\t')
      ? 'a name of several words cannot be cited'
      : id.length > MAX_ID
        ? `a name of more than ${MAX_ID} letters cannot be cited`
        : quoted
          ? null
          : !ends
            ? 'a word alone may be anything'
            : id === id.toLowerCase()
              ? null
              : 'a word with capitals may be a heading';
  // Prose has colons too: a sentence's first words are no name.
  if (doubt !== null && !mark && !table) return null;
  return { kind: 'word', id, says: (more ?? '') + says, line, quoted, doubt };
}

export interface Chosen {
  readonly rules: readonly Named[];
  /** Where there are none: the lines that may be some, and what to do; null: no line may. */
  readonly doubt: string | null;
}
const linesOf = (of: readonly Named[]): string => {
  const numbers = of.slice(0, 6).map((n) => n.line);
  return `line${numbers.length > 1 ? 's' : ''} ${numbers.join(', ')}${of.length > numbers.length ? ', …' : ''}`;
};
const shown = (of: readonly Named[]): string =>
  of
    .slice(0, 3)
    .map((n) => `"${n.id}"`)
    .join(', ');

/**
 * The rules among what `namedBy` found in order. @param isRule whether its line stands among rules, and not under what
 * is allowed
 */
export function chooseNamed(found: readonly Named[], isRule: (n: Named) => boolean): Chosen {
  const words = found.filter((n) => n.kind === 'word' && isRule(n)),
    sure = words.filter((n) => n.doubt === null);
  // One line of a word and a colon is as well a remark.
  if (sure.length > 1 || sure[0]?.quoted) return { rules: sure, doubt: null };
  const letters = found.filter((n) => n.kind === 'letter'),
    mine = letters.filter(isRule);
  const first = letters[0]?.id.charCodeAt(0) ?? 0;
  const inOrder = letters.every((n, i) => n.id.charCodeAt(0) === first + i);
  if (mine.length > 0 && letters.length > 1 && inOrder && /^a$/i.test(letters[0]?.id ?? ''))
    return { rules: mine, doubt: null };
  const say = (of: readonly Named[], why: string, next: string): Chosen => ({
    rules: [],
    doubt: `${linesOf(of)} may be rules (${shown(of)}), but ${why}: ${next}`,
  });
  if (mine.length > 1)
    return say(mine, 'their letters do not run from a on, each once', 'give each an id of its own, as in "R1: …"');
  const [one] = sure;
  if (one) return say([one], 'one such line may be a remark', `write it as "- \`${one.id}\`: …", or as "R1: …"`);
  const doubtful = words.filter((n) => n.doubt !== null);
  if (doubtful.length === 0) return { rules: [], doubt: null };
  return say(doubtful, doubtful[0]?.doubt ?? '', 'begin each with an id, as in "- `hate-speech`: …" or "R1: …"');
}
