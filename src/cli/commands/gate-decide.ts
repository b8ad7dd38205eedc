// `temper gate decide`: the decision of the gate once more, of outcomes alone, offline.
import type { Decision, MetricDecision } from '../../gate/decision.js';
import { labelledText } from '../../gate/report/words.js';
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { createProgress } from '../progress.js';
import { print, printable, tell } from '../terminal.js';
import { askedText } from './gate.js';

interface Options {
  readonly suite?: string;
  readonly lock?: string;
  readonly labels?: string;
  readonly store?: string;
  readonly ask?: boolean;
  readonly reviewTwoPersons?: boolean;
  readonly discordant?: string;
  readonly json?: boolean;
}
export const GATE_GROUP = ['gate', 'the release gate'] as const;
const figure = (x: number | null): string => (x === null ? '–' : String(Number(x.toPrecision(4))));

function linesOf(m: MetricDecision): string[] {
  const { interval } = m;
  const arm = m.arm ?? 'adapter';
  const name = `${m.arm ? `${m.arm}: ` : ''}${m.metric}${m.slice === null ? '' : `, slice ${m.slice}`}`;
  const limits = [
    m.margin === null ? '' : `margin ${figure(m.margin)}`,
    m.cap === null ? '' : `cap ${figure(m.cap)}`,
    m.floor === null ? '' : `floor ${figure(m.floor)}`,
    m.most === null ? '' : `at most ${m.most}`,
  ].filter((text) => text !== '');
  const parts = [
    `base ${figure(m.base)}, ${arm} ${figure(m.adapter)}`,
    interval === null
      ? ''
      : `difference ${figure(m.difference)} [${figure(interval.low)}, ${figure(interval.high)}] by ${interval.method}`,
    m.bound === null ? '' : `bound ${figure(m.bound)}`,
    ...limits,
    `${m.prompts} prompts`,
    m.missing === 0 ? '' : `${m.missing} missing`,
    m.power === null ? '' : `power ${figure(m.power)}`,
  ].filter((text) => text !== '');
  const verdict = m.gates || m.verdict === 'FAIL' ? m.verdict : 'told';
  return [`  ${verdict} ${printable(name)}: ${parts.join(', ')}`];
}
export const nextLines = (next: readonly string[]): string[] => next.map((line) => `  next: ${printable(line)}`);
export const decisionLines = (decision: Decision, next: readonly string[] = []): string[] => [
  `${decision.decision}${decision.exit === 40 ? ' (integrity)' : ''}`,
  ...decision.metrics.filter((m) => m.slice === null || m.gates || m.verdict === 'FAIL').flatMap(linesOf),
  ...decision.reasons.map((r) => `  ${printable(r)}`),
  ...nextLines(next),
  ...decision.notes.map((n) => `  note: ${printable(n)}`),
  ...(decision.labelled ? [`  ${printable(labelledText(decision.labelled))}`] : []),
];

export const command: Command = {
  name: 'gate decide',
  summary: 'decide of outcomes, suite and lock whether an adapter passes; offline, the same for everybody',
  register(program) {
    group(program, ...GATE_GROUP)
      .command('decide')
      .summary(this.summary)
      .description(
        `${this.summary}. docs/gate.md says how.\n\nOf the folder of a gate the decision, its labels and its reports ` +
          'are written anew.',
      )
      .argument('<outcomes>', 'outcomes.jsonl, or the folder of a gate')
      .option('--suite <file>', 'suite whose metrics and limits count; absent: that of the folder')
      .option('--lock <file>', 'gate lock that suite, files and judge must be those of')
      .option('--labels <file>', 'what people say of judged pairs (JSON lines); it counts instead of the judge')
      .option(
        '--store <where>',
        'what people said at /review counts instead of the judge: a file of SQLite, or postgres://USER@HOST/DATABASE',
      )
      .option('--ask', 'with --store: put the pairs that differ before people first')
      .option('--review-two-persons', 'with --ask: two people must say the same of each answer')
      .option('--discordant <file>', 'write the judged pairs that differ and have no label, for people to look at')
      .option('--json', 'one machine-readable decision on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper gate decide run/gate/outcomes.jsonl --suite run/gate/suite/suite.yaml --lock gate.lock.json',
          'temper gate decide outcomes.jsonl --suite suite.yaml --labels labels.jsonl --json',
          'temper gate decide run/gate --store reviews.db',
        )}\nExit codes: 0 PASS, 10 FAIL, 20 INCONCLUSIVE, 30 ERROR, 40 not what was locked.\n`,
      )
      .action(async (outcomes: string, options: Options) => {
        const { decideAgain } = await import('../../compose/gate-decide.js');
        const progress = createProgress({ label: 'decide', unit: 'metrics', quiet: options.json === true });
        const { json, reviewTwoPersons, ...rest } = options;
        const decided = await decideAgain(
          { ...rest, outcomes, twoPersons: reviewTwoPersons },
          { signal: interruptSignal(), onProgress: (done, of) => progress.update(done, '', of) },
        ).finally(() => progress.finish());
        const { decision, asked, waiting, next } = decided;
        process.exitCode = decision.exit;
        if (json) printJson(decision);
        else if (decision.exit === 0) print(...decisionLines(decision, next));
        else tell(...decisionLines(decision, next));
        if (asked) tell(askedText(asked));
        if (waiting) tell(`${waiting} pairs differ and count as the judge says: people have not said all of them`);
        const { discordant } = options;
        if (discordant !== undefined) tell(`${discordant}: ${decided.discordant} pairs wait for a label`);
      });
  },
};
