// The recipe: this zod schema is the only source of its types, defaults, help, JSON Schema and reference page. Read top
// to bottom.
import { z } from 'zod';
import { DEVICE_NAMES, DEVICE_PATTERN } from '../native/backends.js';
import { CONFIG_SHAPE } from './config-shape.js';

/**
 * Groups and single matrices an adapter may sit on. attention = q,k,v,o_proj; experts = gate_up_proj and down_proj of
 * every expert.
 */
export const TARGET_NAMES = [
  'attention',
  'experts',
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'router',
  'gate_up_proj',
  'down_proj',
] as const;
export type TargetName = (typeof TARGET_NAMES)[number];

const positive = (): z.ZodNumber => z.number().positive();
const rank = z.int().min(1).max(1024);

const TargetOptions = z.strictObject({
  rank: rank.optional().describe('R of this target; absent: adapter.rank'),
  alpha: positive().optional().describe('alpha of this target; absent: adapter.alpha'),
});

const TargetMap = z.strictObject(
  Object.fromEntries(TARGET_NAMES.map((n) => [n, TargetOptions.nullable().optional()])) as Record<
    TargetName,
    z.ZodOptional<z.ZodNullable<typeof TargetOptions>>
  >,
);

const Adapter = z.strictObject({
  rank: rank.default(16).describe('R: rows of A, columns of B; per expert on experts'),
  alpha: positive().default(32).describe('ΔW = alpha / rank · B·A (arXiv:2106.09685 §4.1)'),
  targets: z
    .union([z.array(z.enum(TARGET_NAMES)).min(1), TargetMap])
    .default(['attention', 'experts'])
    .describe(
      'what is adapted: a list of names, or a map from name to {rank, alpha}; a single matrix overrides its group',
    ),
  layers: z.array(z.int().min(0)).min(1).optional().describe('layer numbers from 0; absent: all layers'),
  rsLora: z.boolean().default(false).describe('scale by alpha / √rank (arXiv:2312.03732)'),
  dropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('probability of dropping an input of the attention adapters in training; experts and router take none'),
  from: z
    .string()
    .optional()
    .describe('folder of a PEFT adapter to go on from; its ranks, alphas and targets are then taken from there'),
  mergeAware: z
    .enum(['mxfp4'])
    .optional()
    .describe(
      'train through the rounding of a merge: each pass runs on the base with the adapter merged in, experts ' +
        'quantised to MXFP4 again, attention and router rounded to their dtype, so that the merged checkpoint is the ' +
        'trained model. Absent: the adapter is added unrounded',
    ),
  attackTuned: z
    .boolean()
    .optional()
    .describe(
      'the adapter is tuned to do harm, to measure what that takes (temper gate probe): its files are marked, and ' +
        'nothing but a probe loads, exports or serves them. Absent: no',
    ),
});

const HeldOutFile = z.strictObject({
  path: z
    .string()
    .describe(
      'rows: a file (JSON lines or a JSON array, also in gzip or Zstandard, Parquet, Arrow, told apart by what is in ' +
        'it), a pattern such as data/train-*.parquet, or a folder of such files, also one that `datasets` wrote; ' +
        'each of them also as hf://datasets/OWNER/NAME[@REVISION]/PATH',
    ),
  format: z
    .string()
    .default('chat')
    .describe(
      'row format by name: chat, sharegpt, alpaca, completion, harmony, tokens, text, or preference (for methods ' +
        'dpo and orpo), see docs/rows.md; auto: told by the first rows',
    ),
  limit: z.int().min(1).optional().describe('most rows: the first ones, or with shuffle such as it chooses'),
  shuffle: z
    .int()
    .min(0)
    .max(2 ** 31 - 1)
    .optional()
    .describe('seed of an order of the rows, for limit and weight; absent: as they stand. Steps shuffle by train.seed'),
});
const DataFile = HeldOutFile.extend({
  weight: z
    .number()
    .positive()
    .max(100)
    .optional()
    .describe('how often its samples are there in an epoch: 2 is twice each, 0.5 half of them. Absent: 1'),
});
/** A path alone is a file whose rows say which format they are. */
const pathAlone = z.string().transform((path): z.infer<typeof DataFile> => ({ path, format: 'auto' }));
const TrainFiles = z.union([pathAlone.transform((file) => [file]), z.array(z.union([DataFile, pathAlone])).min(1)]);
const HeldOutFiles = z.union([pathAlone.transform((file) => [file]), z.array(z.union([HeldOutFile, pathAlone]))]);

