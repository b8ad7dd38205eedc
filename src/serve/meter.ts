// What a server counts, as Prometheus reads it.
import type { DoneEvent } from '../infer/protocol.js';
import type { ScreeningMode } from '../safeguard/holdback/sink.js';
import type { JudgeHealth } from '../safeguard/judge-health.js';
import type { Verdict } from '../safeguard/types.js';
import type { CommitInfo } from '../verdict-log/log.js';
import type { Admission } from './admission.js';
import { Counter, Gauge, Histogram, Registry } from './prometheus.js';
import { screeningMetrics } from './screening-metrics.js';

export interface Meter {
  request(route: string, status: number, seconds: number): void;
  turn(done: DoneEvent, withheld: boolean): void;
  /** Where there are policies; absent without. */
  readonly screening?: ScreeningMeter;
  /** Text exposition format. */
  text(): Promise<string>;
  readonly contentType: string;
}

export interface ScreeningMeter {
  verdict(verdict: Verdict): void;
  /** A sentence of a stream waited so long for its verdict. */
  held(ms: number): void;
  /** The log wrote a group of records, or could not. */
  commit(commit: CommitInfo): void;
}

/**
 * @param judge of a server with policies: how its judge fares, null where it does not say
 * @param mode  in shadow every metric is labelled with it
 */
export function createMeter(
  admission: Admission,
  judge?: () => JudgeHealth | null,
  mode: ScreeningMode = 'enforce',
): Meter {
  const registry = new Registry();
  if (mode === 'shadow') registry.setDefaultLabels({ screening: mode });
  const registers = [registry];
  const requests = new Counter({
    name: 'temper_requests_total',
    help: 'Requests answered, by route and status.',
    labelNames: ['route', 'status'],
    registers,
  });
  const seconds = new Histogram({
    name: 'temper_request_seconds',
    help: 'Time from the head of a request to the end of its answer.',
    labelNames: ['route'],
    buckets: [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300],
    registers,
  });
  const tokens = new Counter({
    name: 'temper_tokens_total',
    help: 'Tokens read (prompt) and written (completion).',
    labelNames: ['kind'],
    registers,
  });
  const guesses = new Counter({
    name: 'temper_draft_tokens_total',
    help: 'Tokens that were guessed and checked (drafted), and those of them that came (accepted).',
    labelNames: ['kind'],
    registers,
  });
  const first = new Histogram({
    name: 'temper_time_to_first_token_seconds',
    help: 'Time from the engine taking a request to its first token.',
    buckets: [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
    registers,
  });
  const withheld = new Counter({
    name: 'temper_withheld_total',
    help: 'Answers of which a verdict, or the lack of one, kept something back.',
    registers,
  });
  const gauge = (name: string, help: string, value: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  };
  gauge('temper_requests_running', 'Requests that hold a place.', () => admission.running);
  gauge('temper_requests_waiting', 'Requests that wait for one.', () => admission.waiting);
  return {
    ...(judge ? { screening: screeningMetrics(registry, judge) } : {}),
    request(route, status, took) {
      requests.inc({ route, status: String(status) });
      seconds.observe({ route }, took);
    },
    turn({ usage }, kept) {
      tokens.inc({ kind: 'prompt' }, usage.promptTokens);
      tokens.inc({ kind: 'completion' }, usage.completionTokens);
      guesses.inc({ kind: 'drafted' }, usage.draftedTokens ?? 0);
      guesses.inc({ kind: 'accepted' }, usage.acceptedTokens ?? 0);
      first.observe(usage.prefillMs / 1000);
      if (kept) withheld.inc();
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
