// What serving a checkpoint will take of memory, before it is loaded: a dry run of the session that would serve.
import { ConfigError } from '../base/errors.js';
import { availableBytes as systemBytes } from '../base/machine.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { quantizeDense } from '../model/q8.js';
import { standIn } from '../model/stand-in.js';
import { dryRun } from '../native/plan.js';
import type { Category } from '../native/tensor.js';
import { GREEDY } from './sequence.js';
import { Session } from './session.js';
import { DEFAULT_PREFILL_TOKENS } from './session-options.js';
import { MOST_DRAFTS, MOST_FORESEEN_ROWS } from './speculation.js';

export interface ServingPlanOptions {
  /** Most tokens of one sequence, prompt and answer. */
  readonly context: number;
  /** Sequences at once. */
  readonly sequences: number;
  readonly denseDtype?: 'bf16' | 'q8';
  readonly kvDtype?: 'f32' | 'bf16';
  readonly precision?: 'f32' | 'bf16';
  /** Tokens are guessed: rings and passes are larger. Default false. */
  readonly speculation?: boolean;
  /** Checkpoint that guesses too, a folder. */
  readonly draft?: string;
  /** Default: what the system has available. */
  readonly availableBytes?: number;
}
export interface ServingPlan {
  /** What the plan stands on that is not the model's own: a shape in the place of weights. */
  readonly notes: readonly string[];
  /** Bytes at the peak of each category of counted memory, and of their sum. */
  readonly peakBytes: Readonly<Record<Category, number>>;
  readonly totalPeakBytes: number;
  /** Of it the keys and values of one sequence. */
  readonly kvBytesPerSequence: number;
  /** 8-bit weights in a file without a name beside the checkpoint. */
  readonly offloadedBytes: number;
  readonly mappedBytes: number;
  readonly availableBytes: number;
  readonly fits: boolean;
  /** What to change first, when it does not fit. */
  readonly advice: string;
}

/**
 * @param model folder of a checkpoint; or what says its shape: a preset's name, a config.json
 * @throws {ConfigError} context_too_long · {CheckpointError} as openCheckpoint
 */
export function dryServing(model: string, options: ServingPlanOptions): ServingPlan {
  using shape = standIn(model);
  const notes = shape ? [`the weights of ${model} are not read: planned for the shape of ${shape.from}`] : [];
  return { notes, ...servingPlan(shape?.dir ?? model, options) };
}
function servingPlan(dir: string, options: ServingPlanOptions): Omit<ServingPlan, 'notes'> {
  const { context, sequences, speculation = false } = options;
  const { report } = dryRun(() => {
    const checkpoint = openCheckpoint(dir);
    try {
      const most = checkpoint.config.max_position_embeddings;
      if (most !== undefined && context > most)
        throw new ConfigError(
          'context_too_long',
          `context: ${context} tokens, the model has positions for ${most}; lower --context`,
          { context, most },
        );
      const model = options.denseDtype === 'q8' ? quantizeDense(checkpoint) : checkpoint,
        draft = options.draft === undefined ? null : openCheckpoint(options.draft);
      using session = new Session(model, {
        precision: options.precision ?? 'bf16',
        slots: sequences,
        capacity: context,
        ...(options.kvDtype === undefined ? {} : { kvDtype: options.kvDtype }),
        // What a dry run samples is all the same, so all guesses come and steps are as large as they may be.
        ...(speculation ? { speculation: { when: 'always' as const }, draft } : {}),
      });
      session.commitCache(); // sequences as long as they may be
      // Two pieces of a prompt (the second one meets full window rings), all sequences together until their step is
      // recorded, and a prompt beside what the recording keeps: no later step is larger.
      const answer = speculation ? 4 * (MOST_DRAFTS + 1) : 3;
      const prompt = new Int32Array(Math.max(1, Math.min(context - answer, 2 * DEFAULT_PREFILL_TOKENS)));
      const run = (tokens: readonly Int32Array[], maxTokens: number, foreseen?: Int32Array): void => {
        for (const t of tokens) session.start({ tokens: t, maxTokens, stop: new Set(), sampling: GREEDY, foreseen });
        while (!session.idle) session.step();
      };
      run([prompt, ...Array.from({ length: sequences - 1 }, () => new Int32Array(speculation ? 4 : 1))], answer);
      // What is sampled is 0, so all of this comes.
      if (speculation && context > 4 * MOST_FORESEEN_ROWS)
        run(
          Array.from({ length: sequences }, () => Int32Array.of(1)),
          2 * MOST_FORESEEN_ROWS,
          new Int32Array(2 * MOST_FORESEEN_ROWS),
        );
      run([prompt], 1);
      draft?.close();
      if (model !== checkpoint) model.close();
    } finally {
      checkpoint.close();
    }
  });
  const availableBytes = options.availableBytes ?? systemBytes(),
    fits = !(report.totalPeak > availableBytes),
    { kv, weights, workspace, activations } = report.peak;
  const [largest, knob] =
    kv >= Math.max(weights, workspace + activations)
      ? ['the keys and values are', '--kv-dtype bf16, or a lower --context or --sequences']
      : weights >= workspace + activations
        ? ['the 8-bit weights are', '--dense-dtype bf16, or a folder of the model that can be written']
        : ['the workspace is', 'a smaller model'];
  return {
    peakBytes: report.peak,
    totalPeakBytes: report.totalPeak,
    kvBytesPerSequence: kv / sequences,
    offloadedBytes: report.offloadedPeak,
    mappedBytes: report.mappedBytes,
    availableBytes,
    fits,
    advice: fits ? '' : `${largest} the largest part: try ${knob}`,
  };
}
