// `temper verify`: an export is what was trained, shown on its weights and on every logit; and what it says of its gate
// and its signers holds.
import type { Audit } from '../../attest/audit.js';
import type { VerifyResult } from '../../export/export.js';
import { type Command, collect, examples, interruptSignal, printJson } from '../command.js';
import { print, tell } from '../terminal.js';

interface Options {
  readonly run?: string;
  readonly model?: string;
  readonly rows?: string;
  readonly peft?: string;
  readonly transformers?: string;
  readonly llama?: string;
  readonly key: readonly string[];
  readonly identity?: string;
  readonly requireGate?: boolean;
  readonly json?: boolean;
}

const small = (x: number): string => x.toExponential(2);
function show(r: VerifyResult): void {
  const relative = r.maxLogit > 0 ? r.maxDifference / r.maxLogit : 0;
  const than = r.step === null ? 'what it was made of' : `step ${r.step}`;
  print(
    `${r.ok ? (r.maxDifference === 0 ? 'same' : 'good') : 'NOT THE SAME'}: ${r.compared} ` +
      `logits compared with ${than}, ` +
      `largest difference ${small(r.maxDifference)} (${small(relative)} of the largest logit ` +
      `${r.maxLogit.toFixed(2)}; training moves logits by up to ${r.maxEffect.toFixed(2)})`,
  );
  if (r.weights)
    print(
      ...(r.weights.wrong.length === 0
        ? [`  weights: ${r.weights.checked} computed again, each as near as its format can hold it`]
        : ['  weights: WRONG', ...r.weights.wrong.map((w) => `    ${w}`)]),
    );
  for (const c of r.consumers) {
    const error =
      c.relative === undefined
        ? `${small(c.maxDifference / (c.maxLogit || 1))} of the largest`
        : `${small(c.relative)} of their spread in the root mean square`;
    print(
      `  ${c.versions}: ${c.ok ? 'same' : 'NOT THE SAME'}, ${c.compared} logits, largest difference ` +
        `${small(c.maxDifference)} (${error}, allowed ${small(c.tolerance)})`,
      ...(c.note ? [`    ${c.note}`] : []),
    );
  }
}

const NOT_COMPARED =
  'not compared: what it was exported from is not at hand (--run DIR names it, of a whole model --model DIR); files, ' +
  'signatures and gate are checked';
const UNKNOWN = '; without a signature by a key that is given (--key) nothing shows that it is what was trained';

function showRelease({ dir, findings, ok, exit, verdict }: Audit): void {
  const failed = findings.filter((f) => f.status === 'failed');
  if (!ok) tell(`NOT AS IT WAS RELEASED: ${dir}`, ...failed.map((f) => `  ${f.what}: ${f.why}`));
  print(`release${exit === 10 ? ': NOT LET OUT' : ''}: ${verdict} temper audit tells line by line`);
}

export const command: Command = {
  name: 'verify',
  summary: 'load an export again and compare it with what was trained; check digests, signatures and gate',
  register(program) {
    program
      .command('verify')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nAn adapter gives the same bits. A merged model is rounded: its ` +
          'weights are computed again ' +
          'in plain arithmetic, and how far its logits went is said.',
      )
      .argument('<dir>', 'folder made by temper export, or the adapter of a run')
      .option('--run <dir>', 'run it was exported from (found by itself where it can be)')
      .option('--model <dir>', 'base of an adapter made elsewhere (found by itself where it can be)')
      .option(
        '--rows <file>',
        "held-out rows to compare on, in place of the run's own; their format is told by the first ones",
      )
      .option('--peft <python>', 'a Python with peft and transformers: its logits too, on the base')
      .option('--transformers <python>', 'a Python with transformers: its logits of a merged model too')
      .option('--llama <path>', "llama.cpp's llama-server, or the folder it is in: what it says of a GGUF export too")
      .option(
        '--key <file>',
        'public key or certificate of who may have signed it, PEM; may be given several times',
        collect,
        [],
      )
      .option('--identity <name>', 'who must have signed it, of certificates')
      .option('--require-gate', 'exit with 10 where no gate passed it, also where none was held')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper verify out/nano-lora',
          'temper verify out/nano-lora --run runs/nano-lora --json',
          'temper verify out/nano-lora --require-gate --key release-key.pem.pub && ./deploy.sh',
          'temper verify out/nano-lora --peft /opt/venv/bin/python',
          'temper verify out/nano-gguf --llama ~/llama.cpp/build/bin',
        ) +
          '\nExit codes: 0 the same, or signed by a key that was given where the run is not at hand; 10 its gate did ' +
          'not pass and nobody whose key was given answers for it; 20 neither run nor signature shows what it is; ' +
          '40 not what was trained, or not what was signed and judged.\n',
      )
      .action(async (dir: string, { json, key: keys, identity, requireGate, ...options }: Options) => {
        const [{ verify }, { originAtHand }, { verifyRelease }] = await Promise.all([
          import('../../export/export.js'),
          import('../../export/origin-at-hand.js'),
          import('../../compose/attest.js'),
        ]);
        const signal = interruptSignal();
        const { run, rows, peft, transformers, llama, model } = options;
        const compares =
          [run, rows, peft, transformers, llama].some((x) => x !== undefined) || originAtHand(dir, model);
        const r = compares ? await verify(dir, { ...options, signal }) : null;
        const release = await verifyRelease({ dir, keys, identity, model: options.model, requireGate }, { signal });
        // Whom it is of a signature shows; where there is none, nothing shows that it is what was trained.
        const unknown = r === null && release.exit === 0 && !release.signed;
        process.exitCode = r?.ok === false ? 40 : release.exit || (unknown ? 20 : 0);
        if (json) printJson({ ...(r ?? { ok: release.ok, dir, compared: null }), release });
        else {
          if (r) show(r);
          else print(NOT_COMPARED + (unknown ? UNKNOWN : ''));
          showRelease(release);
        }
      });
  },
};
