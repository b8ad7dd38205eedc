// One line of progress on stderr: rewritten in place on a terminal, a line every few seconds elsewhere.
import { formatBytes, formatRate, formatSeconds } from '../base/units.js';
import { type Device, describeDevice, HOST } from '../native/backends.js';
import { printable, tell } from './terminal.js';

/** Names a device that is not the CPU, and on a terminal why it is the CPU; scripts' stderr stays as it was. */
export function sayDevice(device: Device): void {
  if (device.place !== HOST || process.stderr.isTTY) tell(`device: ${describeDevice(device)}`);
}

export interface Progress {
  /**
   * @param done units finished so far
   * @param fields are shown too, e.g. `loss 1.23  lr 1e-4`, as far as there is room
   * @param total units in all, where it is known by now
   */
  update(done: number, fields?: string, total?: number): void;
  /** Ends the line; `summary` replaces it. */
  finish(summary?: string): void;
}
export interface ProgressOptions {
  readonly label: string;
  /** Units in all, if known: gives percent and, once it can be told, the time that is left. */
  readonly total?: number;
  /** Unit of the rate, e.g. `tokens`. */
  readonly unit: string;
  readonly quiet?: boolean;
  readonly stream?: { write(text: string): unknown; readonly isTTY?: boolean; readonly columns?: number };
  /** Clock in ms, for tests. */
  readonly now?: () => number;
}

const TTY_INTERVAL_MS = 100;
const LOG_INTERVAL_MS = 10_000;
/** Where a stream does not say how wide it is, and in logs. */
const COLUMNS = 80;
/** A rate is said after this long, the time that is left after so much of the work as well. */
const RATE_AFTER_MS = 1000;
const LEFT_AFTER_MS = 3000;
const LEFT_AFTER_SHARE = 0.01;

/** The line with as many of `parts` as there is room for; the first ones matter most. */
function fitting(head: string, parts: readonly string[], columns: number): string {
  let line = head;
  for (const part of parts) if (part && line.length + 2 + part.length < columns) line += `  ${part}`;
  return printable(line)
    .replaceAll('\n', ' ')
    .slice(0, columns - 1);
}

const counted = (done: number, unit: string): string => (unit === 'bytes' ? formatBytes(done) : `${done} ${unit}`);

export function createProgress(options: ProgressOptions): Progress {
  const { label, unit, quiet = false, stream = process.stderr, now = Date.now } = options;
  // What came before the first report, such as opening a model, is no part of the rate.
  let first: { readonly at: number; readonly done: number } | undefined;
  let last = -Infinity;
  let drawn = false;
  return {
    update(done, fields = '', total = options.total) {
      const t = now();
      first ??= { at: t, done };
      // A terminal that cannot move its cursor is as good as a file.
      const tty = stream.isTTY === true && process.env.TERM !== 'dumb';
      if (quiet || t - last < (tty ? TTY_INTERVAL_MS : LOG_INTERVAL_MS)) return;
      last = t;
      const [passed, did] = [t - first.at, done - first.done];
      const rate = passed >= RATE_AFTER_MS && did > 0 ? did / (passed / 1000) : null;
      const sure = total && rate && passed >= LEFT_AFTER_MS && did >= total * LEFT_AFTER_SHARE && done < total;
      const line = fitting(
        `${label} ${total ? `${Math.floor((100 * done) / total)}%` : counted(done, unit)}`,
        [
          sure ? `${formatSeconds((total - done) / rate)} left` : '',
          ...fields.split(/ {2,}/),
          rate ? `${formatRate(rate)} ${unit}/s` : '',
        ],
        (tty && stream.columns) || COLUMNS,
      );
      stream.write(tty ? `\r\x1b[2K${line}` : `${line}\n`);
      drawn = tty;
    },
    finish(summary) {
      if (quiet) return;
      if (drawn) stream.write('\r\x1b[2K');
      if (summary) stream.write(`${summary}\n`);
    },
  };
}
