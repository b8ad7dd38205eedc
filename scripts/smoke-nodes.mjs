// Runs scripts/smoke.mjs on Node 20, 22 and 24. The running Node serves for its own major; the others are fetched once
// from the npm registry (packages node-<platform>-<arch>) into node_modules/.cache. Without a registry they are skipped
// by name.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root, say } from './prepare.mjs';

export const majors = [20, 22, 24];
const cache = join(root, 'node_modules', '.cache', 'temper-nodes');
const here = `${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`;

/** Path of a Node binary of this major, or the reason there is none. Target: of another platform, as in linux-arm64. */
export function nodeOf(major, target = here) {
  if (target === here && Number(process.versions.node.split('.')[0]) === major) return { path: process.execPath };
  const packageName = `node-${target}`;
  const place = join(cache, target === here ? String(major) : `${target}-${major}`);
  const path = join(place, 'bin', 'node');
  if (existsSync(path)) return { path };
  const work = join(cache, `.${target}-${major}.${process.pid}`);
  try {
    mkdirSync(work, { recursive: true });
    const pack = spawnSync('npm', ['pack', '--silent', '--pack-destination', work, `${packageName}@${major}`], {
      cwd: work,
      encoding: 'utf8',
      timeout: 300_000,
    });
    const file = readdirSync(work).find((name) => name.endsWith('.tgz'));
    if (pack.status !== 0 || !file)
      return { reason: `${packageName}@${major} cannot be fetched from the npm registry` };
    if (spawnSync('tar', ['-xzf', file, 'package/bin/node'], { cwd: work }).status !== 0)
      return { reason: `${file} cannot be unpacked` };
    rmSync(place, { recursive: true, force: true });
    renameSync(join(work, 'package'), place);
    return { path };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function main() {
  let passed = 0;
  let failed = 0;
  for (const major of majors) {
    const node = nodeOf(major);
    if (!node.path) {
      say(`smoke on Node ${major}: skipped, ${node.reason}`);
      continue;
    }
    const child = spawnSync(node.path, [join(root, 'scripts', 'smoke.mjs')], {
      cwd: root,
      encoding: 'utf8',
      timeout: 120_000,
    });
    const ok = child.status === 0;
    if (ok) passed++;
    else failed++;
    const failure = `failed${child.signal ? ` by ${child.signal}` : ''}\n${child.stdout}${child.stderr}`;
    say(`smoke on Node ${major}: ${ok ? child.stdout.trim() : failure}`);
  }
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  process.exit(failed > 0 ? 1 : 0);
}
if (process.argv[1] === fileURLToPath(import.meta.url)) main();
