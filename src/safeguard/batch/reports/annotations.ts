// GitHub annotations: workflow commands on a step's output. GitHub shows 10 errors and 10 warnings of a step, so no
// more are printed; a notice says how many there are.
import type { VerdictRow } from '../../agreement.js';
import type { Overview } from './overview.js';
import { fileOf, findingOf, type ReportSource, sentenceOf } from './source.js';

export const ANNOTATIONS = 10;

/** Data of a command; nothing in it can end the command or begin another one. */
const data = (text: string): string =>
  text.toWellFormed().replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
const property = (text: string): string => data(text).replaceAll(':', '%3A').replaceAll(',', '%2C');

function annotation(kind: 'error' | 'warning', v: VerdictRow, source: ReportSource): string {
  const place = `file=${property(fileOf(v, source))},line=${Math.max(1, v.line)},title=${property(findingOf(v))}`;
  return `::${kind} ${place}::${data(sentenceOf(v))}`;
}

/** Lines for a step's output. */
export function annotationsOf({ findings, byOutcome }: Overview, source: ReportSource): readonly string[] {
  const some = (outcome: 'block' | 'unjudged'): readonly VerdictRow[] => {
    const own = findings.filter((f) => f.outcome === outcome);
    // One of each kind before a second one of any.
    const rounds = Array.from({ length: ANNOTATIONS }, (_, i) => own.flatMap((f) => f.examples.slice(i, i + 1)));
    return rounds.flat().slice(0, ANNOTATIONS);
  };
  const [blocked, unjudged] = [some('block'), some('unjudged')];
  const more = byOutcome.block + byOutcome.unjudged - blocked.length - unjudged.length;
  return [
    ...blocked.map((v) => annotation('error', v, source)),
    ...unjudged.map((v) => annotation('warning', v, source)),
    ...(more > 0 ? [`::notice title=temper screen::${more} more verdicts are not allowed; see the reports`] : []),
  ];
}
