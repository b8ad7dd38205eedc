// One line of progress on stderr: rewritten in place on a terminal, a line every few seconds elsewhere.
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

/** 75 → `1m15s`. */
export function formatSeconds(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`;
  return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m`;
}
/** 12345.6 → `12.3k`. */
export function formatRate(perSecond: number): string {
  if (!Number.isFinite(perSecond)) return '–';
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(1)}M`;
  if (perSecond >= 1e4) return `${(perSecond / 1e3).toFixed(1)}k`;
  return perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toFixed(1);
}

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
