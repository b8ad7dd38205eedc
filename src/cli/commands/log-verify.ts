// `temper log verify`: whether a log of verdicts is what was signed.
import type { LogReport } from '../../verdict-log/verify.js';
import { type Command, collect, examples, group, interruptSignal, printJson } from '../command.js';
import { createProgress } from '../progress.js';
import { print, tell } from '../terminal.js';

interface Options {
  readonly key?: string;
  readonly since: readonly string[];
  readonly closed?: boolean;
  readonly pruned?: boolean;
  readonly everySignature?: boolean;
  readonly json?: boolean;
}
export const LOG_GROUP = ['log', 'verdicts on record: verify, show, prove'] as const;

const count = (n: number): string => n.toLocaleString('en');
function linesOf(report: LogReport): string[] {
  return [
    `${report.dir}: ${report.origin}, ${count(report.records)} records, ${count(report.bytes)} bytes`,
    ...report.lanes.map(
      (l) =>
        `  stream ${l.lane}: ${count(l.size)} records under ${count(l.checkpoints)} checkpoints in ${l.files} ` +
        `file${l.files === 1 ? '' : 's'}, last signed ${l.time ?? 'never'}, ` +
        `${l.ended === 'closed' ? 'closed' : 'not closed'}${l.root === null ? '' : `, root ${l.root}`}`,
    ),
    ...report.notes.map((note) => `  note: ${note}`),
    ...report.faults.map((f) => `  ${f.kind}: ${f.file}${f.line === null ? '' : `:${f.line}`}: ${f.message}`),
    report.ok ? 'nothing is altered, missing or out of order' : 'NOT AS IT WAS SIGNED: see above',
  ];
}

export const command: Command = {
  name: 'log verify',
  summary: 'find any record of a log that was altered, dropped, moved or cut off; offline',
  register(program) {
    group(program, ...LOG_GROUP)
      .command('verify')
      .summary(this.summary)
      .description(this.summary)
      .argument('<dir>', 'folder that --log wrote')
      .option('--key <file>', 'public key of the log; without it the one that lies in the log is believed')
      .option(
        '--since <file>',
        'checkpoints that were kept elsewhere: the log must go on from them; may be given several times',
        collect,
        [],
      )
      .option('--closed', 'it must have been closed, so that no end can have been cut off')
      .option('--pruned', 'the oldest files of a stream may have been taken away')
      .option('--every-signature', 'look at each signature, not at enough of them to bind every record')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper log verify verdict-log --key log-key.pem.pub',
          'temper log verify verdict-log --key log-key.pem.pub --since checkpoint.txt --json',
        )}\nExit codes: 0 it is whole, 40 it is not.\n`,
      )
      .action(async (dir: string, options: Options) => {
        const { verifyVerdictLog } = await import('../../verdict-log/threads.js');
        const progress = createProgress({ label: 'verify', unit: 'bytes', quiet: options.json === true });
        let bytes = 0;
        const report = await verifyVerdictLog(
          {
            dir,
            ...(options.key === undefined ? {} : { key: options.key }),
            since: options.since,
            closed: options.closed === true,
            pruned: options.pruned === true,
            everySignature: options.everySignature === true,
          },
          {
            signal: interruptSignal(),
            onProgress: (more) => {
              bytes += more;
              progress.update(bytes);
            },
          },
        );
        progress.finish();
        process.exitCode = report.ok ? 0 : 40;
        if (options.json) printJson(report);
        else if (report.ok) print(...linesOf(report));
        else tell(...linesOf(report));
      });
  },
};
