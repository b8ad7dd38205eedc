// A turn that is shown while it is judged: each channel by itself, with a scripted engine and a scripted judge.
import { describe, expect, it } from 'vitest';
import { runShownTurn } from '../../src/compose/shown-turn.js';
import { turnExitCode, wasWithheld } from '../../src/compose/turn.js';
import type { Message } from '../../src/harmony/types.js';
import type { Engine } from '../../src/infer/engine.js';
import type { EngineEvent } from '../../src/infer/protocol.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import { transcript } from '../../src/safeguard/transcript.js';
import type { Judge } from '../../src/safeguard/types.js';

const sober: Judge = {
  name: 's',
  digest: 'd',
  judge: async ({ content, nonce }) => ({
    text: renderVerdict({ rule: /[0-9]/.test(content) ? 'N1' : null, nonce }),
    finish: 'stop',
  }),
};
const later = (): Promise<void> => new Promise((done) => setImmediate(done));
function engineOf(messages: readonly Message[]): { readonly engine: Engine; sampled: string } {
  const own = {
    sampled: '',
    engine: {
      count: async () => 3,
      async *generate(_: unknown, signal: AbortSignal): AsyncGenerator<EngineEvent> {
        for (const [message, m] of messages.entries())
          for (const text of m.content) {
            own.sampled += text;
            const { role, channel = 'unknown', recipient = null } = m;
            yield { kind: 'text', message, role, channel, recipient, text };
            await later();
            signal.throwIfAborted();
          }
        yield {
          kind: 'done',
          finish: 'stop',
          cut: null,
          messages,
          tokens: Int32Array.of(1),
          logprobs: Float32Array.of(0),
          usage: {
            promptTokens: 1,
            completionTokens: 1,
            cachedTokens: 0,
            reasoningTokens: 0,
            prefillMs: 0,
            decodeMs: 0,
          },
        };
      },
    } as unknown as Engine,
  };
  return own;
}
const say = (channel: string, content: string): Message => ({ role: 'assistant', channel, content });
async function shown(messages: readonly Message[], front = '', mode: 'enforce' | 'shadow' = 'enforce') {
  const pieces: [string, string, boolean][] = [];
  const own = engineOf(messages);
  const policy = definePolicy('numbers', `---\nbuilt: here\n${front}\n---\nN1: a digit`);
  const turn = await runShownTurn(
    own.engine,
    { messages: [] },
    createScreen({ policies: [policy], judge: sober }),
    (...piece) => {
      pieces.push(piece);
    },
    { mode },
    new AbortController().signal,
  );
  const text: Record<string, string> = {};
  for (const [channel, piece, withheld] of pieces) if (!withheld) text[channel] = (text[channel] ?? '') + piece;
  return { pieces, text, turn, sampled: own.sampled };
}

describe('a turn that is shown while it is judged', () => {
  const answer = [
    say('analysis', 'A thought that is long enough. And one more.'),
    say('final', 'A first sentence of it.'),
    say('final', 'Another message of it.'),
    { ...say('commentary', '{"a": "b"}'), recipient: 'functions.f' },
  ];
  it('is shown in pieces, and is what is judged', async () => {
    const { pieces, text, turn } = await shown(answer);
    expect(text).toEqual(transcript(answer));
    expect(pieces[0]).toEqual(['analysis', 'A thought that is long enough.', false]);
    expect([wasWithheld(turn), turnExitCode(turn)]).toEqual([false, 0]);
  });
  it('without thoughts where a policy drops them', async () => {
    expect((await shown(answer, 'analysis: drop')).text.analysis).toBeUndefined();
  });
  it('goes on after thoughts that are withheld', async () => {
    const { pieces, turn } = await shown([say('analysis', 'It is fine so far. It is 7.'), say('final', 'It is fine.')]);
    expect(pieces).toEqual([
      ['analysis', 'It is fine so far.', false],
      ['analysis', '\n[analysis withheld: policy numbers, rule N1]', true],
      ['final', 'It is fine.', false],
    ]);
    expect(turnExitCode(turn)).toBe(10);
  });
  it('ends at a final that is blocked', async () => {
    const { pieces, turn, sampled } = await shown([
      say('final', `It is fine so far. It is 7. ${'And so on. '.repeat(40)}`),
    ]);
    expect(pieces.map(([, text]) => text).join('')).toMatch(/^It is fine so far\.\n?\[final withheld: [^\]]*\]$/);
    expect(sampled.length).toBeLessThan(300);
    expect([wasWithheld(turn), turnExitCode(turn)]).toEqual([true, 10]);
  });
  it('in shadow is shown whatever the verdict', async () => {
    const messages = [say('final', 'It is fine so far. It is 7. And so on.')];
    const { text, turn } = await shown(messages, '', 'shadow');
    expect(text).toEqual(transcript(messages));
    expect(turn.screened?.result.outcome).toBe('block');
    expect([wasWithheld(turn), turnExitCode(turn)]).toEqual([false, 0]);
  });
});
