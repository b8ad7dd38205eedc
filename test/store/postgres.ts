// PostgreSQL for tests: Debian's, in a folder of its own, behind a socket in that folder, gone with the tests. It
// refuses to run as root, so there it runs as the user that its package made.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const VERSIONS = '/usr/lib/postgresql';
const found = existsSync(VERSIONS)
  ? readdirSync(VERSIONS)
      .sort((a, b) => Number(b) - Number(a))
      .map((v) => join(VERSIONS, v, 'bin'))
      .find((bin) => existsSync(join(bin, 'postgres')) && existsSync(join(bin, 'initdb')))
  : undefined;
const isRoot = process.getuid?.() === 0;
const idOf = (flag: string): number => Number(spawnSync('id', [flag, 'postgres'], { encoding: 'utf8' }).stdout);
const owner = isRoot && found ? { uid: idOf('-u'), gid: idOf('-g') } : null;

/** Why there is none here; null: there is one. */
export const WITHOUT_POSTGRES: string | null =
  found === undefined
    ? 'skipped, PostgreSQL is not here (Debian: apt-get install postgresql)'
    : owner !== null && !(owner.uid > 0)
      ? 'skipped, PostgreSQL refuses root, and there is no user postgres'
      : null;

export interface PostgresServer {
  /** URL of a new, empty database. */
  database(): Promise<string>;
  /** Ends it at once, as a machine that dies; `start` brings it back with what it had. */
  kill(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

export async function startPostgres(): Promise<PostgresServer> {
  const bin = found as string;
  // Not below the tests' own folder: that is root's alone, and a socket's path is short.
  const folder = mkdtempSync('/tmp/temper-pg-');
  chmodSync(folder, 0o700);
  if (owner) chownSync(folder, owner.uid, owner.gid);
  const as = { ...(owner ?? {}), cwd: folder, env: { PATH: `${bin}:${process.env.PATH}`, LC_ALL: 'C', HOME: folder } };
  const data = join(folder, 'data');
  const made = spawnSync(
    join(bin, 'initdb'),
    ['-D', data, '-U', 'temper', '--auth=trust', '--encoding=UTF8', '--no-sync', '--no-instructions'],
    { ...as, encoding: 'utf8' },
  );
  if (made.status !== 0) throw new Error(`initdb: ${made.stderr}`);
  let child: ChildProcess;
  let says = '';
  const start = async (): Promise<void> => {
    says = '';
    const settings = [
      'fsync=off', // processes die here, machines do not
      'listen_addresses=',
      `unix_socket_directories=${folder}`,
      'max_connections=60',
      'shared_buffers=8MB',
    ];
    child = spawn(join(bin, 'postgres'), ['-D', data, ...settings.flatMap((s) => ['-c', s])], {
      ...as,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    await new Promise<void>((ready, fail) => {
      child.once('exit', () => fail(new Error(`postgres ended: ${says}`)));
      child.stderr?.on('data', (text: Buffer) => {
        says += text.toString();
        if (/ready to accept connections/.test(says)) ready();
      });
    });
  };
  const end = (signal: NodeJS.Signals): Promise<void> =>
    new Promise((done) => {
      child.removeAllListeners('exit');
      child.once('exit', () => done());
      child.kill(signal);
    });
  await start();
  const urlOf = (name: string): string => `postgres://temper@localhost/${name}?host=${encodeURIComponent(folder)}`;
  let count = 0;
  return {
    async database() {
      const name = `t${++count}`;
      const { default: pg } = await import('pg');
      const client = new pg.Client({ connectionString: urlOf('postgres') });
      await client.connect();
      await client.query(`create database ${name}`);
      await client.end();
      return urlOf(name);
    },
    kill: () => end('SIGQUIT'),
    start,
    async close() {
      await end('SIGQUIT');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
