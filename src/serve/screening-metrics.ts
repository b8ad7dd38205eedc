// What a server counts of verdicts, of what waits for them, of its log and of its judge.
import type { Registry } from 'prom-client';
import { channelLabel } from '../safeguard/contract.js';
import type { JudgeHealth } from '../safeguard/judge-health.js';
import type { ScreeningMeter } from './meter.js';
import { Counter, Gauge, Histogram } from './prometheus.js';

const BREAKER = { closed: 0, half_open: 1, open: 2 } as const;

export function screeningMetrics(registry: Registry, judge: () => JudgeHealth | null): ScreeningMeter {
  const registers = [registry];
  const verdicts = new Counter({
    name: 'temper_verdicts_total',
    help: 'Verdicts, by policy, channel and outcome. Only allow passes.',
    labelNames: ['policy', 'channel', 'outcome'],
    registers,
  });
  const unjudged = new Counter({
    name: 'temper_unjudged_total',
    help: 'Texts without a verdict, by cause: timeout, circuit_open, canary and others tell how the judge fares.',
    labelNames: ['cause'],
    registers,
  });
  const seconds = new Histogram({
    name: 'temper_verdict_seconds',
    help: 'Time that a verdict took, all tries of the judge together.',
    labelNames: ['policy'],
    buckets: [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60],
    registers,
  });
  const covered = new Counter({
    name: 'temper_verdict_characters_total',
    help: 'Characters of texts that were to be judged (of), and those of them that a verdict speaks of (judged).',
    labelNames: ['kind'],
    registers,
  });
  const hold = new Histogram({
    name: 'temper_hold_seconds',
    help: 'Time that a sentence of a stream waited for its verdict.',
    buckets: [0.005, 0.01, 0.03, 0.06, 0.15, 0.3, 1, 3, 10, 30],
    registers,
  });
  const records = new Counter({ name: 'temper_log_records_total', help: 'Records in the verdict log.', registers });
  const failures = new Counter({
    name: 'temper_log_failures_total',
    help: 'Records that could not be written: nothing was released by them.',
    registers,
  });
  const commit = new Histogram({
    name: 'temper_log_commit_seconds',
    help: 'Time from the write of a group of records until they are on the disk.',
    buckets: [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
    registers,
  });
  const health = (name: string, help: string, value: (h: JudgeHealth) => number | undefined): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        const now = judge();
        const said = now === null ? undefined : value(now);
        if (said === undefined) this.remove();
        else this.set(said);
      },
    });
  };
  health(
    'temper_judge_breaker',
    "The judge's circuit breaker: 0 closed, 1 half open, 2 open (nothing is asked).",
    (h) => (h.breaker === undefined ? undefined : BREAKER[h.breaker]),
  );
  health('temper_judge_calls', 'Calls of the judge since the start.', (h) => h.calls);
  health('temper_judge_retries', 'Calls of the judge that were sent again.', (h) => h.retries);
  health('temper_judge_hedges', 'Calls of the judge that were sent twice at once.', (h) => h.hedges);
  health('temper_judge_canary_misses', 'Texts of known verdict that the judge got wrong.', (h) => h.canaryMisses);
  return {
    verdict({ policy, channel, outcome, cause, latencyMs, ...rest }) {
      verdicts.inc({ policy, channel: channelLabel(channel), outcome });
      if (cause !== null) unjudged.inc({ cause });
      seconds.observe({ policy }, latencyMs / 1000);
      const coverage = 'coverage' in rest ? (rest.coverage as { characters?: unknown; judged?: unknown } | null) : null;
      if (typeof coverage?.characters !== 'number' || typeof coverage.judged !== 'number') return;
      covered.inc({ kind: 'of' }, coverage.characters);
      covered.inc({ kind: 'judged' }, coverage.judged);
    },
    held: (ms) => hold.observe(ms / 1000),
    commit({ records: count, ms, failed }) {
      if (failed) {
        failures.inc(count);
        return;
      }
      records.inc(count);
      commit.observe(ms / 1000);
    },
  };
}
