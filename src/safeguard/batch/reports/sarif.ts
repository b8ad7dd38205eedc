// SARIF 2.1.0: one result for each verdict that is not an allow; blocks first, as readers cut long lists. Files are
// kept within what GitHub takes (docs.github.com, SARIF support for code scanning): 25,000 results and 25,000 rules a
// run, 10 MB a file. What is over goes to files of its own, each with a category of its own, as GitHub wants it.
import { existsSync, rmSync } from 'node:fs';
import { join, parse as parsePath } from 'node:path';
import { sha256 } from '../../../base/digest.js';
import { OutputFile } from '../../../base/files.js';
import { readHead } from '../../../base/inputs.js';
import { SARIF_HEAD, sarifUri } from '../../../report/sarif.js';
import type { VerdictRow } from '../../agreement.js';
import { fileOf, findingOf, type ReportSource, sentenceOf, verdictsOf } from './source.js';

export const SARIF_RESULTS = 25_000;
/** Of a file as it is written; in gzip, as it is sent, it is smaller. */
export const SARIF_BYTES = 9_500_000;

function resultOf(v: VerdictRow, ruleIndex: number, source: ReportSource): object {
  return {
    ruleId: findingOf(v),
    ruleIndex,
    level: v.outcome === 'block' ? 'error' : 'warning',
    message: { text: sentenceOf(v) },
    locations: [
      {
        physicalLocation: {
          artifactLocation: { uri: sarifUri(fileOf(v, source)) },
          region: { startLine: Math.max(1, v.line) },
        },
      },
    ],
    partialFingerprints: {
      'temperVerdict/v1': sha256(JSON.stringify([v.file ?? '', v.id, v.channel, findingOf(v), v.digests.policy])),
    },
  };
}
const ruleOf = (id: string): object => ({
  id,
  shortDescription: { text: id.startsWith('unjudged/') ? `no verdict: ${id.slice(9)}` : `rule ${id}` },
});

/** `report.sarif`, `report-2.sarif`, … */
const nameOf = (out: string, n: number): string => {
  if (n === 1) return out;
  const { dir, name, ext } = parsePath(out);
  return join(dir, `${name}-${n}${ext}`);
};

/** One file of them. */
class Log {
  readonly #rules = new Map<string, number>();
  #results = 0;
  #bytes = 0;
  constructor(
    readonly file: OutputFile,
    readonly number: number,
    readonly source: ReportSource,
  ) {}

  /** @returns false: it is full */
  async add(v: VerdictRow): Promise<boolean> {
    const rule = findingOf(v);
    const index = this.#rules.get(rule) ?? this.#rules.size;
    const text = JSON.stringify(resultOf(v, index, this.source));
    const bytes = Buffer.byteLength(text) + (this.#rules.has(rule) ? 0 : 3 * Buffer.byteLength(rule) + 80);
    if (this.#results > 0 && (this.#results >= SARIF_RESULTS || this.#bytes + bytes > SARIF_BYTES)) return false;
    this.#rules.set(rule, index);
    await this.file.write(`${this.#results === 0 ? '' : ','}\n${text}`, this.source.signal);
    this.#results++;
    this.#bytes += bytes;
    return true;
  }
  async end(): Promise<void> {
    const driver = { name: 'temper screen', version: this.source.version, rules: [...this.#rules.keys()].map(ruleOf) };
    const id = this.number === 1 ? 'temper-screen/' : `temper-screen-${this.number}/`;
    await this.file.write(
      `\n],"tool":${JSON.stringify({ driver })},"automationDetails":${JSON.stringify({ id })}}]}\n`,
    );
    this.file.commit();
  }
}

/** @returns the files that it takes */
export async function writeSarif(out: string, source: ReportSource): Promise<readonly string[]> {
  const files: string[] = [];
  let log: Log | undefined;
  const open = async (): Promise<Log> => {
    const path = nameOf(out, files.length + 1);
    files.push(path);
    const next = new Log(await OutputFile.open(path, source.signal), files.length, source);
    await next.file.write(SARIF_HEAD);
    return next;
  };
  try {
    log = await open();
    for (const outcome of ['block', 'unjudged'] as const)
      for await (const batch of verdictsOf(source))
        for (const v of batch) {
          if (v.outcome !== outcome || (await log.add(v))) continue;
          await log.end();
          log = await open();
          await log.add(v);
        }
    await log.end();
  } finally {
    log?.file.discard();
  }
  removeOlder(out, files.length);
  return files;
}

/** Files of a longer report before, which would be taken for some of this one. */
function removeOlder(out: string, count: number): void {
  for (let n = count + 1; existsSync(nameOf(out, n)); n++) {
    const name = nameOf(out, n);
    if (!readHead(name, SARIF_HEAD.length).equals(Buffer.from(SARIF_HEAD))) return;
    rmSync(name);
  }
}
