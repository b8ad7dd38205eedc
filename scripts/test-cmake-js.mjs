// The addon built by cmake-js in a folder of its own, then loaded there: an op, a tokenizer, a forward pass, a worker
// (scripts/smoke.mjs). Nothing may be downloaded: cmake-js would put Node's headers into the home folder, which is an
// empty one here. The last line is "N passed, N failed".
import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { root, run, say } from './prepare.mjs';

const folder = join(root, 'build', 'cmake-js-test');
const home = join(folder, 'home');
mkdirSync(home, { recursive: true });
const steps = {
  'cmake-js builds the addon': () =>
    run(
      process.execPath,
      [
        join('node_modules', 'cmake-js', 'bin', 'cmake-js'),
        'build',
        ...['--directory', 'native', '--out', folder, '--target', 'temper_addon', '--log-level', 'warn'],
        ...[`--CDTEMPER_ADDON_FOLDER=${folder}`, '--CDTEMPER_TESTS=OFF', '--CDTEMPER_CUDA=off'],
      ],
      { env: { CCACHE_DIR: join(homedir(), '.cache', 'ccache'), ...process.env, HOME: home } },
    ),
  'downloads nothing': () => !existsSync(join(home, '.cmake-js')),
  'the addon works': () =>
    run(process.execPath, [join('scripts', 'smoke.mjs')], {
      env: { ...process.env, TEMPER_ADDON: join(folder, 'temper.node') },
    }),
};
let failed = 0;
for (const [name, step] of Object.entries(steps)) {
  const ok = step();
  if (!ok) failed++;
  say(`${ok ? '✓' : '✗'} ${name}`);
}
process.stdout.write(`${Object.keys(steps).length - failed} passed, ${failed} failed\n`);
process.exit(failed > 0 ? 1 : 0);