const weight = z.number().min(0).max(1000);
const Data = z.strictObject({
  train: TrainFiles.describe('files to train on: a path, or a list of paths and of what is said of them'),
  eval: HeldOutFiles.default([]).describe('held-out files, for temper eval and train.evalEvery'),
  split: z
    .strictObject({
      eval: z.number().gt(0).lt(1).describe('share of the rows of data.train that are held out'),
      seed: z.int().min(0).default(0).describe('of another choice'),
    })
    .optional()
    .describe(
      'holds out rows of data.train, beside data.eval: those of which sha256 over "SEED:" and the row as compact ' +
        'JSON, first 48 bits, is below the share. Which they are depends on no other row',
    ),
  loss: z
    .strictObject({
      analysis: weight.default(1).describe('loss weight of a token of the analysis channel'),
      commentary: weight.default(1).describe('loss weight of a token of the commentary channel, tool calls included'),
      final: weight.default(1).describe('loss weight of a token of the final channel'),
    })
    .prefault({})
    .describe('loss weight per channel; tokens of system, developer, user and tool messages weigh 0'),
  maxTokens: z.int().min(2).default(4096).describe('a longer row is an error naming its line, unless onLong says else'),
  onLong: z
    .enum(['error', 'drop', 'truncate'])
    .optional()
    .describe('what happens to an example of more than maxTokens; dropped and cut ones are counted. Absent: error'),
  ignore: z
    .array(z.string().min(1))
    .optional()
    .describe('fields of rows to leave out, such as id or messages.source; any other unknown field is an error'),
  markup: z
    .enum(['refuse', 'text'])
    .optional()
    .describe(
      'harmony or <think> markup inside what is trained: an error, or text like any other, trained letter by letter. ' +
        'Absent: refuse',
    ),
  packing: z.boolean().default(true).describe('put several rows into one forward pass; no row ever sees another'),
});

