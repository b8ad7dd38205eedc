// What a token says where its log-probability is told: its text, or its bytes where these are none by themselves.
import { expect, it } from 'vitest';
import { tokenText } from '../../src/serve/chat-response.js';

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
function plainly(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    return `bytes:${[...bytes].map((b) => `\\x${b.toString(16).padStart(2, '0')}`).join('')}`;
  }
}

it('is what a strict decoder reads, or the bytes', () => {
  const odd = ['', '\ufeffa', 'é', '日本', '🚀', '\u0000'].map((text) => new TextEncoder().encode(text));
  const broken = [[0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xc0, 0xaf], [0xf0, 0x9f, 0x9a], [0x80]];
  const all = [...odd, ...broken.map((b) => Uint8Array.from(b))];
  for (let first = 0; first < 256; first++)
    for (const more of [[], [0x41], [0x80], [0xbf, 0x80], [0x9f, 0x9a, 0x80]]) all.push(Uint8Array.of(first, ...more));
  for (const bytes of all) expect(tokenText(bytes)).toBe(plainly(bytes));
  expect(tokenText(Uint8Array.of(0xe2, 0x82))).toBe('bytes:\\xe2\\x82');
});
