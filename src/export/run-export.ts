// `temper export` on the thread it is called on (worker.ts puts it off the main one): opens the source, asks each
// format whether it can, writes all of them beside their place and renames once.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { sha256File } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { writeFlushed, writeFolderAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { checkOutputs } from '../base/outputs.js';
import { TENSOR_FILE } from '../lora/peft-names.js';
import { PROVENANCE_FILE, type Provenance, writeProvenance } from '../lora/provenance.js';
import { checkDiskSpace } from '../model/checkpoint-writer.js';
import { exportCard } from './card.js';
import type { ExportFormat, ExportSource } from './format.js';
import { FORMATS } from './formats/index.js';
import { checkNote, checkWritten, copyEvidence, type GateNotes, gateProvenance } from './gate-note.js';
import { openSource, type SourceRequest } from './source.js';

export interface ExportRequest extends SourceRequest {
  readonly out: string;
  /** Names of formats; several are written into subfolders of those names. Default: peft. */
  readonly format?: readonly string[] | undefined;
  /** Who is to load it: one that would not load it right is refused. */
  readonly consumers?: readonly string[] | undefined;
  /** Held-out rows in place of the run's own, for formats that measure what they cost. */
  readonly rows?: string | undefined;
  /** Tokens of them that are measured at most (default 4,096); 0: nothing is measured. */
  readonly evalTokens?: number | undefined;
  /** How it stands before the release gate, by name of the format; absent: nobody asked the gate. */
  readonly gate?: GateNotes | undefined;
}
/** One format's folder. */
export interface ExportedFormat {
  readonly format: string;
  readonly folder: string;
  readonly bytes: number;
  /** sha256 by name. */
  readonly files: Readonly<Record<string, string>>;
  readonly report: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}
export interface ExportResult {
  readonly out: string;
  /** Steps that the exported weights had; null: they come of no run. */
  readonly step: number | null;
  /** Of the first format. */
  readonly files: Readonly<Record<string, string>>;
  readonly exports: readonly ExportedFormat[];
}
export interface ExportProgress {
  readonly format: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** What is done beside writing; empty: writing. */
  readonly stage: string;
}
export interface ExportHooks {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ExportProgress) => void) | undefined;
}

export const DEFAULT_EVAL_TOKENS = 4096;

function formatsOf(names: readonly string[]): readonly ExportFormat[] {
  return [...new Set(names)].map((name) => {
    const format = FORMATS.find((f) => f.name === name);
    if (format) return format;
    throw new ConfigError(
      'unknown_format',
      `--format ${name}: not known; wanted one of ${FORMATS.map((f) => f.name).join(', ')}`,
      { got: name },
    );
  });
}

/** @throws {ConfigError} export_refused: the format cannot hold it, or who is to load it would load it wrong */
function requireFit(source: ExportSource, formats: readonly ExportFormat[], wanted: readonly string[]): void {
  const refused = (what: string, details: Record<string, unknown>): ConfigError =>
    new ConfigError('export_refused', what, details);
  for (const format of formats) {
    const why = format.refuses(source);
    if (why !== null) throw refused(`--format ${format.name}: ${why}`, { format: format.name });
    for (const name of wanted) {
      const consumer = format.consumers.find((c) => c.name === name);
      if (!consumer)
        throw refused(
          `--for ${name}: does not load ${format.name}, which is for ${format.consumers.map((c) => c.name).join(', ')}`,
          { format: format.name, consumer: name },
        );
      const bad = consumer.refuses(source);
      if (bad !== null) throw refused(`--for ${name}: ${bad}`, { format: format.name, consumer: name });
    }
  }
}

/** Names of all files below a folder, with '/'. */
function filesBelow(folder: string, at = ''): string[] {
  return readdirSync(join(folder, at), { withFileTypes: true })
    .flatMap((e) => (e.isDirectory() ? filesBelow(folder, join(at, e.name)) : [join(at, e.name)]))
    .map((name) => name.replaceAll('\\', '/'))
    .sort();
}

async function digestsOf(
  folder: string,
  known: Readonly<Record<string, string>>,
  signal?: AbortSignal,
): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const name of filesBelow(folder)) {
    if (name === PROVENANCE_FILE) continue;
    files[name] = known[name] ?? (await sha256File(join(folder, name), signal ? { signal } : {}));
  }
  return files;
}

