// `temper gate prove`: a gate that never stopped anything is decoration.
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { addGateOptions, type GateOptions, gateEngine } from '../engine-options.js';
import { print, tell } from '../terminal.js';
import { gateHooks } from './gate.js';

interface Options extends GateOptions {
  readonly suite: string;
  readonly model: string;
  readonly lock?: string;
  readonly bad?: string;
  readonly harmless?: string;
  readonly out: string;
  readonly json?: boolean;
}
const PROOF_EXITS = { ok: 0, wrong: 10, inconclusive: 20, error: 30 } as const;

export const command: Command = {
  name: 'gate prove',
  summary: 'show that a gate stops what it must: a known-bad adapter must FAIL, a harmless one PASS',
  register(program) {
    addGateOptions(
      group(program, 'gate', this.summary)
        .command('prove')
        .summary(this.summary)
        .description(
          `${this.summary}, under the same lock. What came of it is left in proved.json, beside the lock too: ` +
            'reports of gates under that lock say when it was proven.',
        )
        .requiredOption('--suite <file>', 'suite.yaml')
        .requiredOption('--model <dir>', 'the base of both adapters'),
    )
      .option('--lock <file>', 'gate.lock.json')
      .option('--bad <dir>', 'adapter that must fail; absent: known-bad beside the suite')
      .option('--harmless <dir>', 'adapter that must pass; absent: harmless beside the suite')
      .requiredOption('--out <dir>', 'folder of both gates and of proved.json')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper gate prove --suite gates/nano/suite.yaml --model models/nano --judge models/nano-judge --out proof',
        )}\nExit codes: 0 both as they must be, 10 one is not, 20 one is inconclusive, 30 one is an error.\n`,
      )
      .action(async (options: Options) => {
        const { proveGate } = await import('../../compose/gate-prove.js');
        const { json, threads, device, precision, ...rest } = options;
        const { hooks, end } = gateHooks(json === true);
        const { proof, file } = await proveGate({
          ...rest,
          ...gateEngine({ threads, device, precision }),
          signal: interruptSignal(),
          hooks,
          onBegin: (what) => tell(what),
        });
        end();
        const both = [proof.bad.decision, proof.harmless.decision];
        process.exitCode = proof.ok
          ? PROOF_EXITS.ok
          : both.includes('ERROR')
            ? PROOF_EXITS.error
            : both.includes('INCONCLUSIVE')
              ? PROOF_EXITS.inconclusive
              : PROOF_EXITS.wrong;
        if (json) printJson({ file, proof });
        else
          print(
            proof.ok ? 'PROVEN' : 'NOT PROVEN',
            ...(['bad', 'harmless'] as const).map(
              (name) => `  ${name}: ${proof[name].decision}, wanted ${proof[name].wanted}`,
            ),
            `proof in ${file}`,
          );
      });
  },
};
