// npm run demo [-- OPTIONS]: installs and builds what is missing, then runs `temper demo` on the embedded nano models.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { buildNative, buildTypeScript, checkNode, installDependencies, root, say } from './prepare.mjs';

checkNode();
for (const { what, done } of [
  { what: 'npm ci', done: installDependencies },
  { what: 'the native build', done: () => buildNative() },
  { what: 'the TypeScript build', done: buildTypeScript },
]) {
  if (done()) continue;
  say(`demo: ${what} failed; the lines above say why`);
  process.exit(1);
}
say('· running: temper demo');
const child = spawnSync(process.execPath, [join(root, 'dist', 'cli', 'main.js'), 'demo', ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
});
process.exit(child.status ?? 1);
