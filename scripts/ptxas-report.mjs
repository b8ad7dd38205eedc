// node scripts/ptxas-report.mjs [--filter TEXT] [--architectures 80,90a]: compiles every .cu of native/cuda and
// native/gpu for every architecture with ptxas -v and writes bench/results/ptxas.md: registers, shared memory and
// spills of each kernel. Exits with 1 when a kernel spills that is not listed below. Two compilers at a time.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const option = (name, absent) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? absent : (process.argv[at + 1] ?? absent);
};
const architectures = option('--architectures', '80,86,89,90a,120').split(',');
const filter = option('--filter', '');
/** Kernels that may spill: not on a hot path. By the name as written, without template arguments. */
const MAY_SPILL = new Set([]);

if (spawnSync('nvcc', ['--version'], { stdio: 'ignore' }).status !== 0) {
  process.stderr.write('ptxas-report: nvcc is not in PATH; install the CUDA toolkit 12.8 or newer\n');
  process.exit(2);
}
const sources = ['cuda', 'gpu']
  .flatMap((room) =>
    readdirSync(join(root, 'native', room), { recursive: true, encoding: 'utf8' }).map((f) => join('native', room, f)),
  )
  .filter((f) => f.endsWith('.cu') && f.includes(filter))
  .sort();
const scratch = mkdtempSync(join(tmpdir(), 'temper-ptxas-'));

/** @returns ptxas's report of one file on one architecture */
function compile(source, arch) {
  const output = join(scratch, `${basename(source, '.cu')}-${arch}.o`);
  const args = [
    '-std=c++20',
    '-O3',
    '-fmad=false',
    '--expt-relaxed-constexpr',
    '-Xptxas',
    '-v',
    '-I',
    'native',
    '-I',
    'native/include',
    '-gencode',
    `arch=compute_${arch},code=sm_${arch}`,
    '-c',
    source,
    '-o',
    output,
  ];
  return new Promise((done, failed) => {
    const child = spawn('nice', ['-n', '10', 'nvcc', ...args], { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    child.stderr.on('data', (d) => {
      text += d;
    });
    child.on('close', (code) => {
      rmSync(output, { force: true });
      if (code === 0) done(text);
      else failed(new Error(`${source} for sm_${arch}:\n${text}`));
    });
  });
}

/** One entry per kernel of a report. */
function parse(text) {
  const kernels = [];
  let current = null;
  for (const line of text.split('\n')) {
    const entry = /Compiling entry function '([^']+)'/.exec(line);
    if (entry) {
      current = { mangled: entry[1], registers: 0, shared: 0, spill: 0, stack: 0 };
      kernels.push(current);
      continue;
    }
    if (!current) continue;
    const stack = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    // The line names the function it is about; device functions that were not inlined have their own.
    if (stack) {
      current.stack = Math.max(current.stack, Number(stack[1]));
      current.spill = Math.max(current.spill, Number(stack[2]) + Number(stack[3]));
    }
    const used = /Used (\d+) registers/.exec(line);
    if (used) {
      current.registers = Number(used[1]);
      current.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0);
    }
  }
  return kernels;
}

function demangle(names) {
  const out =
    spawnSync('c++filt', names, { encoding: 'utf8', maxBuffer: 1 << 26 })
      .stdout?.trim()
      .split('\n') ?? names;
  return out.map((n) =>
    n
      .replace(/^void /, '')
      .replaceAll('temper::gpu::', '')
      .replaceAll('(anonymous namespace)::', '')
      .replace(/\([^()]*(\([^()]*\)[^()]*)*\)$/, ''),
  );
}

const rows = new Map();
const jobs = sources.flatMap((source) => architectures.map((arch) => ({ source, arch })));
let next = 0;
async function work() {
  while (next < jobs.length) {
    const { source, arch } = jobs[next++];
    const kernels = parse(await compile(source, arch)),
      names = kernels.length ? demangle(kernels.map((k) => k.mangled)) : [];
    kernels.forEach((k, i) => {
      const key = `${basename(source)}\t${names[i]}`;
      if (!rows.has(key)) rows.set(key, new Map());
      rows.get(key).set(arch, k);
    });
    process.stderr.write(`ptxas-report: ${source} sm_${arch}: ${kernels.length} kernels\n`);
  }
}
try {
  await Promise.all([work(), work()]);
} catch (error) {
  process.stderr.write(`ptxas-report: ${error.message}\n`);
  process.exit(1);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

const spilling = [];
const lines = [...rows]
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([key, of]) => {
    const [source, name] = key.split('\t');
    const cells = architectures.map((arch) => {
      const k = of.get(arch);
      if (!k) return '';
      if (k.spill > 0) spilling.push({ source, name, arch, spill: k.spill });
      return `${k.registers}${k.stack > 0 ? ` st ${k.stack}` : ''}${k.spill > 0 ? ` **spill ${k.spill}**` : ''}`;
    });
    return (
      `| \`${source}\` | \`${name}\` | ${cells.join(' | ')} | ` +
      `${Math.max(...[...of.values()].map((k) => k.shared))} |`
    );
  });
const version =
  /release ([\d.]+), V([\d.]+)/.exec(spawnSync('nvcc', ['--version'], { encoding: 'utf8' }).stdout)?.[2] ?? '?';
const spilled = new Set(spilling.map((s) => s.name)).size;
const found = spilled === 0 ? 'none of them spills' : `${spilled} of them spill`;
const text = `# Registers and spills of the CUDA kernels

Written by \`scripts/ptxas-report.mjs\` with nvcc ${version}: ${rows.size} kernels in ${sources.length} files,
${found}. A cell is registers per thread; \`st n\`: a stack frame of
n bytes without spills (an array indexed at run time); shared: bytes of static shared memory, what is asked for at
launch not counted.

| file | kernel | ${architectures.map((a) => `sm_${a}`).join(' | ')} | shared |
|---|---|${architectures.map(() => '---|').join('')}---|
${lines.join('\n')}
`;
if (filter === '') {
  const path = join(root, 'bench', 'results', 'ptxas.md');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.part`, text);
  renameSync(`${path}.part`, path);
} else process.stdout.write(text);
const wrong = spilling.filter((s) => !MAY_SPILL.has(s.name.replace(/<.*/, '')));
for (const s of wrong)
  process.stderr.write(`ptxas-report: ${s.source}: ${s.name} spills ${s.spill} bytes on sm_${s.arch}\n`);
process.exit(wrong.length > 0 ? 1 : 0);
