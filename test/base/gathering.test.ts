// What a thread tells in few messages: nothing is lost, nothing changes places within a call, nothing waits longer than
// it may.
import { describe, expect, it, vi } from 'vitest';
import type { OneFromWorker } from '../../src/base/channel-protocol.js';
import { type Gathering, Sender } from '../../src/base/gathering.js';
import { GATHER_MS, joinText, type PackedText, packer, unpackText } from '../../src/infer/gather-text.js';
import { joinTokens, type TokenBytes, TokenPacker, unpackTokens } from '../../src/infer/pack-tokens.js';
import type { TextEvent, TokenInfo } from '../../src/infer/protocol.js';

const event = (id: number, value: unknown): OneFromWorker => ({ kind: 'event', id, event: value });
const done = (id: number): OneFromWorker => ({ kind: 'result', id, value: null });
/** A sender whose clock a test moves; `go` is what a thread tells without an `await` in between. */
function make(gathering: Gathering | null) {
  const sent: OneFromWorker[][] = [];
  let now = 1000;
  const sender = new Sender(
    (message) => {
      sent.push(
        message.kind === 'all'
          ? [...message.ids.map((id, i) => event(id, message.events[i])), ...message.rest]
          : [message],
      );
    },
    () => now,
  );
  if (gathering) sender.gather(gathering);
  const go = async (ms: number, ...messages: OneFromWorker[]): Promise<void> => {
    now += ms;
    for (const m of messages) sender.send(m);
    await Promise.resolve();
  };
  return { sent, go };
}
const pairs = (a: unknown, b: unknown): unknown => (a === 'apart' || b === 'apart' ? null : `${a}${b}`);

