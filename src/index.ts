// The public API: everything the CLI does, callable from TypeScript. docs/api.md shows each in use; the tests run those examples.

// Errors
export { CheckpointError, ConfigError, DataError, IntegrityError, NativeError, ScreeningError, TemperError, TrainError, type ExitCode } from './native/errors.js';

// Train, evaluate, plan, export
export { evaluate, exportRun, train, verify, type EvalLoss, type TrainOptions, type TrainProgress, type TrainResult, type VerifyResult } from './train/train.js';
export { exactMatch, type ExactMatch } from './train/evaluate.js';
export { planTraining, type TrainPlan } from './train/plan.js';
export { checkDataset, type CheckDataOptions } from './train/check-data.js';
export { loadRecipe } from './recipe/load.js';
export { Recipe, recipeJsonSchema } from './recipe/schema.js';

// Generate and score
export { openEngine, type Engine } from './infer/engine.js';
export type { EngineEvent, EngineInfo, EngineOptions, GenerateRequest, ScoreRequest } from './infer/protocol.js';

// Safeguard
export { createScreen, type Channels, type Screen, type ScreenOptions, type ScreenResult } from './safeguard/screen.js';
export { definePolicy, loadPolicy } from './safeguard/policy.js';
export { createCheckpointJudge, type CheckpointJudgeOptions } from './safeguard/judges/checkpoint.js';
export { createEndpointJudge, type EndpointJudgeOptions } from './safeguard/judges/endpoint.js';
export { createEngineJudge } from './cli/engine-judge.js';
export { HeldResponse, releaseChannels } from './safeguard/release.js';
export { screenFile, type BatchOptions, type BatchSummary } from './safeguard/batch.js';
export { mayPass, type Judge, type JudgeAnswer, type JudgeRequest, type Policy, type Verdict } from './safeguard/types.js';

// Harmony
export { loadTokenizer } from './harmony/tokenizer.js';
export type { Message, Tokenizer } from './harmony/types.js';
export { toConversation, type ChatRow } from './harmony/chat.js';
export { renderConversation, renderPrompt, renderTraining, stopTokens, type Conversation } from './harmony/render.js';
export { HarmonyParser, parseTokens, type ParseEvent } from './harmony/parse.js';

// The model itself, for research: weights, forward and backward over the ops
export { openCheckpoint, type Checkpoint } from './model/checkpoint.js';
export { initCheckpoint, type Preset } from './model/init.js';
export { inspectCheckpoint, type Inspection } from './model/inspect.js';
export { readTokens, writeLogits } from './model/logits-file.js';
export { quantizeDense } from './model/q8.js';
export { forwardHidden, logits, lossAndGradients, scoreTokens } from './model/gpt-oss.js';
export { KvCache } from './model/kv-cache.js';
export type { Batch, ModelAdapter, ModelWeights, Targets } from './model/types.js';
export { createAdapter, type Adapter } from './lora/adapter.js';
export { adapterSpec } from './lora/spec.js';
export { readPeft, writePeft } from './lora/peft.js';
export { ops, type Ops } from './native/ops.js';
export { memoryStats, Scope, setThreads, Tensor } from './native/tensor.js';
export { openSafetensors, writeSafetensors } from './native/safetensors.js';
export { bench, measureLimits, type BenchResult } from './bench/bench.js';
export { runDemo, type DemoResult } from './cli/demo/story.js';
