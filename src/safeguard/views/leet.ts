// Words written with figures in the place of letters: `b0mb`, `3xpl0s1v3`, `p4$$w0rd`. Figures at the end or beginning
// of a word are numbers (19th, mp3, v2), and some words are written so by everybody.
const LETTERS: Readonly<Record<string, string>> = {
  '0': 'o',
  '1': 'i',
  '3': 'e',
  '4': 'a',
  '5': 's',
  '7': 't',
  '8': 'b',
  '9': 'g',
  '@': 'a',
  $: 's',
  '!': 'i',
  '|': 'l',
  '+': 't',
};
const WORD = /[A-Za-z0-9@$!|]{3,24}/g;
const USUAL = /^(?:b2b|b2c|c2c|p2p|e2e|i18n|l10n|a11y|k8s|w3c|s3c|x86|h264|h265|r2d2|o2o|f2f|sha\d+|utf\d+|base\d+)$/i;
/** A figure between letters, or several at the head of more letters. */
const INSIDE = /[A-Za-z][01345789@$!|]{1,3}[a-z]|[A-Z][01345789@$!|]{1,3}[A-Z]/;
const LEADING = /^[013457@$][A-Za-z]{2}/;

function isLeet(word: string): boolean {
  if (USUAL.test(word)) return false;
  const letters = word.match(/[A-Za-z]/g)?.length ?? 0;
  const figures = word.length - letters;
  // Digests and identifiers are half figures; two and six are no letters.
  if (letters < 2 || figures > letters + 1 || /[26]/.test(word)) return false;
  if (/^[0-9a-fA-F]{8,}$/.test(word)) return false;
  return INSIDE.test(word) && (figures > 1 || letters > 2 || LEADING.test(word) || /^[a-z0-9]+$/i.test(word));
}

/** Among such words others with figures are no numbers: `th3`, `0f`. */
const OTHERS = /(?<![A-Za-z0-9@$.])(?=[0-9@$]*[A-Za-z])(?=[A-Za-z]*[0-9@$])[A-Za-z0134579@$]{2,24}(?![A-Za-z0-9@$])/g;
const plain = (word: string): string => [...word].map((c) => LETTERS[c] ?? c).join('');

export function leetView(text: string): string {
  if (!INSIDE.test(text)) return text;
  const seen = text.replaceAll(WORD, (word: string, at: number) => {
    // An address of mail: rossi@example.org.
    if (word.includes('@') && /^[A-Za-z0-9-]*\.[A-Za-z]/.test(text.slice(at + word.length, at + word.length + 80)))
      return word;
    return isLeet(word) ? plain(word) : word;
  });
  return seen === text ? text : seen.replaceAll(OTHERS, plain);
}
