// What the tests ran of src/, in lines: vitest's own count (build/coverage/coverage-final.json) and that of the
// processes and threads the tests started, which run dist/ (build/coverage/processes/*.json, written by Node; source
// maps lead back to src/). `report()` gives the total and the files below a threshold.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from './prepare.mjs';

export const folder = join(root, 'build', 'coverage');
export const processes = join(folder, 'processes');

/** How often the code at each offset ran: V8's ranges are nested, the innermost counts. */
function countAt(functions, offset) {
  let count = 0,
    width = Number.POSITIVE_INFINITY;
  for (const { ranges } of functions)
    for (const r of ranges)
      if (r.startOffset <= offset && offset < r.endOffset && r.endOffset - r.startOffset <= width) {
        count = r.count;
        width = r.endOffset - r.startOffset;
      }
  return count;
}

/** dist file → where each of its lines begins, and the line of src it comes from. */
const mapped = new Map();
function linesOf(file) {
  const known = mapped.get(file);
  if (known) return known;
  const lines = [];
  if (existsSync(`${file}.map`)) {
    const map = new SourceMap(JSON.parse(readFileSync(`${file}.map`, 'utf8')));
    let offset = 0;
    for (const [i, line] of readFileSync(file, 'utf8').split('\n').entries()) {
      const column = line.length - line.trimStart().length;
      const entry = map.findEntry(i, column);
      if ('originalSource' in entry && column < line.length)
        lines.push({
          offset: offset + column,
          source: resolve(dirname(file), entry.originalSource),
          line: entry.originalLine + 1,
        });
      offset += line.length + 1;
    }
  }
  mapped.set(file, lines);
  return lines;
}

/** Lines of src that started processes ran: file → set of line numbers. */
function linesOfProcesses() {
  const ran = new Map();
  if (!existsSync(processes)) return ran;
  for (const name of readdirSync(processes)) {
    let result;
    try {
      ({ result } = JSON.parse(readFileSync(join(processes, name), 'utf8')));
    } catch {
      continue; // a process that was killed while it wrote
    }
    for (const { url, functions } of result) {
      if (!url.startsWith('file:')) continue;
      const file = fileURLToPath(url);
      if (!file.startsWith(join(root, 'dist'))) continue;
      for (const { offset, source, line } of linesOf(file)) {
        const lines = ran.get(source) ?? new Set();
        ran.set(source, lines);
        if (!lines.has(line) && countAt(functions, offset) > 0) lines.add(line);
      }
    }
  }
  return ran;
}

/** @returns {{ file: string, lines: number, covered: number, missing: number[] }[]} by file; null without a count */
export function coverage() {
  const report = join(folder, 'coverage-final.json');
  if (!existsSync(report)) return null;
  const elsewhere = linesOfProcesses();
  const files = [];
  for (const [path, { statementMap, s }] of Object.entries(JSON.parse(readFileSync(report, 'utf8')))) {
    const ran = new Map();
    for (const [id, { start }] of Object.entries(statementMap))
      ran.set(
        start.line,
        (ran.get(start.line) ?? false) || s[id] > 0 || (elsewhere.get(path)?.has(start.line) ?? false),
      );
    const missing = [...ran].filter(([, done]) => !done).map(([line]) => line);
    files.push({ file: relative(root, path), lines: ran.size, covered: ran.size - missing.length, missing });
  }
  return files.sort((a, b) => (a.file < b.file ? -1 : 1));
}

/** The total, and each file of which less than `threshold` ran, with the first lines that did not. */
export function report(threshold = 0.8) {
  const files = coverage();
  if (!files) return ['no coverage was counted'];
  const sum = (key) => files.reduce((n, f) => n + f[key], 0);
  const percent = (f) => `${((100 * f.covered) / Math.max(1, f.lines)).toFixed(1)} %`;
  const low = files.filter((f) => f.covered < threshold * f.lines);
  return [
    `coverage of src/: ${percent({ covered: sum('covered'), lines: sum('lines') })} of ${sum('lines')} lines with a ` +
      `statement, in the tests' processes and those they start; ${low.length} of ${files.length} files below ` +
      `${100 * threshold} %`,
    ...low.map((f) => {
      const some = f.missing.slice(0, 8).join(', ');
      return `  ${percent(f).padStart(7)}  ${f.file}: lines ${some}${f.missing.length > 8 ? ', …' : ''}`;
    }),
  ];
}
