// What is counted and traced of verdicts, the log and the judge.
import { context, ProxyTracerProvider, type Span, type SpanOptions, trace } from '@opentelemetry/api';
import { afterEach, expect, it } from 'vitest';
import type { JudgeHealth } from '../../src/safeguard/judge-health.js';
import { BREAKER_FAILURES, Breaker } from '../../src/safeguard/judges/resilience.js';
import type { Verdict } from '../../src/safeguard/types.js';
import { createMeter } from '../../src/serve/meter.js';
import { createTracing } from '../../src/serve/tracing.js';

const verdict: Verdict = {
  outcome: 'block',
  policy: 'p',
  channel: 'final',
  rule: 'R1',
  rationale: 'secret words',
  cause: null,
  detail: '',
  digests: { policy: 'a', content: 'b', judge: 'c' },
  latencyMs: 250,
};
const unjudged: Verdict = { ...verdict, outcome: 'unjudged', rule: null, cause: 'timeout', channel: 'of a model' };

it('verdicts, holds, the log and the judge', async () => {
  let health: JudgeHealth | null = { breaker: 'open', calls: 9, retries: 2, hedges: 1, canaryMisses: 3 };
  const meter = createMeter({ running: 0, waiting: 0 } as never, () => health);
  meter.screening?.verdict({ ...verdict, coverage: { characters: 100, judged: 60, windows: 2, views: ['raw'] } });
  meter.screening?.verdict(unjudged);
  meter.screening?.held(70);
  meter.screening?.commit({ records: 5, ms: 2, failed: false });
  meter.screening?.commit({ records: 3, ms: 2, failed: true });
  const text = await meter.text();
  for (const line of [
    'temper_verdicts_total{policy="p",channel="final",outcome="block"} 1',
    // A model's word is no label.
    'temper_verdicts_total{policy="p",channel="other",outcome="unjudged"} 1',
    'temper_unjudged_total{cause="timeout"} 1',
    'temper_verdict_seconds_count{policy="p"} 2',
    'temper_verdict_characters_total{kind="of"} 100',
    'temper_verdict_characters_total{kind="judged"} 60',
    'temper_hold_seconds_count 1',
    'temper_log_records_total 5',
    'temper_log_failures_total 3',
    'temper_log_commit_seconds_count 1',
    'temper_judge_breaker 2',
    'temper_judge_calls 9',
    'temper_judge_retries 2',
    'temper_judge_hedges 1',
    'temper_judge_canary_misses 3',
  ])
    expect(text).toContain(line);
  expect(text).not.toContain('secret');
  health = null;
  expect(await meter.text()).not.toMatch(/^temper_judge_breaker [0-9]/m);
  expect(await createMeter({ running: 0, waiting: 0 } as never).text()).not.toContain('temper_verdicts_total');
});

it('a breaker says how it stands', () => {
  let now = 0;
  const breaker = new Breaker(() => now);
  expect(breaker.state).toBe('closed');
  for (let i = 0; i < BREAKER_FAILURES; i++) breaker.failed('no');
  expect(breaker.state).toBe('open');
  now = 1e9;
  expect(breaker.state).toBe('half_open');
  breaker.succeeded();
  expect(breaker.state).toBe('closed');
});

afterEach(() => {
  trace.disable();
  context.disable();
});
it('without a host that set it up there is no tracing, with one verdicts and writes are spans', async () => {
  trace.disable();
  expect(await createTracing('1')).toBeNull();
  const spans: { name: string; options: SpanOptions; events: string[]; status?: unknown; ended?: boolean }[] = [];
  const provider = new ProxyTracerProvider();
  provider.setDelegate({
    getTracer: () =>
      ({
        startSpan(name: string, options: SpanOptions = {}) {
          const span: (typeof spans)[number] = { name, options, events: [] };
          spans.push(span);
          return {
            addEvent: (event: string) => void span.events.push(event),
            setStatus: (status: unknown) => void Object.assign(span, { status }),
            end: () => void Object.assign(span, { ended: true }),
          } as unknown as Span;
        },
      }) as never,
  });
  trace.setGlobalTracerProvider(provider);
  const tracing = await createTracing('1');
  tracing?.verdict(verdict);
  tracing?.verdict(unjudged);
  tracing?.commit({ records: 7, ms: 3, failed: false });
  tracing?.commit({ records: 7, ms: 3, failed: true });
  expect(spans.map((s) => s.name)).toEqual([
    'temper.verdict',
    'temper.verdict',
    'temper.log.commit',
    'temper.log.commit',
  ]);
  expect(spans.every((s) => s.ended)).toBe(true);
  expect(spans[0]).toMatchObject({
    events: ['gen_ai.evaluation.result'],
    options: {
      attributes: {
        'gen_ai.evaluation.name': 'p',
        'gen_ai.evaluation.score.label': 'block',
        'temper.verdict.rule': 'R1',
      },
    },
  });
  expect(spans[1]?.status).toMatchObject({ message: 'timeout' });
  expect(spans[3]?.status).toMatchObject({ message: 'log_failed' });
  expect(JSON.stringify(spans)).not.toContain('secret words');
});
