import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ScreeningError } from '../../src/base/errors.js';
import { agreementOf, type VerdictRow } from '../../src/safeguard/agreement.js';
import { parseRow } from '../../src/safeguard/batch/row.js';
import { screenFile } from '../../src/safeguard/batch/screen-file.js';
import { batchExitCode } from '../../src/safeguard/batch/tally.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createCheckpointJudge } from '../../src/safeguard/judges/checkpoint.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { HeldResponse } from '../../src/safeguard/release.js';
import { createScreen, HOPELESS_CALLS } from '../../src/safeguard/screen.js';
import type { Judge, JudgeAnswer, JudgeRequest } from '../../src/safeguard/types.js';
import { JudgeFailure, mayPass } from '../../src/safeguard/types.js';

const numbers = definePolicy('numbers', 'N1: a digit');
const shouting = definePolicy('shouting', 'S1: capital letters only');
const scripted = (judge: (request: JudgeRequest) => Promise<JudgeAnswer> | JudgeAnswer): Judge => ({
  name: 'scripted',
  digest: 'd',
  judge: async (request) => judge(request),
});
/** Knows both policies. */
const sober = scripted(({ policy, content, nonce }) => {
  const rule =
    policy === numbers.text ? (/[0-9]/.test(content) ? 'N1' : null) : content === content.toUpperCase() ? 'S1' : null;
  return { text: renderVerdict({ rule, nonce }), finish: 'stop', rationale: `about ${content}` };
});

