// What is shown on a terminal: colour where there is one and nobody forbids it (NO_COLOR, FORCE_COLOR), and text of a
// model that cannot drive it.
import { styleText } from 'node:util';
import type { Show } from '../compose/turn.js';
import { channelLabel } from '../safeguard/contract.js';

type Style = Parameters<typeof styleText>[0];
type Stream = NodeJS.WriteStream;
/** `text` in that style, or as it is where the stream shows no colours. */
export const styled = (style: Style, text: string, stream: Stream = process.stdout): string =>
  styleText(style, text, { stream, validateStream: true });

/**
 * Text of a model, a file or a name must not drive the terminal, nor change the order of what stands beside it: control
 * characters but tab and newline, and those of direction, are made visible.
 */
export const printable = (text: string): string =>
  text.replaceAll(/(?![\t\n])\p{Cc}|[\u202a-\u202e\u2066-\u2069\u2028\u2029]/gu, (c) => {
    const code = c.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16)}`;
  });

/** Analysis and other channels go to stderr, dimmed on a terminal; final goes to stdout, a notice for it in yellow. */
export function createShow(): { readonly show: Show; end(): void } {
  let current: string | null = null;
  const streamOf = (channel: string): Stream => (channel === 'final' ? process.stdout : process.stderr);
  const end = (): void => {
    if (current !== null) streamOf(current).write('\n');
    current = null;
  };
  return {
    end,
    show(channel, text, withheld) {
      const to = streamOf(channel);
      const say = (piece: string): void => {
        const style: Style | null = channel !== 'final' ? 'dim' : withheld ? 'yellow' : null;
        to.write(style ? styled(style, piece, to) : piece);
      };
      if (channel !== current) {
        end();
        if (channel !== 'final') say(`${channelLabel(channel)}: `);
        current = channel;
      }
      say(printable(text));
    },
  };
}