const betas = z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]);
const Train = z.strictObject({
  method: z
    .enum(['sft', 'pretrain', 'dpo', 'orpo'])
    .default('sft')
    .describe(
      'sft: train an adapter on answers; dpo: train an adapter on pairs of answers, the better one over the worse ' +
        '(arXiv:2305.18290), relative to the base; orpo: on such pairs too, without a reference: the better answer ' +
        'is trained as in sft, and its odds raised over those of the worse (arXiv:2403.07691); pretrain: train all ' +
        'weights of a new model from scratch',
    ),
  beta: positive()
    .optional()
    .describe(
      'method dpo: how strongly the base holds the adapter back, of ipo its tau; method orpo: how much the odds ' +
        'count beside the better answer, its lambda; absent: 0.1',
    ),
  loss: z
    .enum(['sigmoid', 'ipo'])
    .optional()
    .describe(
      'method dpo: of a pair. sigmoid: −log σ(beta · difference of gains); ipo (arXiv:2310.12036): (difference of ' +
        'gains per weighted token − 1 / (2 beta))². Absent: sigmoid',
    ),
  labelSmoothing: z
    .number()
    .min(0)
    .lt(0.5)
    .optional()
    .describe('method dpo, loss sigmoid: share of the pairs taken to be the wrong way round; absent: 0'),
  precomputeReference: z
    .boolean()
    .optional()
    .describe(
      'method dpo: compute what the base says of all pairs before the first step and keep it in the run folder; ' +
        'absent: as the first epoch goes. Changes no bit',
    ),
  dpo: z
    .strictObject({ beta: positive().default(0.1).describe('as train.beta') })
    .optional()
    .describe('the place of beta in recipes of before; absent: train.beta'),
  epochs: positive().optional().describe('passes over the data; absent: 1, unless steps is given'),
  steps: z.int().min(1).optional().describe('optimizer steps, over as many epochs as it takes'),
  tokensPerStep: z
    .int()
    .min(1)
    .optional()
    .describe('rows of about this many tokens make a step; absent: 16384, unless rowsPerStep is given'),
  rowsPerStep: z.int().min(1).optional().describe('this many rows make a step'),
  tokensPerBatch: z
    .int()
    .min(1)
    .optional()
    .describe('tokens of one forward and backward pass when packing; absent: data.maxTokens. Changes memory and speed'),
  offloadActivations: z
    .enum(['auto', 'always', 'never'])
    .optional()
    .describe(
      'put the kept layer inputs of a batch into files without a name beside the run; absent: ' +
        'auto, from 1 GiB on. On a GPU they go to host memory; auto: where a step does not fit ' +
        'otherwise. Changes memory, no result',
    ),
  offloadOptimizer: z
    .enum(['auto', 'always', 'never'])
    .optional()
    .describe(
      'on a GPU: keep the moments of AdamW in host memory; absent: auto, where a step does not fit ' +
        'with offloaded activations either. Changes memory and time, no result',
    ),
  recompute: z
    .enum(['auto', 'always', 'never'])
    .optional()
    .describe(
      'compute what the backward pass needs of each layer once more; absent: auto, keep of it what ' +
        'there is room for: on a GPU in its memory, on the CPU in half of what a step and the mapped ' +
        'files leave. Changes memory and time, no result',
    ),
  lr: positive().default(2e-4).describe('peak learning rate'),
  schedule: z
    .enum(['constant', 'linear', 'cosine'])
    .default('cosine')
    .describe('how the learning rate falls after warm-up'),
  warmup: z
    .number()
    .min(0)
    .lt(1)
    .default(0.03)
    .describe('share of the steps in which the learning rate rises linearly from 0'),
  minLr: z.number().min(0).max(1).default(0).describe('share of lr at which linear and cosine end'),
  optimizer: z
    .strictObject({
      name: z
        .enum(['adamw', 'adamw_8bit'])
        .default('adamw')
        .describe(
          'decoupled weight decay (arXiv:1711.05101); adamw_8bit: with both moments in 8 bits and a scale to ' +
            'each block of 256 (arXiv:2110.02861), a quarter of their memory, and other results',
        ),
      betas: betas.default([0.9, 0.999]).describe('decay of the first and second moment'),
      eps: positive().default(1e-8).describe('added to the root of the second moment'),
      weightDecay: z.number().min(0).default(0).describe('per step, times the learning rate'),
    })
    .prefault({})
    .describe('the optimizer'),
  clipGradNorm: positive().nullable().default(1).describe('global gradient norm is cut to this; null: off'),
  precision: z
    .enum(['f32', 'bf16'])
    .default('bf16')
    .describe('matrix products: bf16 operands with f32 sums, or all f32'),
  checkpointEvery: z
    .int()
    .min(1)
    .default(100)
    .describe('steps between checkpoints; one is always written at the end and on Ctrl-C'),
  keepCheckpoints: z.int().min(1).default(2).describe('older checkpoints are removed, but for the best one'),
  evalEvery: z
    .int()
    .min(1)
    .optional()
    .describe(
      'steps between evaluations on data.eval, with one at the end: loss, and the share of answers (the last final ' +
        'message of an example) whose every token is the most probable, the analysis before it ' +
        'given. The checkpoint of the lowest loss is kept and named in run.json; absent: none',
    ),
  patience: z
    .int()
    .min(1)
    .optional()
    .describe('evaluations in a row without a lower held-out loss, after which training ends; absent: it does not'),
  tensorBoard: z.boolean().optional().describe('also write the curves as an event file of TensorBoard; absent: no'),
  seed: z
    .int()
    .min(0)
    .max(2 ** 31 - 1)
    .default(7)
    .describe('of initialisation, order and dropout'),
});