describe('messages of a thread', () => {
  it('leave one by one where nothing is gathered', async () => {
    const { sent, go } = make(null);
    await go(0, event(1, 'a'), event(1, 'b'), done(1));
    expect(sent).toEqual([[event(1, 'a')], [event(1, 'b')], [done(1)]]);
  });

  it('are one message for one go, at once where steps take as long as the wait', async () => {
    const { sent, go } = make({ ms: 10 });
    await go(0, event(1, 'a'), event(2, 'A'));
    for (let i = 0; i < 5; i++) await go(6, event(1, i), event(2, i));
    expect(sent).toHaveLength(6);
    expect(sent.every((m) => m.length === 2)).toBe(true);
  });

  it('wait for those of the next steps, and no longer than they may', async () => {
    const { sent, go } = make({ ms: 10, join: pairs });
    await go(0, event(1, 'first')); // at once
    for (let i = 0; i < 30; i++) await go(1, event(1, `${i} `));
    const times = sent.map((m) => m.length);
    expect(times).toEqual([1, 1, 1, 1]); // 30 steps of 1 ms: each message holds what 9 or 10 of them gave, joined
    const text = sent.slice(1).flatMap((m) => m.map((one) => (one.kind === 'event' ? one.event : '')));
    expect(text.join('')).toBe(
      Array.from({ length: 30 }, (_, i) => `${i} `)
        .slice(0, text.join('').split(' ').length - 1)
        .join(''),
    );
  });

  it('wait longer among many calls, until these are few again', async () => {
    const { sent, go } = make({ ms: 10, many: { calls: 2, ms: 20 }, join: pairs });
    await go(0, event(1, 'a'), event(2, 'b'), event(3, 'c'));
    for (let i = 0; i < 40; i++) await go(1, event(1, 'a'), event(2, 'b'), event(3, 'c'));
    expect(sent).toHaveLength(3); // at once, and after 20 and 40 ms, less the step that would come too late
    await go(1, done(3));
    const before = sent.length;
    for (let i = 0; i < 40; i++) await go(1, event(1, 'a'), event(2, 'b'));
    expect(sent.length - before).toBe(4);
  });

  it('the first event of a call, results and errors take along what waits, in order', async () => {
    const { sent, go } = make({ ms: 10, join: pairs });
    await go(0, event(1, 'a'));
    await go(1, event(1, 'b'));
    await go(1, event(1, 'c'), event(1, 'apart'), event(1, 'd'));
    expect(sent).toHaveLength(1);
    await go(1, event(2, 'A'));
    expect(sent[1]).toEqual([event(1, 'bc'), event(1, 'apart'), event(1, 'd'), event(2, 'A')]);
    await go(1, event(2, 'B'));
    await go(1, event(1, 'e'), done(1));
    expect(sent[2]).toEqual([event(2, 'B'), event(1, 'e'), done(1)]);
    // Its id comes again: that is another call, whose first event does not wait.
    await go(1, event(1, 'new'));
    expect(sent[3]).toEqual([event(1, 'new')]);
  });

  it('leave without another step too', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const { sent, go } = make({ ms: 10 });
      await go(0, event(1, 'a'));
      await go(1, event(1, 'b'));
      expect(sent).toHaveLength(1);
      vi.advanceTimersByTime(10);
      expect(sent[1]).toEqual([event(1, 'b')]);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('text between the threads', () => {
  const text = (more: Partial<TextEvent>): TextEvent => ({
    kind: 'text',
    message: 0,
    role: 'assistant',
    channel: 'final',
    recipient: null,
    text: 'a',
    ...more,
  });
  const token = (n: number): TokenInfo => ({
    ...{ token: n, bytes: Uint8Array.of(n), logprob: -1 },
    top: [0, 1, 200].slice(n % 3).map((i) => ({ token: n + i, bytes: Uint8Array.of(n + i), logprob: -i })),
  });
  const others = [{ message: 1 }, { role: 'user' }, { channel: 'analysis' }, { recipient: 'functions.f' }] as const;
  /** All of it as one call, joined as far as it can be, and as the other end sees it. */
  function through(events: readonly TextEvent[]): readonly TextEvent[] {
    const sent: PackedText[] = [];
    const emit = packer((packed) => {
      const before = sent.at(-1);
      const joined = before === undefined ? null : joinText(before, packed);
      if (joined === null) sent.push(packed);
      else sent[sent.length - 1] = joined;
    });
    events.forEach(emit);
    return unpacked(sent);
  }
  /** As the other end sees it. */
  function unpacked(sent: readonly PackedText[]): readonly TextEvent[] {
    const bytes: TokenBytes = new Map();
    let last: TextEvent | null = null;
    return sent.map((packed) => {
      last = unpackText(packed, last, bytes);
      const { tokens, ...rest } = last;
      return tokens ? { ...rest, tokens: tokens.map((t) => ({ ...t, top: t.top })) } : rest;
    });
  }

  it('is one event of one message, with all its tokens and the count of its pieces', () => {
    expect(through([text({}), text({ text: 'b' }), text({ text: 'c' })])).toEqual([text({ text: 'abc', pieces: 3 })]);
    const told = through([text({ tokens: [token(1)] }), text({ text: 'b', tokens: [token(2)] }), text({ text: 'c' })]);
    expect(told).toEqual([text({ text: 'abc', pieces: 3, tokens: [token(1), token(2)] })]);
    expect(GATHER_MS).toBeLessThanOrEqual(1000 / 60);
  });
  it('tells the bytes of a token once, whoever of one call or of another told it', () => {
    const known: TokenBytes = new Map();
    for (const packer of [new TokenPacker(), new TokenPacker()]) {
      const [a, b] = [packer.pack([token(2), token(3)]), packer.pack([token(3), token(5), token(2)])];
      expect([a.ids, b.ids]).toEqual([
        [2, 202, 3, 4, 203],
        [5, 205],
      ]);
      const joined = joinTokens(a, b);
      const got = unpackTokens(joined, known).map((t) => ({ ...t, top: t.top }));
      expect(got).toEqual([token(2), token(3), token(3), token(5), token(2)]);
    }
    expect(unpackTokens(new TokenPacker().pack([token(2)]), known)[0]!.bytes).toBe(known.get(2));
  });
  it('stays apart where it is of two messages', () => {
    for (const other of others) {
      const events = [text({}), text({ ...other, text: 'b' }), text({ ...other, text: 'c' }), text({ text: 'd' })];
      expect(through(events)).toEqual([events[0], text({ ...other, text: 'bc', pieces: 2 }), events[3]]);
    }
  });
  it('is what it was without joining, however often its place changes', () => {
    const events = Array.from({ length: 200 }, (_, i) =>
      text({ ...others[(i * i) % 7], text: `${i}`, ...(i % 11 === 0 ? { tokens: [token(i)] } : {}) }),
    );
    const packed: PackedText[] = [];
    events.forEach(packer((p) => packed.push(p)));
    expect(packed.filter((p) => typeof p === 'string').length).toBeGreaterThan(20);
    expect(unpacked(packed)).toEqual(events);
    const whole = (list: readonly TextEvent[]): string => list.map((e) => `${e.message}${e.channel}:${e.text}`).join();
    const joined = through(events);
    expect(joined.reduce((n, e) => n + (e.pieces ?? 1), 0)).toBe(events.length);
    expect(joined.map((e) => e.text).join('')).toBe(events.map((e) => e.text).join(''));
    expect(joined.flatMap((e) => e.tokens ?? [])).toEqual(events.flatMap((e) => e.tokens ?? []));
    expect(whole(joined).length).toBeLessThan(whole(events).length);
  });
});
