// What is shown on a terminal: colour where there is one and nobody forbids it (NO_COLOR, FORCE_COLOR), and text of a
// model that cannot drive it.
import { styleText } from 'node:util';
import type { Show } from '../compose/turn.js';
import { channelLabel } from '../safeguard/contract.js';

type Style = Parameters<typeof styleText>[0];
type Stream = NodeJS.WriteStream;

/**
 * Text of a model, a file or a name must not drive the terminal, nor change the order of what stands beside it: control
 * characters but tab and newline, and those of direction, are made visible.
 */
export const printable = (text: string): string =>
  text.replaceAll(/(?![\t\n])\p{Cc}|[\u202a-\u202e\u2066-\u2069\u2028\u2029]/gu, (c) => {
    const code = c.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16)}`;
  });

/** `text` made printable and in that style, or without it where the stream shows no colours. */
export const styled = (style: Style, text: string, stream: Stream = process.stdout): string =>
  styleText(style, printable(text), { stream, validateStream: true });

/** Printable, and without a line break: one in a name makes no line that looks like one of ours. */
export const oneLine = (text: string): string => printable(text).replaceAll('\n', '\\n');
const write = (stream: Stream, lines: readonly string[]): void =>
  void stream.write(lines.map((line) => `${oneLine(line)}\n`).join(''));
/**
 * Lines for people on stdout. They hold names and texts of files: these drive no terminal, and make no line that looks
 * like one of ours. No command writes to a stream by itself; a test looks.
 */
export const print = (...lines: readonly string[]): void => write(process.stdout, lines);
/** The same on stderr. */
export const tell = (...lines: readonly string[]): void => write(process.stderr, lines);
/** Text whose every piece of data `styled`, `printable` or `oneLine` has made safe. */
export const printStyled = (text: string): void => void process.stdout.write(text);
/** Text of our own alone, as it is. */
export const tellOwn = (text: string): void => void process.stderr.write(text);

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
        to.write(style ? styled(style, piece, to) : printable(piece));
      };
      if (channel !== current) {
        end();
        if (channel !== 'final') say(`${channelLabel(channel)}: `);
        current = channel;
      }
      say(text);
    },
  };
}
