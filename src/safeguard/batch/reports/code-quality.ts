// GitLab's code quality report: one entry for each verdict that is not an allow.
import { sha256 } from '../../../base/digest.js';
import { OutputFile } from '../../../base/files.js';
import type { VerdictRow } from '../../agreement.js';
import { fileOf, findingOf, type ReportSource, sentenceOf, verdictsOf } from './source.js';

const entryOf = (v: VerdictRow, source: ReportSource): object => ({
  description: sentenceOf(v),
  check_name: findingOf(v),
  // GitLab shows one of those that are equal.
  fingerprint: sha256(JSON.stringify([v.file ?? '', v.line, v.id, v.channel, v.policy, findingOf(v)])),
  severity: v.outcome === 'block' ? 'critical' : 'major',
  location: { path: fileOf(v, source).replace(/^(?:\.\/)+/, ''), lines: { begin: Math.max(1, v.line) } },
});

export async function writeCodeQuality(out: string, source: ReportSource): Promise<void> {
  const file = await OutputFile.open(out, source.signal);
  let some = false;
  try {
    await file.write('[');
    for await (const batch of verdictsOf(source)) {
      const entries = batch.filter((v) => v.outcome !== 'allow').map((v) => JSON.stringify(entryOf(v, source)));
      if (entries.length === 0) continue;
      await file.write(`${some ? ',' : ''}\n${entries.join(',\n')}`, source.signal);
      some = true;
    }
    await file.write('\n]\n');
    file.commit();
  } finally {
    file.discard();
  }
}