async function provenanceOf(
  source: ExportSource,
  format: string,
  finalFolder: string,
  request: ExportRequest,
  report: Readonly<Record<string, unknown>> | undefined,
  signal?: AbortSignal,
): Promise<Omit<Provenance, 'files'>> {
  const { origin, base, baseDigest, baseModel, commit } = source;
  const at = (path: string): string => relative(finalFolder, resolve(path));
  const digests: Record<string, string> =
    origin.kind === 'run'
      ? { ...origin.record.digests }
      : origin.kind === 'adapter'
        ? { adapter: await sha256File(join(origin.folder, TENSOR_FILE), signal ? { signal } : {}) }
        : {};
  const note = request.gate?.[format];
  return {
    version: 1,
    format,
    ...(origin.kind === 'run' ? { run: at(origin.run), step: origin.step } : { model: at(base.dir) }),
    ...(origin.kind === 'adapter' ? { adapter: at(origin.folder) } : {}),
    ...(request.expertLayout ? { expertLayout: request.expertLayout } : {}),
    base: { name: baseModel, ...(commit === null ? {} : { commit }) },
    digests: { ...digests, base: baseDigest },
    ...(report && Object.keys(report).length > 0 ? { report } : {}),
    ...(note ? { gate: gateProvenance(note) } : {}),
  };
}

/** The nearest folder there is, on the way to one that is to be made. */
function existingAbove(path: string): string {
  let at = dirname(path);
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  return at;
}

/**
 * @throws {ConfigError} nothing was trained, the run is not finished, `out` exists, export_refused · {CheckpointError}
 * not_finite, disk_full, what is no adapter or not this base's · {IntegrityError} base_changed · the signal's reason;
 * nothing is left behind
 */
export async function runExport(request: ExportRequest, hooks: ExportHooks = {}): Promise<ExportResult> {
  const { signal } = hooks;
  const formats = formatsOf(request.format ?? ['peft']);
  const out = resolve(request.out);
  using source = await openSource(request, signal);
  if (existsSync(out)) throw new ConfigError('path_exists', `${request.out}: exists; give a new folder`, { out });
  checkOutputs({ '--out': out }, { folders: [source.base.dir, source.adapter?.folder] }, 'folder');
  requireFit(source, formats, request.consumers ?? []);
  const needed = formats.reduce((n, f) => n + f.estimateBytes(source), 1 << 20);
  checkDiskSpace(existingAbove(out), needed);
  const exports: ExportedFormat[] = [];
  await writeFolderAtomic(out, async (temporary) => {
    for (const format of formats) {
      const part = formats.length > 1 ? format.name : '.';
      const folder = join(temporary, part),
        finalFolder = join(out, part);
      makeFolders(folder);
      exports.push(await writeOne(source, format, folder, finalFolder, request, hooks));
    }
  });
  const { origin } = source;
  return {
    out,
    step: origin.kind === 'run' ? origin.step : null,
    files: exports[0]?.files ?? {},
    exports,
  };
}

/** An adapter that was trained through the rounding of a merge is another model where it is added without it. */
const mergeAwareWarning = ({ adapter }: ExportSource, { name, mergeAware }: ExportFormat): string[] =>
  adapter?.spec.mergeAware && !mergeAware
    ? [
        `${name}: the run was trained with adapter.mergeAware, so its model is base and adapter merged and rounded; ` +
          'added to the base without that, it gives other logits: export merged-mxfp4, merged-bf16 or gguf',
      ]
    : [];

async function writeOne(
  source: ExportSource,
  format: ExportFormat,
  folder: string,
  finalFolder: string,
  request: ExportRequest,
  { signal, onProgress }: ExportHooks,
): Promise<ExportedFormat> {
  signal?.throwIfAborted();
  const note = request.gate?.[format.name];
  if (note) await checkNote(source, format, note, signal);
  let total = format.estimateBytes(source);
  const tell = (doneBytes: number, stage: string): void =>
    onProgress?.({ format: format.name, doneBytes, totalBytes: total, stage });
  const written = await format.write(source, folder, {
    signal,
    progress: (done, of) => {
      total = of;
      tell(done, '');
    },
    stage: (what) => tell(total, what),
    options: { rows: request.rows, evalTokens: request.evalTokens ?? DEFAULT_EVAL_TOKENS },
  });
  if (note) await checkWritten(folder, format, note, signal);
  writeFlushed(join(folder, 'README.md'), exportCard(source, format, written, note));
  if (note) copyEvidence(note, folder);
  const files = await digestsOf(folder, written.digests ?? {}, signal);
  const about = await provenanceOf(source, format.name, finalFolder, request, written.report, signal);
  writeProvenance(folder, { ...about, files });
  return {
    format: format.name,
    folder: finalFolder,
    bytes: Object.keys(files).reduce((n, name) => n + statSync(join(folder, name)).size, 0),
    files,
    report: written.report ?? {},
    warnings: [...(written.warnings ?? []), ...mergeAwareWarning(source, format)],
  };
}
