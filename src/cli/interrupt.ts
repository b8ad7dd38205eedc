// Ctrl-C, SIGTERM and a terminal that closes: the first ends the work at its next safe point, the second the process at
// once.
import { setMaxListeners } from 'node:events';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type Signal = (typeof SIGNALS)[number];
const NUMBER: Readonly<Record<Signal, number>> = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 };
/** npm hands on the Ctrl-C that the terminal has sent already: what comes this soon is the same one. */
const SAME_MS = 50;
/** How long after its end a command may need to let go of native code that nobody can stop. */
const LINGER_MS = 500;

let controller: AbortController | undefined;
let saying = 'stopping';
let received: Signal | undefined;
let receivedAt = Number.NEGATIVE_INFINITY;
let ownHandler: (() => boolean) | undefined;
let onHangup: (() => void) | undefined;

/**
 * Ends the process as the signal would have, whatever threads or files are waited for: process.exit() waits for native
 * code that is under way.
 */
function die(signal: Signal): void {
  if (process.stdin.isTTY) process.stdin.setRawMode(false);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}

function onSignal(signal: Signal): void {
  if (signal === 'SIGHUP' && onHangup) {
    // While it ends there is nothing to ask for, and it is no second wish to end.
    if (!controller?.signal.aborted) onHangup();
    return;
  }
  const now = performance.now();
  const again = now - receivedAt < SAME_MS;
  receivedAt = now;
  if (again) return;
  if (signal === 'SIGINT' && ownHandler?.()) return;
  if (controller?.signal.aborted) {
    die(signal);
    return;
  }
  received = signal;
  process.stderr.write(`\ntemper: ${saying}; press Ctrl-C again to stop at once\n`);
  controller?.abort(new DOMException('interrupted', 'AbortError'));
}

/**
 * Aborts on the first Ctrl-C or SIGTERM.
 * @param what is said then, e.g. `saving after this step`
 */
export function interruptSignal(what = saying): AbortSignal {
  saying = what;
  if (!controller) {
    controller = new AbortController();
    // One listener per request under way, as many as there are.
    setMaxListeners(0, controller.signal);
    for (const signal of SIGNALS) process.on(signal, () => onSignal(signal));
  }
  return controller.signal;
}

/** Ctrl-C goes to `handle` first; true: it has dealt with it. @returns how to end that */
export function handleInterrupts(handle: () => boolean): () => void {
  ownHandler = handle;
  return () => {
    ownHandler = undefined;
  };
}
/** SIGHUP is no end but asks for something, as a service takes it. */
export function handleHangups(handle: () => void): void {
  onHangup = handle;
}
/** As if the user had pressed Ctrl-C: for readline, which takes it from the terminal. */
export const interrupt = (): void => onSignal('SIGINT');

/** 128 and the number of the signal that ended the work; 130 where there was none. */
export const interruptedExitCode = (): number => 128 + NUMBER[received ?? 'SIGINT'];

/** After an interrupted command: native code that goes on does not hold up the process. */
export function endInterrupted(): void {
  const signal = received;
  if (signal) setTimeout(() => die(signal), LINGER_MS).unref();
}
