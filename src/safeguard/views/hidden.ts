// Text that is carried by characters that nobody sees: tags, variation selectors as bytes, two kinds of zero width as
// bits. It is put in the place where it was hidden.

const TAGS = /\u{1f3f4}[\u{e0061}-\u{e007a}\u{e0030}-\u{e0039}]{1,6}\u{e007f}|[\u{e0001}-\u{e007e}]+\u{e007f}?/gu;
const SELECTORS = /[\ufe00-\ufe0f\u{e0100}-\u{e01ef}]{3,}/gu;
const BITS = /[\u200b-\u200f\u2060-\u2064\ufeff]{24,}/g;

const UTF8 = new TextDecoder('utf-8', { fatal: true });
/** Bytes as text; null: they are none. */
export function textOf(bytes: Uint8Array): string | null {
  let text: string;
  try {
    text = UTF8.decode(bytes);
  } catch {
    return null;
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: bytes that are no text have these
  return /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text) ? null : text;
}

function ofSelectors(run: string): string | null {
  const bytes = [...run].map((c) => {
    const code = c.codePointAt(0) ?? 0;
    return code < 0x10000 ? code - 0xfe00 : code - 0xe0100 + 16;
  });
  return textOf(Uint8Array.from(bytes));
}

/** Of two characters one is 0 and the other 1: both ways are tried. */
function ofBits(run: string): string | null {
  const kinds = [...new Set(run)];
  if (kinds.length !== 2) return null;
  for (const one of kinds) {
    const bits = [...run].map((c) => (c === one ? '1' : '0')).join('');
    const bytes = bits.slice(0, bits.length - (bits.length % 8)).match(/.{8}/g) ?? [];
    const text = textOf(Uint8Array.from(bytes, (b) => Number.parseInt(b, 2)));
    if (text !== null && /[A-Za-z]/.test(text)) return text;
  }
  return null;
}

/** Hidden in what was hidden, and again. */
const MAX_DEPTH = 3;
/** The text with what it hides; itself where it hides nothing. */
export function revealed(text: string): string {
  let seen = text;
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const next = once(seen);
    if (next === seen) break;
    seen = next;
  }
  return seen;
}
function once(text: string): string {
  // biome-ignore lint/suspicious/noMisleadingCharacterClass: these stand alone
  if (!/[\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff\udb40]/.test(text)) return text;
  return text
    .replaceAll(TAGS, (run) =>
      // Flags of regions are written with tags.
      run.startsWith('\u{1f3f4}')
        ? run
        : ` ${[...run]
            .map((c) => String.fromCharCode((c.codePointAt(0) ?? 0) & 0x7f))
            .join('')
            .replaceAll('\x7f', '')} `,
    )
    .replaceAll(SELECTORS, (run) => {
      const hidden = ofSelectors(run);
      return hidden === null ? run : ` ${hidden} `;
    })
    .replaceAll(BITS, (run) => {
      const hidden = ofBits(run);
      return hidden === null ? run : ` ${hidden} `;
    });
}
