// All commands, in the order of `temper --help`. Adding one: a file in commands/ and a line here.
import type { Command } from './command.js';
import { command as audit } from './commands/audit.js';
import { command as bench } from './commands/bench.js';
import { command as buildNative } from './commands/build-native.js';
import { command as chat } from './commands/chat.js';
import { command as dataCheck } from './commands/data-check.js';
import { command as dataConvert } from './commands/data-convert.js';
import { command as demo } from './commands/demo.js';
import { command as doctor } from './commands/doctor.js';
import { command as evaluate } from './commands/eval.js';
import { command as exportCommand } from './commands/export.js';
import { command as gate } from './commands/gate.js';
import { command as gateDecide } from './commands/gate-decide.js';
import { command as gateFetch } from './commands/gate-fetch.js';
import { command as gateLock } from './commands/gate-lock.js';
import { command as gateMerge } from './commands/gate-merge.js';
import { command as gatePower } from './commands/gate-power.js';
import { command as gateProbe } from './commands/gate-probe.js';
import { command as gateProve } from './commands/gate-prove.js';
import { command as gateReport } from './commands/gate-report.js';
import { command as gateRevoke } from './commands/gate-revoke.js';
import { command as generate } from './commands/generate.js';
import { command as keyNew } from './commands/key-new.js';
import { command as keyRotate } from './commands/key-rotate.js';
import { command as logCheck } from './commands/log-check.js';
import { command as logCheckpoint } from './commands/log-checkpoint.js';
import { command as logProve } from './commands/log-prove.js';
import { command as logShow } from './commands/log-show.js';
import { command as logVerify } from './commands/log-verify.js';
import { command as logits } from './commands/logits.js';
import { command as modelInit } from './commands/model-init.js';
import { command as modelInspect } from './commands/model-inspect.js';
import { command as plan } from './commands/plan.js';
import { command as policyCalibrate } from './commands/policy-calibrate.js';
import { command as policyCheck } from './commands/policy-check.js';
import { command as policyInit } from './commands/policy-init.js';
import { command as policyMutate } from './commands/policy-mutate.js';
import { command as policyTest } from './commands/policy-test.js';
import { command as pull } from './commands/pull.js';
import { command as push } from './commands/push.js';
import { command as reviewGolden } from './commands/review-golden.js';
import { command as reviewList } from './commands/review-list.js';
import { command as screen } from './commands/screen.js';
import { command as screenMerge } from './commands/screen-merge.js';
import { command as serve } from './commands/serve.js';
import { command as sign } from './commands/sign.js';
import { command as train } from './commands/train.js';
import { command as verify } from './commands/verify.js';
import { command as watch } from './commands/watch.js';

export const commands: readonly Command[] = [
  demo,
  pull,
  plan,
  dataCheck,
  dataConvert,
  train,
  watch,
  evaluate,
  exportCommand,
  verify,
  sign,
  audit,
  push,
  gate,
  gateFetch,
  gateMerge,
  gateProbe,
  gateProve,
  gateReport,
  gateRevoke,
  generate,
  chat,
  serve,
  screen,
  screenMerge,
  policyInit,
  policyCheck,
  policyTest,
  policyMutate,
  policyCalibrate,
  gateLock,
  gateDecide,
  gatePower,
  logVerify,
  logShow,
  logProve,
  logCheck,
  logCheckpoint,
  keyNew,
  keyRotate,
  reviewList,
  reviewGolden,
  logits,
  modelInit,
  modelInspect,
  bench,
  doctor,
  buildNative,
];
