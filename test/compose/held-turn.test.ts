// How far a held stream is written while its judge judges, with a scripted engine that waits when it is told to and a
// judge that answers when the test says so.
import { expect, it } from 'vitest';
import { type HeldDone, heldTurn } from '../../src/compose/held-turn.js';
import type { Message } from '../../src/harmony/types.js';
import { isOn } from '../../src/infer/brake.js';
import type { Engine } from '../../src/infer/engine.js';
import type { EngineEvent, GenerateRequest } from '../../src/infer/protocol.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import type { Clock } from '../../src/safeguard/holdback/clock.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';

const later = (): Promise<void> => new Promise((done) => setImmediate(done));
/** So long that all that can happen has, or what is waited for. */
const settled = async (happened = (): boolean => false): Promise<void> => {
  for (let i = 0; i < 300 && !happened(); i++) await later();
};

class Scene {
  written = '';
  leaving = '';
  braked = 0;
  done: HeldDone | null = null;
  readonly asked: string[] = [];
  readonly nonces = new Set<string>();
  readonly gone = new AbortController();
  /** ms, and what is to happen later. */
  time = 0;
  readonly timers = new Map<() => void, number>();
  readonly over: Promise<void>;
  #answers: (() => void)[] = [];

  constructor(
    readonly messages: readonly Message[],
    ahead: number | undefined,
    { whole = false, now = false, charMs = 1 } = {},
  ) {
    const judge = {
      name: 'j',
      digest: 'j',
      judge: async ({ content, nonce }: { readonly content: string; readonly nonce: string }) => {
        this.asked.push(content);
        this.nonces.add(nonce);
        if (!now) await new Promise<void>((done) => this.#answers.push(done));
        return {
          text: renderVerdict({ rule: content.includes('Rome') ? 'P1' : null, nonce }),
          finish: 'stop' as const,
        };
      },
    };
    const screen = createScreen({ policies: [definePolicy('p', 'P1: Rome')], judge });
    const clock: Clock = {
      now: () => this.time,
      later: (run, ms) => {
        this.timers.set(run, ms);
        return () => this.timers.delete(run);
      },
    };
    const options = { whole, clock, ...(ahead === undefined ? {} : { ahead }) };
    this.over = (async () => {
      for await (const e of heldTurn(this.#engine(charMs), { messages: [] }, screen, options, this.gone.signal))
        if (e.kind === 'done') this.done = e;
        else this.leaving += e.piece.text;
    })();
    this.over.catch(() => {});
  }
  /** @param charMs what a character takes */
  #engine(charMs: number): Engine {
    const own = this;
    return {
      count: async () => 1,
      async *generate({ brake }: GenerateRequest, signal: AbortSignal): AsyncGenerator<EngineEvent> {
        for (const [message, { role, channel = '', content }] of own.messages.entries())
          for (const text of content) {
            while (brake && isOn(brake)) {
              own.braked++;
              await later();
              signal.throwIfAborted();
            }
            own.written += text;
            own.time += charMs;
            yield { kind: 'text', message, role, channel, recipient: null, text };
            await later();
            signal.throwIfAborted();
          }
        const usage = {
          ...{ promptTokens: 1, cachedTokens: 0, completionTokens: 1, reasoningTokens: 0 },
          ...{ prefillMs: 0, decodeMs: 0 },
        };
        const [tokens, logprobs] = [new Int32Array(0), new Float32Array(0)];
        yield { kind: 'done', finish: 'stop', cut: null, messages: own.messages, tokens, logprobs, usage };
      },
    } as unknown as Engine;
  }
  /** The judge answers what it is asked now. */
  async answer(): Promise<void> {
    for (const go of this.#answers.splice(0)) go();
    await settled();
  }
  async finish(): Promise<void> {
    for (let i = 0; i < 20 && this.done === null; i++) await this.answer();
    await this.over;
  }
}
const say = (content: string, channel = 'final'): Message => ({ role: 'assistant', channel, content });
const ONE = 'A first sentence is here.',
  TWO = ' A second one follows it.',
  THREE = ' A third one ends it all.';

it.each([
  [0, ONE.length + 1],
  [9, ONE.length + 9],
  [TWO.length + 9, (ONE + TWO).length + 9],
  [undefined, (ONE + TWO + THREE).length],
])('with %s characters ahead it is written so far until the first verdict', async (ahead, length) => {
  const scene = new Scene([say(ONE + TWO + THREE)], ahead);
  await settled();
  expect([scene.written.length, scene.leaving, scene.asked[0]]).toEqual([length, '', ONE]);
  await scene.answer();
  expect(scene.leaving.startsWith(ONE)).toBe(true);
  if (ahead !== undefined) expect(scene.written.length).toBeGreaterThan(length);
  await scene.finish();
  expect([scene.leaving, scene.done?.withheld]).toEqual([ONE + TWO + THREE, null]);
  // Its beginnings are quoted alike.
  expect(scene.nonces.size).toBe(1);
  // With none ahead each sentence is judged by itself, and the last verdict is the whole's.
  if (ahead === 0) expect(scene.asked).toEqual([ONE, ONE + TWO, ONE + TWO + THREE]);
});
it('a fast one’s sentences share verdicts, and of what is written never less than 60 % was judged', async () => {
  const parts = [ONE, TWO, THREE, TWO, THREE, TWO, THREE, TWO];
  const upTo = (n: number): string => parts.slice(0, n).join('');
  const scene = new Scene([say(upTo(8))], 0, { charMs: 0.1 });
  await settled();
  expect([scene.written, scene.asked, scene.leaving]).toEqual([`${upTo(2)} `, [upTo(2)], '']);
  await scene.finish();
  expect([scene.asked, scene.leaving]).toEqual([[2, 3, 5, 8].map(upTo), upTo(8)]);
  expect(scene.timers.size).toBe(0);
});
it('does not keep a sentence for longer, nor where the next will not come in that time', async () => {
  const keeping = async (charMs: number): Promise<Scene> => {
    const scene = new Scene([say(`${ONE} and so it goes on and on and on and on`)], 0, { charMs });
    await settled(() => scene.timers.size > 0 || scene.asked.length > 0);
    return scene;
  };
  const late = await keeping(0.1);
  expect([late.asked, [...late.timers.values()]]).toEqual([[], [20]]);
  for (const run of late.timers.keys()) run();
  await settled(() => late.asked.length > 0);
  expect([late.asked, late.written.length < late.messages[0]!.content.length]).toEqual([[ONE], true]);
  await late.finish();
  const slow = await keeping(1);
  expect([slow.asked, slow.timers.size]).toEqual([[ONE], 0]);
  await slow.finish();
  const gone = await keeping(0.1);
  gone.gone.abort(new Error('gone'));
  await expect(gone.over).rejects.toThrow('gone');
  expect([gone.timers.size, gone.leaving]).toEqual([0, '']);
});
it('never waits where nothing is being judged: long without an end, or judged as a whole', async () => {
  const long = new Scene([say('words and words that go on '.repeat(9))], 0);
  await settled();
  expect([long.written.length, long.braked]).toEqual([long.messages[0]?.content.length, 0]);
  await long.finish();
  const whole = new Scene([say(ONE + TWO + THREE)], 0, { whole: true });
  await settled();
  expect([whole.written, whole.braked]).toEqual([ONE + TWO + THREE, 0]);
  await whole.finish();
  expect(whole.asked).toEqual([ONE + TWO + THREE]);
});
it('waits for the verdict of any of its channels', async () => {
  const scene = new Scene([say(ONE, 'analysis'), say(TWO.trim() + THREE)], 0);
  await settled();
  expect([scene.written, scene.asked]).toEqual([`${ONE}A`, [ONE]]);
  await scene.finish();
  expect(scene.leaving).toBe(ONE + TWO.trim() + THREE);
});
it('ends while it waits: where it is blocked, and when its client goes', async () => {
  const blocked = new Scene([say(`${ONE} But this one tells of Rome.${THREE}`)], 0);
  await settled();
  await blocked.answer();
  const { written } = blocked;
  await blocked.finish();
  expect([blocked.leaving, blocked.written.length - written.length]).toEqual([ONE, 0]);
  expect(blocked.done?.withheld?.action).toBe('refuse');
  const left = new Scene([say(ONE + TWO)], 0);
  await settled();
  expect(left.braked).toBeGreaterThan(0);
  left.gone.abort(new Error('gone'));
  await expect(left.over).rejects.toThrow('gone');
  expect(left.leaving).toBe('');
});