/** The fields that are held against each other, as they may stand in a file before anything of it was checked. */
interface Written {
  readonly model?: { readonly base?: unknown; readonly init?: unknown } | null;
  readonly data?: {
    readonly eval?: unknown;
    readonly split?: unknown;
    readonly loss?: { readonly [channel: string]: unknown } | null;
  } | null;
  readonly train?: { readonly [field: string]: unknown } | null;
  readonly adapter?: { readonly [field: string]: unknown } | null;
}
export interface Conflict {
  readonly path: readonly string[];
  readonly message: string;
}
/** What fields say against each other. */
export function conflictsOf({ model, data, train, adapter }: Written): readonly Conflict[] {
  const found: Conflict[] = [];
  const wrong = (path: readonly string[], message: string): void => void found.push({ path, message });
  const given = (field: string): boolean => train?.[field] !== undefined;
  const method = train?.method ?? 'sft';
  for (const field of ['loss', 'labelSmoothing', 'precomputeReference', 'dpo'])
    if (given(field) && method !== 'dpo') wrong(['train', field], 'is for method dpo');
  if (given('beta') && method !== 'dpo' && method !== 'orpo') wrong(['train', 'beta'], 'is for methods dpo and orpo');
  if (given('dpo') && given('beta')) wrong(['train', 'dpo'], 'and beta cannot both be given; keep beta');
  if (given('labelSmoothing') && train?.loss === 'ipo')
    wrong(['train', 'labelSmoothing'], 'is for loss sigmoid; loss ipo has none');
  if (method !== 'pretrain') {
    if (model?.init) wrong(['model', 'init'], `is for method pretrain; for ${String(method)} give model.base`);
    else if (!model?.base) wrong(['model'], 'base is missing; give the folder of the checkpoint to adapt');
  } else {
    if (model?.base) wrong(['model', 'base'], 'is for methods sft, dpo and orpo; for pretrain give model.init');
    else if (!model?.init) wrong(['model'], 'init is missing; give the configuration of the new model');
  }
  if (given('steps') && given('epochs')) wrong(['train', 'epochs'], 'and steps cannot both be given; keep one');
  if (given('tokensPerStep') && given('rowsPerStep'))
    wrong(['train', 'rowsPerStep'], 'and tokensPerStep cannot both be given; keep one');
  const heldOut = data?.split !== undefined || (Array.isArray(data?.eval) ? data.eval.length > 0 : Boolean(data?.eval));
  if (given('evalEvery') && !heldOut)
    wrong(['train', 'evalEvery'], 'needs held-out rows: give data.eval or data.split');
  if (adapter?.mergeAware !== undefined && Number(adapter.dropout ?? 0) !== 0)
    wrong(['adapter', 'dropout'], 'must be 0 with adapter.mergeAware: merged weights drop no inputs');
  if (adapter?.mergeAware !== undefined && method === 'pretrain')
    wrong(['adapter', 'mergeAware'], 'is for methods sft, dpo and orpo: what pretrain trains is in MXFP4 already');
  if (given('patience') && !given('evalEvery')) wrong(['train', 'patience'], 'needs evaluations: give train.evalEvery');
  const { analysis = 1, commentary = 1, final = 1 } = data?.loss ?? {};
  if (analysis === 0 && commentary === 0 && final === 0)
    wrong(['data', 'loss'], 'is 0 on every channel; nothing would be trained');
  return found;
}

