// Spans of verdicts and of writes of the log, for a host that has set up OpenTelemetry (its SDK, or
// `node --import` of one); without it nothing of it is loaded. A verdict's span lies in that of its request.
import type { Attributes, Tracer } from '@opentelemetry/api';
import { channelLabel } from '../safeguard/contract.js';
import type { Verdict } from '../safeguard/types.js';
import type { CommitInfo } from '../verdict-log/log.js';

/** Where the API keeps what a host has set up. */
const SET_UP = Symbol.for('opentelemetry.js.api.1');

export interface Tracing {
  verdict(verdict: Verdict): void;
  commit(commit: CommitInfo): void;
}

/** null: no host has set it up. */
export async function createTracing(version: string): Promise<Tracing | null> {
  if (!(SET_UP in globalThis)) return null;
  const { SpanStatusCode, trace } = await import('@opentelemetry/api');
  const tracer = trace.getTracer('temper-oss', version);
  return {
    verdict: (v) => {
      const attributes: Attributes = {
        'gen_ai.evaluation.name': v.policy,
        'gen_ai.evaluation.score.label': v.outcome,
        ...(v.score === undefined ? {} : { 'gen_ai.evaluation.score.value': v.score }),
        'temper.verdict.channel': channelLabel(v.channel),
        ...(v.rule === null ? {} : { 'temper.verdict.rule': v.rule }),
        ...(v.cause === null ? {} : { 'temper.verdict.cause': v.cause }),
      };
      ended(tracer, 'temper.verdict', v.latencyMs, attributes, (span) => {
        span.addEvent('gen_ai.evaluation.result', attributes);
        if (v.outcome === 'unjudged') span.setStatus({ code: SpanStatusCode.ERROR, message: v.cause ?? 'unjudged' });
      });
    },
    commit: ({ records, ms, failed }) =>
      ended(tracer, 'temper.log.commit', ms, { 'temper.log.records': records }, (span) => {
        if (failed) span.setStatus({ code: SpanStatusCode.ERROR, message: 'log_failed' });
      }),
  };
}
/** A span of what took so long and is over. */
function ended(
  tracer: Tracer,
  name: string,
  ms: number,
  attributes: Attributes,
  more: (span: ReturnType<Tracer['startSpan']>) => void,
): void {
  const now = Date.now();
  const span = tracer.startSpan(name, { startTime: now - ms, attributes });
  more(span);
  span.end(now);
}
