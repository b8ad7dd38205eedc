// The reports there are, and how they are asked for. A new one is a file here, a line in REPORTS.
import { writeCodeQuality } from './code-quality.js';
import { writeHtml } from './html.js';
import { writeJunit } from './junit.js';
import { writeMarkdown } from './markdown.js';
import { type Overview, overviewOf } from './overview.js';
import { writeSarif } from './sarif.js';
import type { ReportSource } from './source.js';
import { writeCsv, writeVerdictParquet } from './tables.js';

interface Report {
  readonly name: string;
  /** Of the option that asks for it. */
  readonly about: string;
  /** @returns the files, where they are others than `out` */
  readonly write: (
    out: string,
    source: ReportSource,
    overview: () => Promise<Overview>,
  ) => Promise<readonly string[] | undefined>;
}
const only = async (done: Promise<void>): Promise<undefined> => {
  await done;
  return undefined;
};
export const REPORTS = [
  {
    name: 'junit',
    about: 'the verdicts as JUnit XML: blocked is a failure, unjudged an error',
    write: (out, source) => only(writeJunit(out, source)),
  },
  {
    name: 'sarif',
    about: "what is not allowed as SARIF 2.1.0, in several files where it is over GitHub's limits",
    write: writeSarif,
  },
  {
    name: 'code-quality',
    about: "what is not allowed as GitLab's code quality report",
    write: (out, source) => only(writeCodeQuality(out, source)),
  },
  { name: 'csv', about: 'the verdicts as CSV', write: (out, source) => only(writeCsv(out, source)) },
  { name: 'parquet', about: 'the verdicts as Parquet', write: (out, source) => only(writeVerdictParquet(out, source)) },
  {
    name: 'html',
    about: 'a page: policies, rules, channels, analysis against final answer, examples',
    write: async (out, source, overview) => {
      writeHtml(out, await overview(), source);
      return undefined;
    },
  },
  {
    name: 'summary',
    about: 'a summary in Markdown, such as $GITHUB_STEP_SUMMARY takes',
    write: async (out, source, overview) => {
      writeMarkdown(out, await overview(), source);
      return undefined;
    },
  },
] as const satisfies readonly Report[];
export type ReportName = (typeof REPORTS)[number]['name'];

/**
 * Writes the reports that are asked for, from a complete file of verdicts, in memory that does not grow with it.
 * @returns files that were written
 */
export async function writeReports(
  wanted: Readonly<Partial<Record<ReportName, string | undefined>>>,
  source: ReportSource,
  overview: () => Promise<Overview> = () => overviewOf(source),
): Promise<readonly string[]> {
  let found: Promise<Overview> | undefined;
  const once = (): Promise<Overview> => (found ??= overview());
  const files: string[] = [];
  for (const { name, write } of REPORTS) {
    const out = wanted[name];
    if (out !== undefined) files.push(...((await write(out, source, once)) ?? [out]));
  }
  return files;
}
