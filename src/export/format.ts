// What an export format is. To add one: its file in formats/, one entry in formats/index.ts. Nothing else asks which
// format it holds: a format answers for itself.
import type { PeftFile } from '../lora/peft-file.js';
import type { Checkpoint } from '../model/checkpoint.js';
import type { ModelAdapter, ModelWeights } from '../model/types.js';
import type { Recipe } from '../recipe/schema.js';
import type { RunRecord } from '../runs/run-folder.js';

/** Where what is exported comes from. */
export type Origin =
  | {
      readonly kind: 'run';
      readonly run: string;
      /** Steps that its weights had. */
      readonly step: number;
      readonly record: RunRecord;
      readonly recipe: Recipe;
    }
  | { readonly kind: 'adapter'; readonly folder: string }
  | { readonly kind: 'model' };

/** What is exported: a checkpoint, mapped, and what is put on it. */
export interface ExportSource extends Disposable {
  /** Base of the adapter; of a run that trained a whole model, that model. On the host. */
  readonly base: Checkpoint;
  /** Its pairs are read when they are asked for; null: a whole model. */
  readonly adapter: PeftFile | null;
  readonly origin: Origin;
  /** What the base is called abroad, e.g. openai/gpt-oss-20b. */
  readonly baseModel: string;
  /** Commit of the base's repository, where the folder says it. */
  readonly commit: string | null;
  /** sha256 of the base (digestCheckpoint). */
  readonly baseDigest: string;
}

export interface WriteHooks {
  readonly signal?: AbortSignal | undefined;
  /** Bytes so far, of how many. */
  progress(doneBytes: number, totalBytes: number): void;
  /** Something that takes long and is no writing, e.g. `held-out loss of the base`. */
  stage(what: string): void;
  readonly options: FormatOptions;
}
/** What the user may say to any format; each takes what concerns it. */
export interface FormatOptions {
  /** Held-out rows in place of the run's own, for what measures. */
  readonly rows?: string | undefined;
  /** Tokens of held-out rows that are measured at most; 0: none. */
  readonly evalTokens: number;
}
/** What a format has written. */
export interface Written {
  /** sha256 of files that were hashed on their way; the others are hashed afterwards. */
  readonly digests?: Readonly<Record<string, string>>;
  /** Figures about this export: they stand in temper.json and in the JSON result. */
  readonly report?: Readonly<Record<string, unknown>>;
  /** Markdown for the model card, below how it is loaded. */
  readonly notes?: string;
  /** One line each: what the user must know before it is used. */
  readonly warnings?: readonly string[];
}

/** An export as it computes: what `temper verify` compares with what was trained. */
export interface Reloaded extends Disposable {
  readonly model: ModelWeights;
  readonly adapter: ModelAdapter | null;
}

/** A file for llama.cpp: a model, or an adapter that it loads beside its base. */
export interface LlamaFile {
  readonly kind: 'model' | 'adapter';
  readonly path: string;
  /** All weights are f32: nothing but the order of sums lies between it and us. */
  readonly f32: boolean;
}

/** Who loads the format. */
export interface Consumer {
  /** As `--for` takes it: peft, vllm, llama.cpp. */
  readonly name: string;
  /** One line: what cannot be loaded right there, and what to export in its place; null: it is loaded right. */
  refuses(source: ExportSource): string | null;
}

export interface WeightCheck {
  /** Elements that were computed again in plain TypeScript. */
  readonly checked: number;
  readonly wrong: readonly string[];
}
export interface ExportFormat {
  /** As `--format` takes it, and the subfolder's name where several are written. */
  readonly name: string;
  /** What it is, a line for --help. */
  readonly summary: string;
  readonly consumers: readonly Consumer[];
  /**
   * What it merges the adapter into, for the release gate, which judges what will run: null: nothing, the adapter is
   * added to the base; absent: what it was trained to be merged into, if anything.
   */
  readonly merge?: string | null;
  /** It writes config.json and safetensors files, whose digest (digestCheckpoint) a gate knows what it judged by. */
  readonly checkpoint?: true;
  /** Why this source cannot be written in this form, and what to do instead, one line; null: it can. */
  refuses(source: ExportSource): string | null;
  /** Bytes on disk, at least those it will take. */
  estimateBytes(source: ExportSource): number;
  /** Fills an empty folder; README.md and temper.json are not its own. @throws {TemperError} · the signal's reason */
  write(source: ExportSource, folder: string, hooks: WriteHooks): Promise<Written>;
  /**
   * Opens what was written, through a path that shares as little as can be with the one that wrote it.
   * @param base the export's base; the export's own weights need not use it
   */
  reload(folder: string, base: Checkpoint): Reloaded;
  /**
   * What a logit may differ by from the trained model's, of the largest one; 0: the same bits; null: rounding decides.
   */
  readonly tolerance: number | null;
  /** Where rounding decides: share of what training moves the logits by, in the root mean square, that may be lost. */
  readonly effectLost?: number;
  /** What was trained through the rounding of a merge (adapter.mergeAware) is what this computes, to the bit. */
  readonly mergeAware?: true;
  /** What llama.cpp loads of it, where it does. */
  llama?(folder: string): LlamaFile;
  /** Looks at the weights themselves, where logits may differ: what is wrong, one line each. */
  checkWeights?(source: ExportSource, folder: string, signal?: AbortSignal): Promise<WeightCheck>;
  /** Fields of the model card's head beside base_model and tags. */
  cardHead(source: ExportSource): Readonly<Record<string, string>>;
  /** Markdown: how it is loaded, in a snippet that a test runs. The working folder is the export. */
  usage(source: ExportSource): string;
}