describe('createScreen', () => {
  it('runs all policies over all channels and keeps channels apart', async () => {
    const result = await createScreen({ policies: [numbers, shouting], judge: sober }).screen({
      analysis: 'has 5',
      final: 'clean',
      commentary: '',
    });
    expect(result.verdicts.map((v) => [v.channel, v.policy, v.outcome, v.rule])).toEqual([
      ['analysis', 'numbers', 'block', 'N1'],
      ['analysis', 'shouting', 'allow', null],
      ['final', 'numbers', 'allow', null],
      ['final', 'shouting', 'allow', null],
    ]);
    expect({ ...result.channels }).toEqual({ analysis: 'block', final: 'allow' });
    expect(result.outcome).toBe('block');
  });
  it('no policy, no judge, no content: unjudged', async () => {
    expect((await createScreen({ policies: [], judge: sober }).screen({ final: 'x' })).verdicts).toMatchObject([
      { outcome: 'unjudged', cause: 'no_policy' },
    ]);
    expect((await createScreen({ policies: [], judge: sober }).screen({})).outcome).toBe('unjudged');
    expect((await createScreen({ policies: [numbers], judge: null }).screen({ final: 'x' })).outcome).toBe('unjudged');
    expect((await createScreen({ policies: [numbers], judge: sober }).screen({ final: '' })).verdicts).toMatchObject([
      { cause: 'no_content' },
    ]);
  });
  it('one unjudged policy holds back what the other allows', async () => {
    const half = scripted((request) =>
      request.policy === numbers.text
        ? { text: renderVerdict({ rule: null, nonce: request.nonce }), finish: 'stop' }
        : { text: '', finish: 'stop' },
    );
    const result = await createScreen({ policies: [numbers, shouting], judge: half }).screen({ final: 'x' });
    expect(result.outcome).toBe('unjudged');
    expect(result.channels.final).toBe('unjudged');
  });
  it.each([
    [
      'throws a string',
      () => {
        throw 'boom';
      },
    ],
    [
      'throws an error',
      () => {
        throw new Error('boom');
      },
    ],
    ['answers undefined', () => undefined as unknown as JudgeAnswer],
    ['answers an object as text', () => ({ text: { violation: 0 }, finish: 'stop' }) as unknown as JudgeAnswer],
  ])('a judge that %s: unjudged', async (_, judge) => {
    const result = await createScreen({ policies: [numbers], judge: scripted(judge) }).screen({ final: 'x' });
    expect(result.outcome).toBe('unjudged');
  });
  it('a judge that ignores its signal is late all the same, and its late allow is void', async () => {
    let answered = false;
    const late = scripted(
      ({ nonce }) =>
        new Promise((resolve) =>
          setTimeout(() => {
            answered = true;
            resolve({ text: renderVerdict({ rule: null, nonce }), finish: 'stop' });
          }, 60),
        ),
    );
    const result = await createScreen({ policies: [numbers], judge: late, timeoutMs: 10 }).screen({ final: 'x' });
    expect(result.verdicts).toMatchObject([{ outcome: 'unjudged', cause: 'timeout' }]);
    await new Promise((resolve) => setTimeout(resolve, 80));
    expect(answered).toBe(true);
    expect(result.outcome).toBe('unjudged');
  });
  it('stopping from outside: unjudged', async () => {
    const stop = new AbortController();
    const result = createScreen({ policies: [numbers], judge: scripted(() => new Promise(() => {})) }).screen(
      { final: 'x' },
      stop.signal,
    );
    stop.abort();
    expect((await result).verdicts).toMatchObject([{ cause: 'aborted' }]);
    expect(
      (await createScreen({ policies: [numbers], judge: sober }).screen({ final: 'x' }, AbortSignal.abort())).verdicts,
    ).toMatchObject([{ cause: 'aborted' }]);
  });
  it('many calls under one signal leave no warning', async () => {
    const warnings: Error[] = [];
    const note = (w: Error): void => {
      warnings.push(w);
    };
    process.on('warning', note);
    const screen = createScreen({ policies: [numbers, shouting], judge: sober, concurrency: 40 });
    const stop = new AbortController();
    await Promise.all(Array.from({ length: 40 }, () => screen.screen({ final: 'x' }, stop.signal)));
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', note);
    expect(warnings).toEqual([]);
  });
  it('keeps to its concurrency', async () => {
    let running = 0;
    let most = 0;
    const judge = scripted(async ({ nonce }) => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 2));
      running--;
      return { text: renderVerdict({ rule: null, nonce }), finish: 'stop' };
    });
    const screen = createScreen({ policies: [numbers, shouting], judge, concurrency: 3 });
    await Promise.all(Array.from({ length: 8 }, () => screen.screen({ analysis: 'a', final: 'b' })));
    expect(most).toBe(3);
  });
  it('only a literal allow may pass', () => {
    for (const outcome of ['block', 'unjudged', 'ALLOW', 'allow ', '', undefined, null, true, 1, {}])
      expect(mayPass({ outcome } as never)).toBe(false);
    expect(mayPass(null)).toBe(false);
    expect(mayPass({ outcome: 'allow' })).toBe(true);
  });
});

describe('HeldResponse', () => {
  it('releases nothing of a channel that is not allowed, for every split and interleaving of the deltas', async () => {
    const screen = createScreen({ policies: [numbers], judge: sober });
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            channel: fc.constantFrom('analysis', 'commentary', 'final', '__proto__', 'constructor'),
            delta: fc.string({ unit: fc.constantFrom('q', '7', ' '), maxLength: 4 }),
          }),
          { maxLength: 12 },
        ),
        async (deltas) => {
          const held = new HeldResponse(screen);
          for (const { channel, delta } of deltas) held.push(channel, delta);
          const { channels } = await held.release();
          for (const released of channels) {
            const whole = deltas
              .filter((d) => d.channel === released.channel)
              .map((d) => d.delta)
              .join('');
            if (whole.includes('7')) {
              expect(released.withheld).toBe(true);
              expect(released.text).not.toMatch(/[7q]/);
            } else expect(released).toEqual({ channel: released.channel, text: whole, withheld: false });
          }
        },
      ),
      { numRuns: 300 },
    );
  });
  it('withholds a trace under a clean final and names the rule without the text', async () => {
    const held = new HeldResponse(createScreen({ policies: [numbers], judge: sober }));
    held.push('analysis', 'secret 5');
    held.push('final', 'done');
    expect((await held.release()).channels).toEqual([
      { channel: 'analysis', text: '[analysis withheld: policy numbers, rule N1]', withheld: true },
      { channel: 'final', text: 'done', withheld: false },
    ]);
    expect(() => held.push('final', 'more')).toThrow('after its release');
  });
  it('a notice does not repeat a channel name that the model made up', async () => {
    const held = new HeldResponse(createScreen({ policies: [numbers], judge: sober }));
    held.push('call 0171', '5');
    expect((await held.release()).channels[0]?.text).toBe('[other withheld: policy numbers, rule N1]');
  });
});

