// `temper doctor --tune` on the emulated device: what it measures, keeps and uses, and that whatever lies in the place
// of its file costs no more than the choice. Each command has a process of its own, as a process opens a device once.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { openDevice, openTileOrigin } from '../../src/native/device.js';
import { ops } from '../../src/native/ops.js';
import { Scope } from '../../src/native/tensor.js';
import {
  forgetTiles,
  keepTiles,
  readTiles,
  type TileChoice,
  type TileTable,
  takeTile,
  tiledProducts,
  tileFile,
  tileNames,
} from '../../src/native/tiles.js';
import { emulatedLibrary } from './emulated.js';

// The emulated device has Hopper's kernels as well, and would take those; a consumer card has none. Read at the first
// product.
process.env.TEMPER_CUDA_MATMUL = 'mma';
process.env.TEMPER_CACHE = mkdtempSync(join(tmpdir(), 'temper-tune-'));
const cache = process.env.TEMPER_CACHE;
afterAll(() => rmSync(cache, { recursive: true, force: true }));
openDevice('cuda');
const origin = openTileOrigin('cuda');
if (!origin) throw new Error('the emulated device has no tiles');
const file = tileFile(origin) ?? '';
beforeEach(() => rmSync(cache, { recursive: true, force: true }));

const environment = (env: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv => ({
  ...process.env,
  TEMPER_CUDA_LIBRARY: emulatedLibrary,
  ...env,
});
function temper(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const ran = spawnSync(process.execPath, [join(packageRoot, 'dist/cli/main.js'), ...args], {
    encoding: 'utf8',
    env: environment(env),
  });
  return { code: ran.status, stdout: ran.stdout, stderr: ran.stderr };
}
const TUNE = ['doctor', '--tune', '--device', 'cuda', '--preset', 'nano', '--rows', '64'] as const;

const PRODUCT = 'bf16 forward dense rows<=128 columns<=64';
const table = (choices: readonly TileChoice[]): TileTable => ({
  origin,
  made: '2026-11-30T12:00:00.000Z',
  seconds: 1,
  classes: 9,
  choices,
});
const choice = (tile: string, product = PRODUCT): TileChoice => ({ product, before: 'small', tile, speedup: 1.25 });

/** What a process that opens the device cuts a product of PRODUCT into, and what it says. */
function taken(): { readonly tile: string; readonly stderr: string } {
  const from = (path: string): string => JSON.stringify(join(packageRoot, 'dist', path));
  const code = `
    const { openDevice } = await import(${from('native/device.js')});
    const { ops } = await import(${from('native/ops.js')});
    const { Scope } = await import(${from('native/tensor.js')});
    const { tiledProducts } = await import(${from('native/tiles.js')});
    openDevice('cuda');
    const s = new Scope('workspace', 'cuda');
    const [y, x, w] = [s.empty('f32', [70, 40]), s.zeros('f32', [70, 64]), s.zeros('bf16', [40, 64])];
    ops.linear_fwd(y, null, x, w, null, null, null, 1, 0, 0, 1, 0);
    y.read();
    openDevice('cuda');
    console.log(tiledProducts().map((p) => p.product + ':' + p.tile).join());`;
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    env: environment(),
  });
  return { tile: ran.stdout.trim().replace(`${PRODUCT}:`, ''), stderr: ran.stderr };
}

describe('tiles', () => {
  it('change no bit and are told', () => {
    expect(tileNames()).toEqual(['small', 'large', 'middle']);
    using s = new Scope('workspace', 'cuda');
    const [x, w] = [s.empty('f32', [70, 64]), s.empty('bf16', [40, 64])];
    ops.random_normal(x, 1, 1);
    ops.random_normal(w, 2, 1);
    let seed = 3;
    const product = (): unknown => {
      using inner = new Scope('workspace', 'cuda');
      const y = inner.empty('f32', [70, 40]);
      ops.random_normal(y, seed++, 1); // what was there before is another each time
      ops.linear_fwd(y, null, x, w, null, null, null, 1, 0, 0, 1, 0);
      return y.read();
    };
    tiledProducts();
    const byRule = product();
    expect(tiledProducts()).toEqual([{ product: PRODUCT, tile: 'small' }]);
    for (const tile of tileNames()) {
      takeTile(PRODUCT, tile);
      expect(product()).toEqual(byRule);
      expect(tiledProducts()).toEqual([{ product: PRODUCT, tile }]);
    }
    forgetTiles();
    product();
    expect(tiledProducts()).toEqual([{ product: PRODUCT, tile: 'small' }]);
    expect(tiledProducts()).toEqual([]);
  });
});