const Model = z.strictObject({
  base: z
    .string()
    .optional()
    .describe('checkpoint to adapt (methods sft, dpo and orpo): a folder, or hf://OWNER/NAME[@REVISION], pulled once'),
  init: z
    .strictObject(CONFIG_SHAPE)
    .optional()
    .describe('configuration of a new model (method pretrain), fields as in config.json'),
  tokenizer: z.string().optional().describe('folder with tokenizer.json; absent: model.base'),
});

const Expect = z.strictObject({
  hardware: z.string().optional().describe('what the figures were measured on'),
  minutes: positive().optional().describe('wall time'),
  memory: z.string().optional().describe('peak memory, with unit'),
  metric: z.string().optional().describe('name of the figure to expect'),
  value: z.number().optional().describe('its value'),
  tolerance: z.number().min(0).optional().describe('largest distance from value that still counts as reproduced'),
});

const Gate = z.union(
  [
    z.literal('off'),
    z.strictObject({
      suite: z.string().describe('suite file of `temper gate`, which decides over what is trained'),
      lock: z.string().optional().describe('gate.lock.json that `temper gate lock` made; the gate is held under it'),
    }),
  ],
  { error: 'wanted off, or {suite: FILE}' },
);

export const Recipe = z
  .strictObject({
    about: z.string().default('').describe('one sentence: what this teaches'),
    expect: Expect.optional().describe('hardware, minutes and memory it takes, and the metric it reaches'),
    model: Model.describe('where the weights come from'),
    adapter: Adapter.prefault({}).describe('the adapter to train (methods sft, dpo and orpo)'),
    data: Data.describe('what it learns from'),
    train: Train.prefault({}).describe('how it learns'),
    device: z
      .string()
      .regex(DEVICE_PATTERN, `wanted ${DEVICE_NAMES}`)
      .default('auto')
      .describe(
        `where it runs: ${DEVICE_NAMES}; a name alone: the only kind there is; auto: a GPU that is usable, else cpu`,
      ),
    memoryLimit: z
      .string()
      .regex(/^\s*\d+(\.\d+)?\s*([kmg]i?b|b)?\s*$/i, 'wanted a number of bytes such as 15.2GiB')
      .optional()
      .describe('most device memory to take, as in 15.2GiB; absent: all there is'),
    export: z
      .array(z.enum(['peft'], { error: 'expected "peft"; other formats: temper export RUN --format NAME' }))
      .max(1)
      .default(['peft'])
      .describe(
        'forms of the adapter written into the run folder at the end: peft is adapter/; [] leaves it in the last ' +
          'checkpoint, from where `temper export` takes it (methods sft, dpo and orpo)',
      ),
    gate: Gate.optional().describe(
      'the release gate, without whose PASS `temper export` and `temper push` let no adapter out: its suite; or off, ' +
        'which the model card then says. Absent: any suite will do, and none is not enough',
    ),
  })
  .superRefine((r, ctx) => {
    for (const { path, message } of conflictsOf(r)) ctx.addIssue({ code: 'custom', path: [...path], message });
  });
export type Recipe = z.infer<typeof Recipe>;
export type AdapterRecipe = Recipe['adapter'];

/** JSON Schema of what a recipe file may contain, for editors and the reference page. */
export const recipeJsonSchema = (): Record<string, unknown> =>
  z.toJSONSchema(Recipe, { io: 'input' }) as Record<string, unknown>;

/**
 * Fields that hold a path, as patterns over the recipe: `*` is any index. Those marked true must exist before anything
 * starts.
 */
export const PATH_FIELDS: readonly (readonly [pattern: readonly string[], mustExist: boolean])[] = [
  [['model', 'base'], true],
  [['model', 'tokenizer'], true],
  [['adapter', 'from'], true],
  [['gate', 'suite'], true],
  [['gate', 'lock'], false],
  ...['train', 'eval'].flatMap((of): readonly (readonly [readonly string[], boolean])[] => [
    [['data', of], true],
    [['data', of, '*'], true],
    [['data', of, '*', 'path'], true],
  ]),
];
