// The public API: everything the CLI does, callable from TypeScript. docs/api.md shows each in use; the tests run those
// examples.

// Errors
export {
  CheckpointError,
  ConfigError,
  DataError,
  type ErrorCode,
  type ExitCode,
  GateError,
  IntegrityError,
  NativeError,
  ScreeningError,
  TemperError,
  TrainError,
} from './base/errors.js';
export { embedded } from './base/machine.js';
export type { BenchResult } from './bench/bench.js';
export { benchInThread as bench, limitsInThread as measureLimits } from './bench/threads.js';
export { audit, type Signed, type SignRequest, sign, verifyRelease } from './compose/attest.js';
export { createEngineJudge, type EngineJudgeOptions } from './compose/engine-judge.js';
// Release gate: see docs/guides/gate.md
export { type GateHooks, type GateOptions, type GatePlan, type GateResult, runGate } from './compose/gate.js';
export { type DecideAgain, type DecidedAgain, decideAgain as decideGate } from './compose/gate-decide.js';
export { type Locked, type LockRequest, lockGate } from './compose/gate-lock.js';
export type { Proof } from './compose/gate-proof.js';
export { type ProveOptions, proveGate } from './compose/gate-prove.js';
export { type HeldDone, type HeldEvent, type HeldTurnOptions, heldTurn } from './compose/held-turn.js';
export { exportReleased as exportRun, pushReleased as push, type ReleaseResult } from './compose/release.js';
export { type DemoResult, runDemo } from './demo/story.js';
export { type EvalLoss, evaluate } from './evaluate/evaluate.js';
export { type ExactMatch, exactMatch } from './evaluate/exact-match.js';
export { type VerifyResult, verify } from './export/export.js';
export type { PushRequest, PushResult } from './export/push.js';
export type { Decision as GateDecision, MetricDecision } from './gate/decision.js';
export { gatePower, type PowerPlan, type PowerRequest } from './gate/prompts-needed.js';
export { type ChatRow, toConversation } from './harmony/chat.js';
export { HarmonyParser, type ParseEvent, parseTokens } from './harmony/parse.js';
export { type Conversation, renderConversation, renderPrompt, renderTraining, stopTokens } from './harmony/render.js';
// Harmony
export { loadTokenizer } from './harmony/tokenizer.js';
export type { Message, Tokenizer } from './harmony/types.js';
// Hugging Face
export { type PullRequest, type PullResult, pull } from './hub/pull.js';
// Generate and score
export { type Engine, openEngine } from './infer/engine.js';
export type { EngineEvent, EngineInfo, EngineOptions, GenerateRequest, ScoreRequest } from './infer/protocol.js';
export { type Adapter, createAdapter } from './lora/adapter.js';
export { readPeft, writePeft } from './lora/peft.js';
export { adapterSpec } from './lora/spec.js';
// The model itself, for research: weights, forward and backward over the ops
export { type Checkpoint, openCheckpoint } from './model/checkpoint.js';
export { forwardHidden, logits, lossAndGradients, scoreTokens } from './model/gpt-oss.js';
export type { Preset } from './model/init.js';
export type { Inspection } from './model/inspect.js';
export { KvCache } from './model/kv-cache.js';
export { readTokens, writeLogits } from './model/logits-file.js';
export { quantizeDense } from './model/q8.js';
export { initInThread as initCheckpoint, inspectInThread as inspectCheckpoint } from './model/threads.js';
export type { Batch, ModelAdapter, ModelWeights, Targets } from './model/types.js';
export { type Ops, ops } from './native/ops.js';
export { openSafetensors, writeSafetensors } from './native/safetensors.js';
export { memoryStats, Scope, setThreads, Tensor } from './native/tensor.js';
export { loadRecipe } from './recipe/load.js';
export { Recipe, recipeJsonSchema } from './recipe/schema.js';
export { type BatchOptions, screenFile } from './safeguard/batch/screen-file.js';
export type { BatchSummary } from './safeguard/batch/tally.js';
export { checkJudge, withCheck } from './safeguard/check-judge.js';
export type { Contract, ContractName } from './safeguard/contracts/contract.js';
export { judgeMessages } from './safeguard/contracts/index.js';
export {
  createDetectors,
  type Detection,
  type DetectorOptions,
  type DetectorSet,
  type DetectorStream,
} from './safeguard/detectors/index.js';
export { healthOf, type JudgeHealth } from './safeguard/judge-health.js';
export { type CheckpointJudgeOptions, createCheckpointJudge } from './safeguard/judges/checkpoint.js';
export { createEndpointJudge, type EndpointJudgeOptions } from './safeguard/judges/endpoint.js';
export type { JudgingOptions } from './safeguard/judging.js';
export { type CalibrateOptions, calibrate as calibrateJudge } from './safeguard/policies/calibrate.js';
export { type CheckOptions, checkPolicy, type PolicyCheck } from './safeguard/policies/check.js';
export { type Golden, readGolden } from './safeguard/policies/golden.js';
export { type MutateOptions, type MutationRun, mutate as mutatePolicy } from './safeguard/policies/mutate.js';
export { definePolicy, loadPolicy } from './safeguard/policy.js';
export { HeldResponse, releaseChannels } from './safeguard/release.js';
// Safeguard
export { type Channels, createScreen, type Screen, type ScreenOptions, type ScreenResult } from './safeguard/screen.js';
export {
  type GoldenRow,
  type Judge,
  type JudgeAnswer,
  type JudgeCheck,
  type JudgeRequest,
  mayPass,
  type Policy,
  type Verdict,
} from './safeguard/types.js';
export { type ServeOptions, serve, type TemperServer } from './serve/server.js';
export {
  type CheckDataOptions,
  checkDataset,
  convertDataset,
  planTraining,
  type TrainOptions,
  type TrainPlan,
  type TrainProgress,
  type TrainResult,
  train,
} from './train/train.js';
export { makeKey } from './verdict-log/keys.js';
export { type LogOptions, openVerdictLog, type VerdictLog } from './verdict-log/log.js';
export { type RotateOptions, rotateLogKey } from './verdict-log/rotate.js';
export { logCheckpoints, proveLogGrowth, proveVerdict, showLog, verifyVerdictLog } from './verdict-log/threads.js';
export { type Watch, type WatchOptions, watchRun } from './watch/watch.js';
