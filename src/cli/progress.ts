// One line of progress on stderr: rewritten in place on a terminal, a line every few seconds elsewhere.
import { formatRate, formatSeconds } from '../base/units.js';
import { type Device, describeDevice, HOST } from '../native/backends.js';

/** Names a device that is not the CPU, and on a terminal why it is the CPU; scripts' stderr stays as it was. */
export function sayDevice(device: Device): void {
  if (device.place !== HOST || process.stderr.isTTY) process.stderr.write(`device: ${describeDevice(device)}\n`);
}

export interface Progress {
  /** @param done units finished so far; `fields` are shown after the rate, e.g. `loss 1.23`. */
  update(done: number, fields?: string): void;
  /** Ends the line; `summary` replaces it. */
  finish(summary?: string): void;
}
export interface ProgressOptions {
  readonly label: string;
  /** Units in all, if known: gives percent and the time that is left. */
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

export function createProgress(options: ProgressOptions): Progress {
  const { label, total, unit, quiet = false, stream = process.stderr, now = Date.now } = options;
  const start = now();
  let last = -Infinity;
  let drawn = false;
  return {
    update(done, fields = '') {
      const t = now();
      const tty = stream.isTTY === true;
      if (quiet || t - last < (tty ? TTY_INTERVAL_MS : LOG_INTERVAL_MS)) return;
      last = t;
      const seconds = (t - start) / 1000;
      const rate = seconds > 0 ? done / seconds : Number.NaN;
      const part = total ? ` ${Math.floor((100 * done) / total)}%` : ` ${done}`;
      const left = total && rate > 0 && done < total ? `, ${formatSeconds((total - done) / rate)} left` : '';
      const line = `${label}${part}  ${formatRate(rate)} ${unit}/s${fields ? `  ${fields}` : ''}${left}`;
      stream.write(tty ? `\r\x1b[2K${line.slice(0, (stream.columns ?? 120) - 1)}` : `${line}\n`);
      drawn = tty;
    },
    finish(summary) {
      if (quiet) return;
      if (drawn) stream.write('\r\x1b[2K');
      if (summary) stream.write(`${summary}\n`);
    },
  };
}
