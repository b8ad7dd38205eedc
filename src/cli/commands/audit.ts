// `temper audit`: everything an outsider can check of an adapter's folder, on one page.
import type { Audit } from '../../attest/audit.js';
import type { FindingStatus } from '../../attest/findings.js';
import { type Command, collect, examples, interruptSignal, printJson } from '../command.js';
import { createProgress } from '../progress.js';
import { oneLine, print, printStyled, styled } from '../terminal.js';

interface Options {
  readonly key: readonly string[];
  readonly identity?: string;
  readonly model?: string;
  readonly strict?: boolean;
  readonly requireGate?: boolean;
  readonly html?: string;
  readonly json?: boolean;
}

const COLOUR = { ok: 'green', failed: 'red', missing: 'yellow', unchecked: 'dim' } as const satisfies Record<
  FindingStatus,
  string
>;
async function show(audit: Audit): Promise<void> {
  const { byGroup, GROUP_NAMES, STATUS_NAMES } = await import('../../attest/audit.js');
  const width = Math.max(...Object.values(STATUS_NAMES).map((name) => name.length));
  print(audit.dir, audit.verdict);
  for (const [group, findings] of byGroup(audit.findings)) {
    print('', GROUP_NAMES[group]);
    for (const { status, what, why } of findings)
      printStyled(
        `  ${styled(COLOUR[status], STATUS_NAMES[status].padEnd(width))}  ${oneLine(what)}: ${oneLine(why)}\n`,
      );
  }
  print(
    '',
    Object.entries(audit.counts)
      .map(([status, n]) => `${n} ${STATUS_NAMES[status as FindingStatus]}`)
      .join(', '),
  );
}

export const command: Command = {
  name: 'audit',
  summary: 'tell on one page what can be checked of an adapter: signatures, gate, data, base; offline',
  register(program) {
    program
      .command('audit')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nEach line says what was looked at and what came of it: ok, FAILED, missing, or not ` +
          'checkable and why. The decision of the release gate is made again from its outcomes. Whom you trust is ' +
          'what you name: without --key a signature shows nothing but that the folder is of one piece.',
      )
      .argument('<dir>', 'folder of an export or an adapter')
      .option('--key <file>', 'public key or certificate that is trusted, PEM; may be given several times', collect, [])
      .option('--identity <name>', 'who must have signed, of certificates: an address or a name')
      .option('--model <dir>', 'the base, where temper.json does not lead to it')
      .option('--strict', 'exit with 20 where something is missing or cannot be checked')
      .option('--require-gate', 'exit with 10 where no gate passed it, also where none was held')
      .option('--html <file>', 'write the page, one file that needs no other')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper audit out/nano-lora --key release-key.pem.pub',
          'temper audit out/nano-lora --key release-key.pem.pub --strict --html audit.html',
        )}\nExit codes: 0 nothing failed, 10 its gate did not pass and nobody whose key was given answers for it, ` +
          '20 with --strict: not all could be checked, 40 something is not what it says it is.\n',
      )
      .action(async (dir: string, { json, key, ...options }: Options) => {
        const { audit } = await import('../../compose/attest.js');
        const progress = createProgress({ label: 'audit', unit: 'bytes', quiet: json === true });
        let bytes = 0;
        const result = await audit(
          { dir, keys: key, ...options },
          {
            signal: interruptSignal(),
            onProgress: (more) => {
              bytes += more;
              progress.update(bytes);
            },
          },
        ).finally(progress.finish);
        process.exitCode = result.exit;
        if (json) printJson(result);
        else await show(result);
      });
  },
};