describe('temper doctor --tune', () => {
  it('measures every class of products, says what it chose, and keeps it', () => {
    const ran = temper([...TUNE, '--seconds', '200', '--json']);
    expect(ran.stderr).toMatch(/^tune 0% {2}gate and up forward, 64 tokens\n/);
    expect(ran.code).toBe(0);
    const said = JSON.parse(ran.stdout) as { file: string; ops: number; opsInAll: number; classes: TileChoice[] };
    expect(said).toMatchObject({ file, origin, device: { name: 'cuda:0' } });
    expect(said.ops).toBe(14); // of experts 4, dense 6, head 1, 8 bits 3
    expect(said.opsInAll).toBe(14);
    for (const kind of [
      /^mxfp4 forward experts /,
      /^mxfp4 transposed experts /,
      /^bf16 forward dense /,
      /^bf16 transposed dense /,
      /^q8 forward dense /,
    ])
      expect(said.classes.filter((c) => kind.test(c.product)).length).toBeGreaterThan(0);
    for (const c of said.classes) {
      expect(tileNames()).toContain(c.tile);
      expect(c.speedup).toBeGreaterThanOrEqual(c.tile === c.before ? 1 : 1.02);
    }
    const kept = readTiles(origin);
    expect(kept?.classes).toBe(said.classes.length);
    expect(kept?.choices).toEqual(said.classes.filter((c) => c.tile !== c.before));
    expect(readdirSync(dirname(file))).toHaveLength(1);

    const doctor = temper(['doctor', '--no-measure']);
    expect(doctor.stdout).toMatch(
      /^tiles {5}cuda:0 measured 20\d\d-.*: \d+ of \d+ classes .* than by rule; `temper .* cuda:0` measures again$/m,
    );
    expect(doctor.stderr).toBe('');
  }, 300_000);

  it('ends when its time is up, with what it has by then', () => {
    const ran = temper([...TUNE, '--seconds', '0.02']);
    expect(ran.code).toBe(0);
    expect(ran.stdout).toMatch(/classes of products measured in [\d.]+ s, of \d+ of 14 ops; .* Kept in /);
    expect(readTiles(origin)).not.toBeNull();
  });

  it('leaves what was kept where it is interrupted', async () => {
    keepTiles(table([choice('middle')]));
    const before = readFileSync(file, 'utf8');
    const child = spawn(
      process.execPath,
      [join(packageRoot, 'dist/cli/main.js'), ...TUNE, '--rows', '64,128,256,512'],
      {
        env: environment(),
      },
    );
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (stderr === '' || !stderr.includes('tune 0%')) setTimeout(() => child.kill('SIGINT'), 300);
      stderr += text;
    });
    const code = await new Promise<number | null>((done) => {
      child.on('close', (c, signal) => done(c ?? (signal === 'SIGINT' ? 130 : 999)));
    });
    expect(code).toBe(130);
    expect(stderr).toMatch(/stopping; what was kept before stays/);
    expect(readFileSync(file, 'utf8')).toBe(before);
    expect(readdirSync(dirname(file))).toHaveLength(1);
  });

  it.each([
    [['--device', 'cpu'], {}, /^temper: --tune: cpu has no tiles to choose from; name a GPU with --device\n$/],
    [[], { TEMPER_CACHE: '' }, /^temper: --tune: TEMPER_CACHE is empty, so nothing would be kept; unset it, .*\n$/],
    [['--rows', '64,x'], {}, /^temper: option '--rows <tokens>' argument '64,x' is invalid\. wanted an integer/],
    [['--seconds', '0'], {}, /^temper: option '--seconds <s>' argument '0' is invalid\. wanted a number/],
  ] as const)('refuses %j %j', (args, env, message) => {
    const ran = temper([...TUNE, ...args], env);
    expect(ran.stderr).toMatch(message);
    expect(ran.code).toBe(2);
    expect(ran.stdout).toBe('');
  });
  it('has options of its own', () => {
    const ran = temper(['doctor', '--no-measure', '--rows', '64']);
    expect(ran.stderr).toBe('temper: --rows goes with --tune; add that, or leave it out\n');
    expect(ran.code).toBe(2);
  });
});