describe('createCheckpointJudge', () => {
  const judgeOf = (reply: { final: string; analysis: string; finish: 'stop' | 'length' | 'other' }): Judge =>
    createCheckpointJudge({ name: 'c', modelDigest: 'm', generate: async () => reply });
  it('reads the verdict from the final channel of a completed answer only', async () => {
    const verdictIn = (place: 'final' | 'analysis', finish: 'stop' | 'length'): Judge =>
      createCheckpointJudge({
        name: 'c',
        modelDigest: 'm',
        generate: async ({ user }) => {
          const text = renderVerdict({ rule: null, nonce: /BEGIN (\S+)/.exec(user)?.[1] ?? '' });
          return { final: place === 'final' ? text : '', analysis: place === 'analysis' ? text : 'hm', finish };
        },
      });
    const outcome = async (judge: Judge): Promise<unknown> =>
      (await createScreen({ policies: [numbers], judge }).screen({ final: 'x' })).verdicts.map((v) => [
        v.outcome,
        v.cause,
      ]);
    expect(await outcome(verdictIn('final', 'stop'))).toEqual([['allow', null]]);
    expect(await outcome(verdictIn('final', 'length'))).toEqual([['unjudged', 'truncated']]);
    expect(await outcome(verdictIn('analysis', 'stop'))).toEqual([['unjudged', 'empty']]);
    expect(await outcome(judgeOf({ final: 'ok', analysis: '', finish: 'stop' }))).toEqual([
      ['unjudged', 'off_contract'],
    ]);
  });
});

