// Devices as TypeScript sees them: places of tensors, memory under a limit, and every way in which a device can be
// refused.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { backendReports, deviceMemory, openDevice, synchronize } from '../../src/native/device.js';
import { ops } from '../../src/native/ops.js';
import { resetPeaks, Scope } from '../../src/native/tensor.js';
import { emulatedLibrary } from './emulated.js';

const failure = (f: () => unknown): { code: string; message: string } => {
  try {
    f();
  } catch (e) {
    return e as { code: string; message: string };
  }
  throw new Error('it did not fail');
};
const MIB = 2 ** 20;

/** What opening gives in a process of its own, whose environment and device are still untouched. */
function opening(device: string, env: Record<string, string>): string {
  const code =
    `import(${JSON.stringify(join(packageRoot, 'dist/native/device.js'))}).then((d) => { try ` +
    `{ console.log(d.openDevice(${JSON.stringify(device)})); } catch (e) { console.log(e.code ` +
    `+ ': ' + e.message); } });`;
  const { TEMPER_CUDA_LIBRARY: _own, ...rest } = process.env;
  const child = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', env: { ...rest, ...env } });
  return child.stdout.trim() || child.stderr;
}

describe('opening a device', () => {
  it('needs the library, and one of this version', () => {
    const folder = mkdtempSync(join(tmpdir(), 'temper-cuda-'));
    const text = join(folder, 'text.so');
    writeFileSync(text, 'no library');
    expect(opening('cuda', { TEMPER_CUDA_LIBRARY: join(folder, 'absent.so') })).toMatch(
      /^cuda_library_missing: .*absent\.so.*npx temper build-native --cuda/,
    );
    expect(opening('cuda', { TEMPER_CUDA_LIBRARY: text })).toMatch(/^cuda_library_missing: /);
    const other = join(folder, 'other.so');
    writeFileSync(join(folder, 'other.c'), 'int unrelated(void) { return 0; }\n');
    expect(spawnSync('cc', ['-shared', '-fPIC', '-o', other, join(folder, 'other.c')]).status).toBe(0);
    expect(opening('cuda', { TEMPER_CUDA_LIBRARY: other })).toMatch(/^cuda_library_version: .*build-native --cuda/);
  });

  it('takes the name of a device that is there', () => {
    expect(opening('cpu', {})).toBe('cpu');
    expect(opening('cuda:0', { TEMPER_CUDA_LIBRARY: emulatedLibrary })).toBe('cuda');
    expect(opening('cuda:5', { TEMPER_CUDA_LIBRARY: emulatedLibrary })).toMatch(
      /^bad_device: device 5 was asked for, there is 0: /,
    );
    expect(opening('gpu', {})).toMatch(/^bad_device: device "gpu", wanted auto, cpu, cuda or cuda:N$/);
  });

  it('is not needed before it is asked for', () => {
    const code =
      `import(${JSON.stringify(join(packageRoot, 'dist/native/tensor.js'))}).then(({ Scope }) ` +
      `=> { try { new Scope('kv', 'cuda').empty('f32', [1]); } catch (e) { console.log(e.code); ` +
      '} });';
    expect(spawnSync(process.execPath, ['-e', code], { encoding: 'utf8' }).stdout.trim()).toBe('no_device');
  });
});

describe('an open device', () => {
  beforeAll(() => {
    openDevice('cuda', 256 * MIB);
  });

  it('is reported', () => {
    const reports = backendReports();
    expect(reports).toMatchObject([{ backend: 'cuda', library: emulatedLibrary, built: true, problem: null }]);
    expect(reports[0]?.devices).toMatchObject([{ index: 0, major: 9 }]);
  });

  it('holds tensors of every dtype and gives their bytes back', () => {
    using s = new Scope('activations', 'cuda');
    using h = new Scope('activations');
    expect(s.open().place).toBe('cuda');
    const i32 = s.from(Int32Array.of(1, -2, 3)),
      u8 = s.from(Uint8Array.of(7, 8)),
      f32 = s.from(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3]),
      bf16 = s.empty('bf16', [2]).write(Uint16Array.of(0x3f80, 0xc000));
    expect(i32.read()).toEqual(Int32Array.of(1, -2, 3));
    expect(u8.read()).toEqual(Uint8Array.of(7, 8));
    expect(bf16.read()).toEqual(Uint16Array.of(0x3f80, 0xc000));
    const row = f32.slice(s, 1, 2);
    expect(row.place).toBe('cuda');
    expect(row.read()).toEqual(Float32Array.of(4, 5, 6));
    expect(h.empty('f32', [3]).copy(row).read()).toEqual(Float32Array.of(4, 5, 6));
    row.copy(h.from(Float32Array.of(9, 9, 9)));
    expect(f32.read()).toEqual(Float32Array.of(1, 2, 3, 9, 9, 9));
    expect(s.empty('f32', [3]).copy(row).read()).toEqual(Float32Array.of(9, 9, 9));
    expect(s.zeros('f32', [4]).read()).toEqual(new Float32Array(4));
    expect(s.empty('f32', [0]).read()).toEqual(new Float32Array(0));
    expect(failure(() => row.copy(i32)).code).toBe('shape_mismatch');
  });

  it('refuses an op whose tensors lie in two places, naming the argument', () => {
    using s = new Scope('activations', 'cuda');
    using h = new Scope('activations');
    const error = failure(() => ops.add(s.zeros('f32', [4]), h.zeros('f32', [4])));
    expect(error).toMatchObject({ code: 'wrong_device' });
    expect(error.message).toMatch(/^add: src lies on the host, dst on the device/);
  });

  it('says what a kernel found wrong when the result is read, in the words of the CPU, once', () => {
    using s = new Scope('activations', 'cuda');
    using h = new Scope('activations');
    const call = (scope: Scope): void => {
      const dst = scope.empty('f32', [2, 2]);
      ops.gather_rows(dst, scope.zeros('f32', [3, 2]), scope.from(Int32Array.of(1, 5)));
      dst.read();
    };
    const there = failure(() => call(s)),
      here = failure(() => call(h));
    expect(there).toMatchObject({ code: 'bad_index', message: here.message });
    synchronize();
  });

  it("counts its memory by category, apart from the host's", () => {
    using s = new Scope('kv', 'cuda');
    const before = deviceMemory();
    resetPeaks();
    s.empty('f32', [MIB]);
    const now = deviceMemory();
    expect(now.live.kv - before.live.kv).toBe(4 * MIB);
    s.close();
    expect(deviceMemory()).toMatchObject({ live: before.live, limit: 256 * MIB });
    expect(deviceMemory().peak.kv).toBe(before.live.kv + 4 * MIB);
  });

  it('keeps to its limit and says what is in the way', () => {
    using s = new Scope('weights', 'cuda');
    s.empty('u8', [150 * MIB]);
    const error = failure(() => s.empty('u8', [120 * MIB], 'activations'));
    expect(error.code).toBe('out_of_device_memory');
    expect(error.message).toMatch(
      /120 MiB of activations do not fit: in use weights 150 MiB; held \d+ MiB of a limit of 256 MiB.*--memory-limit/,
    );
    expect(deviceMemory().held).toBeLessThanOrEqual(256 * MIB);
    expect(failure(() => openDevice('cuda:1')).code).toBe('device_open');
  });
});