describe('a kept table', () => {
  it('is used by whoever opens the device', () => {
    expect(taken()).toEqual({ tile: 'small', stderr: '' });
    keepTiles(table([choice('middle'), choice('large', 'mxfp4 forward experts rows<=64 columns<=64')]));
    expect(taken()).toEqual({ tile: 'middle', stderr: '' });
  });

  const written = (text: string) => (): void => {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  };
  const edited = (edit: (text: string) => string) => (): void => {
    keepTiles(table([choice('middle')]));
    writeFileSync(file, edit(readFileSync(file, 'utf8')));
  };
  it.each<readonly [string, () => void, RegExp]>([
    ['empty', written(''), /is not JSON/],
    ['cut off', edited((t) => t.slice(0, -40)), /is not JSON/],
    ['not ours', written('[1, 2]'), /is no table of tiles/],
    ['changed', edited((t) => t.replace('"middle"', '"large"')), /does not match its own digest/],
    [
      "another card's",
      () => {
        const other = { ...table([choice('middle')]), origin: { ...origin, card: 'NVIDIA GeForce RTX 4090' } };
        keepTiles(other);
        writeFileSync(file, readFileSync(tileFile(other.origin) ?? ''));
      },
      /is that of another card, driver or build/,
    ],
    ['of no number', () => keepTiles({ ...table([choice('middle')]), classes: Number.NaN }), /is no table of tiles/],
    [
      'of a tile that is not there',
      () => keepTiles(table([choice('middle'), choice('tall')])),
      /names what is not there.*"tall"/,
    ],
    [
      'of a class that is not there',
      () => keepTiles(table([choice('middle'), choice('middle', 'f32 products')])),
      /names what is not there.*"f32 products"/,
    ],
    ['a folder', () => mkdirSync(file, { recursive: true }), /cannot be read \(EISDIR/],
  ])('that is %s is told in a line and not used', (_, make, why) => {
    make();
    const { tile, stderr } = taken();
    expect(tile).toBe('small');
    const lines = stderr.split('\n').filter((line) => line.includes('TemperWarning'));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/\[bad_tiles\] TemperWarning: .*tiles/);
    expect(lines[0]).toMatch(why);
    expect(lines[0]).toMatch(/and is not used; make it again with `temper doctor --tune`$/);
  });
  it('that is broken is what doctor says, and --tune makes a good one of it', () => {
    written('nonsense')();
    const doctor = temper(['doctor', '--no-measure', '--json']);
    expect(doctor.code).toBe(0);
    expect(JSON.parse(doctor.stdout)).toMatchObject({
      backends: [{ backend: 'cuda', tiles: [{ index: 0, file, table: null, problem: { code: 'bad_tiles' } }] }],
    });
    expect(temper([...TUNE, '--seconds', '0.02']).code).toBe(0);
    expect(readTiles(origin)).not.toBeNull();
  });
  it("of another card, driver or build lies in a file of its own, and a card's name is no path", () => {
    const names = [
      origin,
      { ...origin, card: '../../../etc/x' },
      { ...origin, card: `${origin.card} Ti` },
      { ...origin, driver: '13.1' },
      { ...origin, build: 'another' },
      { ...origin, capability: '12.0' },
      { ...origin, multiprocessors: 1 },
    ].map((o) => tileFile(o));
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(dirname(name ?? '')).toBe(dirname(file));
  });
  it('is told to be none where there is none, or no place for one', () => {
    expect(temper(['doctor', '--no-measure']).stdout).toMatch(
      /^tiles {5}cuda:0 by rule; `temper doctor --tune --device cuda:0` measures in about a minute which .*$/m,
    );
    expect(temper(['doctor', '--no-measure'], { TEMPER_CACHE: '' }).stdout).toMatch(
      /^tiles {5}cuda:0 by rule: TEMPER_CACHE is empty, so nothing is kept$/m,
    );
  });
});
