// Calls on their way to a thread: those that come right after each other are one message, nobody waits for long, and
// one that cannot be sent takes no other with it.
import { describe, expect, it } from 'vitest';
import type { CallMessage, ToWorker } from '../../src/base/channel-protocol.js';
import { Outbox } from '../../src/base/outbox.js';

const call = (id: number): CallMessage => ({ kind: 'call', id, name: 'a', request: null, stop: new Int32Array(1) });
const idsOf = (message: ToWorker): string =>
  message.kind === 'calls'
    ? message.calls.map((c) => c.id).join(' ')
    : `${message.kind} ${'id' in message ? message.id : ''}`;

/** An outbox whose turns and clock a test moves. @param bad ids that cannot be sent */
function make({ bad = [] as readonly number[] } = {}) {
  const sent: string[] = [],
    failed: number[] = [];
  let now = 1000,
    turn: (() => void) | null = null;
  const outbox = new Outbox({
    ms: 8,
    post: (message) => {
      const calls = message.kind === 'calls' ? message.calls : message.kind === 'call' ? [message] : [];
      if (calls.some(({ id }) => bad.includes(id))) throw new Error('cannot be cloned');
      sent.push(idsOf(message));
    },
    failed: ({ id }) => failed.push(id),
    clock: () => now,
    nextTurn: (then) => {
      expect(turn).toBeNull();
      turn = then;
    },
  });
  /** What comes before the turn ends. */
  const go = (ms: number, ...ids: readonly number[]): void => {
    now += ms;
    for (const id of ids) outbox.gather(call(id));
    const then = turn;
    turn = null;
    then?.();
  };
  return { outbox, sent, failed, go, waits: () => turn !== null };
}

describe('calls to a thread', () => {
  it('go over together while each turn brings one more', () => {
    const { sent, go, waits } = make();
    go(0, 1);
    go(1, 2, 3);
    go(1, 4);
    expect(sent).toEqual([]);
    go(0);
    expect(sent).toEqual(['1 2 3 4']);
    expect(waits()).toBe(false);
    go(0, 5);
    go(0);
    expect(sent).toEqual(['1 2 3 4', '5']);
  });
  it('wait no longer than they may, whoever comes', () => {
    const { sent, go } = make();
    for (let id = 0; id < 12; id++) go(2, id);
    expect(sent).toEqual(['0 1 2 3 4', '5 6 7 8 9']);
  });
  it('stay before what is sent after them', () => {
    const { outbox, sent, go, waits } = make();
    outbox.gather(call(1));
    outbox.gather(call(2));
    outbox.send({ kind: 'abort', id: 1 });
    expect(sent).toEqual(['1 2', 'abort 1']);
    go(0); // the turn that was waited for
    expect(waits()).toBe(false);
    go(0, 3);
    go(0);
    expect(sent).toEqual(['1 2', 'abort 1', '3']);
  });
  it('fail alone', () => {
    const { sent, failed, go } = make({ bad: [2] });
    go(0, 1, 2, 3);
    go(0);
    expect([sent, failed]).toEqual([['call 1', 'call 3'], [2]]);
  });
});
