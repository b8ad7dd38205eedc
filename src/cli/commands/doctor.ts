// `temper doctor`: what this machine has and what will run on it; with --tune, what is fastest on its card.
import { cpus, freemem, totalmem } from 'node:os';
import type { Command as CommanderCommand } from 'commander';
import { ConfigError, NativeError, TemperError } from '../../base/errors.js';
import type { Preset } from '../../model/init.js';
import { DEVICE_NAMES, describeDevice } from '../../native/backends.js';
import type { BackendReport, TileReport } from '../../native/device.js';
import type { TileChoice } from '../../native/tiles.js';
import { type Command, examples, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { Option } from '../commander.js';
import { createProgress } from '../progress.js';
import { print, tell } from '../terminal.js';

const GIB = 2 ** 30;
/** What the limit of a CPU's arithmetic was measured with; of others f32. */
const LIMIT_OF: Readonly<Record<string, string>> = { amx: 'bf16 matrix tiles', avx512bf16: 'bf16 dot products' };

/** What was measured of a card, and how that is done. */
function tilesLine({ file, table, problem }: TileReport, device: string): string {
  if (problem) return problem.message;
  if (file === null) return 'by rule: TEMPER_CACHE is empty, so nothing is kept';
  const make = `\`temper doctor --tune --device ${device}\``;
  return table
    ? `measured ${table.made}: ${table.choices.length} of ${table.classes} classes of products take another tile ` +
        `than by rule; ${make} measures again`
    : `by rule; ${make} measures in about a minute which are faster on this card`;
}

/** Driver, library and devices of a backend, or what is missing and how to get it. */
function backendLines(b: BackendReport): string[] {
  const built = b.built
    ? [`${b.library}${b.builtFor ? `, for ${b.builtFor.replaceAll(' sm_', ', sm_')}` : ''}`]
    : b.problem?.code === 'addon_version'
      ? []
      : [`${b.library} is not built; \`${b.build}\` builds it (needs ${b.needs})`];
  const driver = b.driver
    ? `driver for version ${b.driver}, library made with ${b.runtime ?? '?'}`
    : b.problem?.code === 'no_driver'
      ? 'no driver'
      : b.problem?.code === 'addon_version'
        ? 'a package of another version'
        : 'a driver';
  return [
    `${b.backend.padEnd(10)}${driver}`,
    ...built.map((line) => `          ${line}`),
    ...b.devices.map(
      (d) =>
        `device    ${b.backend}:${d.index} ${d.name}, sm_${d.major}${d.minor}, ${d.multiprocessors} ` +
        `multiprocessors, ${(d.memory / GIB).toFixed(1)} GiB`,
    ),
    ...b.tiles.map((t) => `tiles     ${b.backend}:${t.index} ${tilesLine(t, `${b.backend}:${t.index}`)}`),
    ...(b.problem && (b.built || built.length === 0) ? [`          ${b.problem.message}`] : []),
  ];
}

/** What can be said whether or not there is an addon. */
const machine = () => ({
  node: process.version,
  platform: `${process.platform}-${process.arch}`,
  memory: { totalBytes: totalmem(), freeBytes: freemem() },
});

/** All of it; without an addon what is wrong with it takes the place of the rest. */
async function look(measure: boolean) {
  const [{ cpuInfo, measureLimits, opCount }, { backendReports, useDevice }] = await Promise.all([
    import('../../native/machine.js'),
    import('../../native/device.js'),
  ]);
  try {
    const { model, isa, features, threads } = cpuInfo();
    const counts = [...new Set([1, threads >> 1, threads])].filter((n) => n > 0).sort((a, b) => a - b);
    return {
      ...machine(),
      cpu: { model, cores: cpus().length, isa, features, threads },
      limits: measure ? counts.map(measureLimits) : [],
      addon: { ops: opCount() },
      backends: backendReports(),
      device: useDevice('auto'),
    };
  } catch (e) {
    // What the user set wrong is no fact of the machine.
    if (!(e instanceof TemperError && e.code.startsWith('addon_'))) throw e;
    return { ...machine(), addon: { problem: { code: e.code, message: e.message } } };
  }
}

function linesOf(report: Awaited<ReturnType<typeof look>>): string[] {
  const memory =
    `memory    ${(report.memory.totalBytes / GIB).toFixed(1)} GiB, ` +
    `${(report.memory.freeBytes / GIB).toFixed(1)} GiB free`;
  const head = `node      ${report.node} on ${report.platform}`;
  if (!('backends' in report))
    return [
      head,
      `cpu       ${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`,
      memory,
      `addon     ${report.addon.problem.message}`,
    ];
  const { cpu } = report;
  return [
    head,
    `cpu       ${cpu.model}, ${cpu.cores} cores; ${cpu.threads} threads used`,
    `kernels   ${cpu.isa} (has ${cpu.features.join(', ')})`,
    memory,
    ...report.limits.map(
      (l) =>
        `limits    ${l.gflops.toFixed(0)} GFLOP/s ` +
        `(${LIMIT_OF[cpu.isa] ?? 'f32'}), ` +
        `${l.gbPerSecond.toFixed(1)} GB/s read, ${l.threads} thread${l.threads > 1 ? 's' : ''}`,
    ),
    `addon     loaded, ${report.addon.ops} ops`,
    ...report.backends.flatMap(backendLines),
    `auto      ${describeDevice(report.device)}`,
  ];
}

interface TuneFlags {
  readonly device: string;
  readonly preset: Preset;
  readonly rows: readonly number[];
  readonly seconds: number;
  readonly json?: boolean;
}

/** Measures a card's tiles and keeps what is faster. */
async function tuneCard(o: TuneFlags): Promise<void> {
  const signal = interruptSignal('stopping; what was kept before stays');
  const [{ openTileOrigin, useDevice }, { tune }, { keepTiles, tileFile }, { PRESETS }] = await Promise.all([
    import('../../native/device.js'),
    import('../../bench/tune.js'),
    import('../../native/tiles.js'),
    import('../../model/init.js'),
  ]);
  const device = useDevice(o.device),
    origin = openTileOrigin(device.place);
  if (!origin)
    throw new NativeError(
      'bad_device',
      `--tune: ${describeDevice(device)} has no tiles to choose from; name a GPU with --device`,
      { device: device.name },
    );
  if (tileFile(origin) === null)
    throw new ConfigError(
      'bad_option',
      '--tune: TEMPER_CACHE is empty, so nothing would be kept; unset it, or name a folder',
    );
  if (!o.json) tell(`device: ${describeDevice(device)}`);
  const progress = createProgress({ label: 'tune', unit: 'ops' });
  const found = await tune(PRESETS[o.preset], {
    place: device.place,
    rows: o.rows,
    rank: 16,
    seconds: o.seconds,
    signal,
    onProgress: (done, total, op) => progress.update(done, op, total),
  });
  progress.finish();
  signal.throwIfAborted();
  const choices = found.classes.filter((c) => c.tile !== c.before),
    seconds = Math.round(found.seconds * 10) / 10;
  const made = new Date().toISOString();
  const file = keepTiles({ origin, made, seconds, classes: found.classes.length, choices });
  if (o.json) printJson({ device, origin, made, file, ...found });
  else print(...tuneLines(found.classes, choices));
  if (!o.json)
    print(
      `${found.classes.length} classes of products measured in ${seconds} s` +
        `${found.ops < found.opsInAll ? `, of ${found.ops} of ${found.opsInAll} ops` : ''}; ` +
        `${choices.length} take another tile than by rule. Kept in ${file}`,
    );
}
const tuneLines = (classes: readonly TileChoice[], choices: readonly TileChoice[]): string[] => {
  const width = Math.max(8, ...classes.map((c) => c.product.length));
  const line = (product: string, before: string, tile: string, speedup: string): string =>
    `${product.padEnd(width)}  ${before.padEnd(8)}${tile.padEnd(8)}${speedup.padStart(8)}`;
  return choices.length === 0
    ? []
    : [
        line('products', 'by rule', 'chosen', 'speed-up'),
        ...choices.map((c) => line(c.product, c.before, c.tile, c.speedup.toFixed(2))),
      ];
};
const TUNE_OPTIONS = ['device', 'preset', 'rows', 'seconds'] as const;
const TUNE_EXAMPLE = 'temper doctor --tune --device cuda:1 --preset 120b --seconds 120 --json';
const rowList = (text: string): number[] => text.split(',').map(integerIn(1, 1 << 16));

export const command: Command = {
  name: 'doctor',
  summary: 'what this machine has: CPU features, memory, the native addon, and what will run',
  register(program) {
    program
      .command('doctor')
      .summary(this.summary)
      .description(this.summary)
      .option('--no-measure', 'leave out the limits of arithmetic and memory, which take a few seconds')
      .option('--tune', 'measure which tiles are fastest for products of gpt-oss on a GPU, and keep them for it')
      .addOption(new Option('--device <name>', `with --tune: ${DEVICE_NAMES}`).default('auto'))
      .addOption(
        new Option(
          '--preset <shape>',
          'with --tune: the shapes of its products; 120b has those of 20b, but for the experts',
        )
          .choices(['nano', 'slice', '20b', '120b'])
          .default('20b'),
      )
      .option('--rows <tokens>', 'with --tune: tokens of a step', rowList, [64, 128, 256, 512, 1024, 2048, 4096])
      .option('--seconds <s>', 'with --tune: no measurement begins later', numberIn(0.01, 3600), 60)
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples('temper doctor', 'temper doctor --no-measure --json', 'temper doctor --tune', TUNE_EXAMPLE),
      )
      .action(async (options: TuneFlags & { measure: boolean; tune?: boolean }, called: CommanderCommand) => {
        if (options.tune) return tuneCard(options);
        const given = TUNE_OPTIONS.find((o) => called.getOptionValueSource(o) === 'cli');
        if (given) throw new ConfigError('bad_option', `--${given} goes with --tune; add that, or leave it out`);
        const report = await look(options.measure);
        if ('problem' in report.addon) process.exitCode = 2;
        if (options.json) printJson(report);
        else print(...linesOf(report));
      });
  },
};