describe('screenFile', () => {
  let dir = '';
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'temper-screen-'));
  });
  afterAll(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  const screen = createScreen({ policies: [numbers], judge: sober });
  const run = async (
    text: string | Buffer,
    name = 'in.jsonl',
  ): Promise<{ summary: Awaited<ReturnType<typeof screenFile>>; rows: VerdictRow[] }> => {
    await writeFile(join(dir, name), text);
    const output = join(dir, 'out.jsonl');
    const summary = await screenFile({ input: join(dir, name), output, screen });
    return {
      summary,
      rows: (await readFile(output, 'utf8'))
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as VerdictRow),
    };
  };

  it('writes a verdict per channel and policy, in order, with rule, rationale and digests', async () => {
    const { summary, rows } = await run(
      [
        { id: 'a', text: 'has 5', expect: 'N1' },
        { text: 'none', channel: 'analysis', expect: null },
        { id: 3, channels: { analysis: '9', final: 'x' }, expect: { final: 'N1' } },
        {
          id: 'm',
          messages: [
            { role: 'user', content: '77' },
            { role: 'assistant', thinking: 'hm 1', content: [{ type: 'text', text: 'yes' }] },
          ],
        },
      ]
        .map((row) => JSON.stringify(row))
        .join('\n\n'),
    );
    expect(rows.map((r) => [r.id, r.line, r.channel, r.outcome, r.rule])).toEqual([
      ['a', 1, 'final', 'block', 'N1'],
      ['3', 3, 'analysis', 'allow', null],
      ['3', 5, 'analysis', 'block', 'N1'],
      ['3', 5, 'final', 'allow', null],
      ['m', 7, 'analysis', 'block', 'N1'],
      ['m', 7, 'final', 'allow', null],
    ]);
    expect(rows[0]).toMatchObject({
      policy: 'numbers',
      rationale: 'about has 5',
      digests: { policy: numbers.digest, judge: 'd' },
      cause: null,
    });
    expect(rows[0]?.digests.content).toMatch(/^[0-9a-f]{64}$/);
    expect(summary).toMatchObject({ rows: 4, verdicts: 6, allow: 3, block: 3, unjudged: 0 });
    expect(summary.agreement?.all).toMatchObject({
      truePositives: 1,
      falsePositives: 0,
      falseNegatives: 1,
      trueNegatives: 1,
      sameRule: 1,
      precision: 1,
      recall: 0.5,
    });
    expect(batchExitCode(summary)).toBe(10);
  });
  it('exit code 0 only if everything is allowed', async () => {
    expect(batchExitCode((await run('{"text":"fine"}')).summary)).toBe(0);
    expect(batchExitCode((await run('{"text":""}')).summary)).toBe(30);
  });
  const bad: readonly (readonly [string, string | Buffer, string, number | undefined])[] = [
    ['not JSON', '{"text":"a"}\n{"text":', 'row_json', 2],
    ['an array', '[1]', 'row_schema', 1],
    ['an unknown field', '{"text":"a"}\n\n{"chanels":{"final":"5"}}', 'row_schema', 3],
    [
      'an unknown field in a message',
      '{"messages":[{"role":"assistant","content":"a","thoughts":"5"}]}',
      'row_schema',
      1,
    ],
    ['an unknown role', '{"messages":[{"role":"bot","content":"a"}]}', 'row_schema', 1],
    ['text and channels', '{"text":"a","channels":{"final":"b"}}', 'row_schema', 1],
    ['neither', '{"id":"a"}', 'row_schema', 1],
    ['expectation of an absent channel', '{"channels":{"final":"a"},"expect":{"analysis":null}}', 'row_schema', 1],
    ['broken UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), 'row_utf8', 1],
    ['no rows', '\n \n', 'no_rows', undefined],
  ];
  it.each(bad)('%s: typed error, the output untouched, nothing left behind', async (_, text, code, line) => {
    const input = join(dir, 'bad.jsonl');
    const output = join(dir, 'kept.jsonl');
    await writeFile(input, text);
    await writeFile(output, 'earlier');
    await expect(screenFile({ input, output, screen })).rejects.toMatchObject({
      code,
      exitCode: 2,
      ...(line ? { details: { file: input, line } } : {}),
    });
    expect(await readFile(output, 'utf8')).toBe('earlier');
    expect((await readdir(dir)).filter((name) => name.endsWith('.part'))).toEqual([]);
  });
  it('missing input and unwritable output', async () => {
    await expect(screenFile({ input: join(dir, 'none'), output: join(dir, 'o'), screen })).rejects.toMatchObject({
      code: 'file_unreadable',
    });
    await expect(
      screenFile({ input: join(dir, 'in.jsonl'), output: join(dir, 'no', 'o'), screen }),
    ).rejects.toMatchObject({ code: 'output_unwritable' });
  });
  it('a stop leaves no output', async () => {
    const stop = new AbortController();
    const stuck = createScreen({
      policies: [numbers],
      judge: scripted(() => {
        stop.abort();
        return new Promise(() => {});
      }),
    });
    await writeFile(join(dir, 'in.jsonl'), '{"text":"a"}');
    await expect(
      screenFile({
        input: join(dir, 'in.jsonl'),
        output: join(dir, 'stopped.jsonl'),
        screen: stuck,
        signal: stop.signal,
      }),
    ).rejects.toMatchObject({ name: 'AbortError' });
    expect(await readdir(dir)).not.toContain('stopped.jsonl');
  });
  describe('nothing that was judged is lost', () => {
    const rows = (n: number): string =>
      Array.from(
        { length: n },
        (_, i) => `${JSON.stringify({ id: `r${i}`, text: i % 3 === 0 ? `has ${i}` : 'clean' })}\n`,
      ).join('');
    /** A judge that counts its calls and may stop the run at one of them. */
    const counted = (stopAt = 0): { judge: Judge; calls: () => number; signal: AbortSignal } => {
      const stop = new AbortController();
      let calls = 0;
      const judge: Judge = {
        ...sober,
        judge: async (request) => {
          if (++calls === stopAt) stop.abort();
          return sober.judge(request);
        },
      };
      return { judge, calls: () => calls, signal: stop.signal };
    };
    const screenWith = async (
      name: string,
      { judge, signal, window = 4 }: { judge: Judge; signal?: AbortSignal; window?: number },
      text = rows(30),
    ): Promise<{ out: string; kept: [string, number][]; error: unknown; summary: unknown }> => {
      const [input, output] = [join(dir, `${name}.in`), join(dir, `${name}.out`)];
      await writeFile(input, text);
      const kept: [string, number][] = [];
      const own = createScreen({ policies: [numbers], judge, concurrency: 1 });
      const ran = await screenFile({
        input,
        output,
        screen: own,
        window,
        onKept: (...k) => kept.push(k),
        ...(signal ? { signal } : {}),
      }).then(
        (summary) => ({ summary, error: null }),
        (error: unknown) => ({ summary: null, error }),
      );
      return { ...ran, kept, out: output };
    };
    const left = async (name: string): Promise<string[]> =>
      (await readdir(dir)).filter((entry) => entry.startsWith(`${name}.out`)).sort();

    const timeless = async (file: string): Promise<string> =>
      (await readFile(file, 'utf8')).replaceAll(/"latencyMs":\d+/g, '');

    it('a bad row anywhere costs no call', async () => {
      for (const bad of ['{"text":"cut in the mi', '{"txt":"x"}', '{"text":"5","text":"clean"}', Buffer.from([0xff])]) {
        const judge = counted();
        const text = Buffer.concat([Buffer.from(rows(30)), Buffer.from(bad)]);
        const ran = await screenWith('bad-last', judge, text as never);
        expect(ran.error).toMatchObject({ name: 'DataError', details: { line: 31 } });
        expect(judge.calls()).toBe(0);
        expect(await left('bad-last')).toEqual([]);
      }
    });
    it('an output that is a folder costs no call', async () => {
      const judge = counted();
      await mkdir(join(dir, 'folder.out'));
      expect((await screenWith('folder', judge)).error).toMatchObject({ code: 'output_unwritable' });
      expect(judge.calls()).toBe(0);
    });
    it('a run that was stopped is gone on with, to the same bytes but for times', async () => {
      const stopped = counted(11);
      const first = await screenWith('stop', stopped);
      expect(first.error).toMatchObject({ name: 'AbortError' });
      const kept = first.kept[0] ?? ['', 0];
      expect(kept[0]).toBe(`${first.out}.part`);
      expect(kept[1]).toBeGreaterThanOrEqual(9);
      expect(await left('stop')).toEqual(['stop.out.part']);
      // Stopped again, half-way: both parts count.
      const again = counted(6);
      await screenWith('stop', again);
      const last = counted();
      const { summary, out } = await screenWith('stop', last);
      expect(last.calls()).toBeLessThanOrEqual(30 - 9 - 4);
      expect(summary).toMatchObject({ rows: 30, block: 10, allow: 20, kept: 30 - last.calls() });
      expect(await left('stop')).toEqual(['stop.out']);
      const whole = await screenWith('whole', counted());
      expect(await timeless(out)).toBe(await timeless(whole.out));
    });
    it('what a killed process left counts too; a living one keeps its own', async () => {
      await screenWith('dead', counted());
      const out = join(dir, 'dead.out');
      const whole = await timeless(out);
      await rename(out, join(dir, 'dead.out.2147483646.part'));
      await writeFile(join(dir, `dead.out.${process.ppid}.part`), 'of another');
      const judge = counted();
      expect((await screenWith('dead', judge)).summary).toMatchObject({ kept: 30 });
      expect(judge.calls()).toBe(0);
      expect(await timeless(out)).toBe(whole);
      expect(await left('dead')).toEqual(['dead.out', `dead.out.${process.ppid}.part`]);
    });
    it('nothing is taken over that another text, policy or judge got, that is unjudged, or no verdict', async () => {
      const part = join(dir, 'forged.out.part');
      const ran = await screenWith('forged', counted());
      const verdicts = (await readFile(ran.out, 'utf8'))
        .trim()
        .split('\n')
        .map((l) => JSON.parse(l) as VerdictRow);
      const odd = verdicts.flatMap((v): unknown[] => [
        { ...v, digests: { ...v.digests, judge: 'other' } },
        { ...v, digests: { ...v.digests, policy: 'other' } },
        { ...v, digests: { ...v.digests, content: 'other' } },
        { ...v, channel: 'analysis' },
        { ...v, outcome: 'unjudged', rule: null, cause: 'timeout' },
        { ...v, outcome: 'ALLOW' },
        { ...v, outcome: 'allow', rule: 'N1' },
        { ...v, outcome: 'block', rule: null },
        null,
      ]);
      await writeFile(part, `${odd.map((o) => JSON.stringify(o)).join('\n')}\n{"id":"cut`);
      const judge = counted();
      expect((await screenWith('forged', judge)).summary).toMatchObject({ kept: 0, block: 10, allow: 20 });
      expect(judge.calls()).toBe(30);
    });
    it('a judge that cannot be used at all ends the run: ScreeningError, exit 30, few calls', async () => {
      let calls = 0;
      const dead = scripted(() => {
        calls++;
        throw new JudgeFailure('http_status', 'judge x: answered 401', { hopeless: true });
      });
      for (const window of [1, 4, 20]) {
        calls = 0;
        const { error } = await screenWith('dead-judge', { judge: dead, window }, rows(500));
        expect(error).toBeInstanceOf(ScreeningError);
        expect(error).toMatchObject({ code: 'judge_unusable', exitCode: 30 });
        expect((error as Error).message).toContain('answered 401');
        expect(calls).toBeLessThanOrEqual(HOPELESS_CALLS + window);
      }
      const few = await screenWith('few', { judge: dead }, rows(HOPELESS_CALLS - 1));
      expect(few.summary).toMatchObject({ unjudged: HOPELESS_CALLS - 1 });
      expect(await left('dead-judge')).toEqual([]);
    });
  });
  it('rows of any shape never throw but as DataError', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        try {
          parseRow('f', 1, text);
        } catch (error) {
          expect(error).toMatchObject({ name: 'DataError' });
        }
      }),
      { numRuns: 2000 },
    );
  });
  it('a ratio of nothing is none, not 1', () => {
    const row = (outcome: string, expect: string | null): VerdictRow => ({ outcome, expect, rule: null }) as VerdictRow;
    expect(agreementOf([row('unjudged', 'N1'), row('unjudged', 'N1')])).toMatchObject({
      precision: null,
      recall: 0,
      f1: 0,
      unjudged: 2,
    });
    expect(agreementOf([row('allow', null)])).toMatchObject({ precision: null, recall: null, f1: null });
  });
  it('unjudged never helps the score', () => {
    const row = (outcome: string, expect: string | null): VerdictRow => ({ outcome, expect, rule: null }) as VerdictRow;
    expect(agreementOf([row('unjudged', 'N1'), row('unjudged', null)])).toMatchObject({
      falseNegatives: 1,
      falsePositives: 1,
      unjudged: 2,
      f1: 0,
    });
  });
});
