// Dry runs: the binding, its contracts and its places as ever, on tensors without memory.
import { describe, expect, it } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { Graph } from '../../src/native/graph.js';
import { ops } from '../../src/native/ops.js';
import { dryRun, type PlannedTensor } from '../../src/native/plan.js';
import { memoryStats, Scope, type Tensor } from '../../src/native/tensor.js';

const GIB = 2 ** 30;
const code = (wanted: string) => expect.objectContaining({ code: wanted });

describe('tensors of a dry run', () => {
  it('have addresses and no memory: a terabyte costs nothing here and is counted there', () => {
    const before = memoryStats().totalLive;
    const { report, value } = dryRun(() => {
      using s = new Scope('weights');
      using other = new Scope('kv', 'cuda');
      const big = s.empty('f32', [1024, 1024, 1024, 256]);
      other.empty('bf16', [GIB]);
      expect(memoryStats().totalLive).toBe(before);
      return big.hasContents;
    });
    expect(value).toBe(false);
    expect(report.peak.weights).toBe(1024 * GIB);
    expect(report.totalPeak).toBe(1024 * GIB);
    expect(report.device).toMatchObject({ totalPeak: 2 * GIB, peak: { kv: 2 * GIB, weights: 0 } });
    using s = new Scope();
    expect(s.empty('f32', [1]).hasContents).toBe(true);
  });
  it('keep what was written and is short, until an op writes them', () => {
    dryRun(() => {
      using s = new Scope();
      const ids = s.from(Int32Array.of(5, 6, 7));
      expect([...ids.slice(s, 1, 3).read()]).toEqual([6, 7]);
      ops.topk_fwd(s.empty('f32', [1, 3]), ids.view(s, [1, 3]), s.empty('f32', [1, 8]));
      expect([...ids.read()]).toEqual([0, 0, 0]);
      expect([...s.empty('f32', [2]).read()]).toEqual([0, 0]);
    });
  });
  it('end with it', () => {
    let left: Tensor | null = null;
    const s = new Scope();
    dryRun(() => {
      left = s.empty('f32', [4]);
    });
    const t = left as unknown as Tensor;
    expect([...t.read()]).toEqual([0, 0, 0, 0]);
    expect(() => ops.fill(t, 1)).toThrow(code('plan_over'));
    s.close();
  });
});

describe('ops of a dry run', () => {
  it('pass their contracts and say their cost', () => {
    const { report } = dryRun(() => {
      using s = new Scope();
      const f = (...n: number[]) => s.empty('f32', n);
      expect(() => ops.linear_fwd(f(1, 2), null, f(1, 3), f(2, 4), null, null, null, 1, 0, 0, 0, 0)).toThrow(
        code('shape_mismatch'),
      );
      ops.linear_fwd(f(7, 2), null, f(7, 3), f(2, 3), null, null, null, 1, 0, 0, 0, 0);
    });
    expect(report.ops).toHaveLength(1);
    expect(report.ops[0]).toMatchObject({
      op: 'linear_fwd',
      cost: { flops: 2 * 7 * 2 * 3, bytes: 4 * (14 + 21 + 6), rows: 7 },
    });
    expect(report.ops[0]?.cost.workspace).toBeGreaterThan(0);
    expect(report.ops[0]?.args.slice(0, 2)).toEqual([{ dtype: 0, shape: [7, 2], indices: null }, null]);
    expect(report.ops[0]?.args.slice(6)).toEqual([null, 1, 0, 0, 0, 0]); // a null tensor is no 0
  });
  it('say what their index tensors may hold, as the table has it', () => {
    const { report } = dryRun(() => {
      using s = new Scope();
      const f = (...n: number[]) => s.empty('f32', n),
        i = (...n: number[]) => s.empty('i32', n);
      ops.grouped_linear_fwd(f(8, 2), null, f(5, 3), i(8), i(4), f(3, 2, 3), null, null, null, null, 1, 1, 0, 0);
      ops.gather_rows(f(2, 3), f(9, 3), s.from(Int32Array.of(4, 4)));
    });
    const indices = report.ops.map((c) =>
      c.args.flatMap((a) => (a && typeof a === 'object' && a.dtype === 2 ? [(a as PlannedTensor).indices] : [])),
    );
    expect(indices).toEqual([[{ below: 5 }, { risingTo: 8 }], [Int32Array.of(4, 4)]]);
  });
  it('run where their tensors lie, on a device that is not there too; what may not mix does not', () => {
    const { report } = dryRun(() => {
      using host = new Scope();
      using device = new Scope('activations', 'cuda');
      ops.add(device.empty('f32', [4]), device.empty('f32', [4]));
      expect(() => ops.add(device.empty('f32', [4]), host.empty('f32', [4]))).toThrow(code('wrong_device'));
      ops.embedding_fwd(device.empty('f32', [2, 64]), host.empty('bf16', [9, 64]), device.empty('i32', [2]));
    });
    expect(report.ops.map((c) => c.op)).toEqual(['add', 'embedding_fwd']);
    expect(report.peak.workspace).toBe(2 * 64 * 4 + 2 * 4); // rows and ids on their way
  });
  it('are recorded and launched; memory of a recording is used again', () => {
    const { report } = dryRun(() => {
      using outside = new Scope();
      const x = outside.empty('f32', [1000]);
      using graph = Graph.record(() => {
        for (let n = 0; n < 3; n++) {
          using s = new Scope('workspace');
          ops.add(s.empty('f32', [1000]), x);
        }
        expect(() => x.write(new Float32Array(1000))).toThrow(code('graph_recording'));
      }, 'cpu');
      graph.launch();
      graph.launch();
    });
    expect(report.ops.map((c) => c.op)).toEqual(Array(6).fill('add'));
    expect(report.totalPeak).toBe(2 * 4000);
  });
  it('cost their workspace at the peak, beside what is live', () => {
    const { report } = dryRun(() => {
      using s = new Scope();
      const x = s.empty('f32', [1 << 20]);
      ops.sum_squares(s.empty('f32', [1]), x);
    });
    expect(report.peak.workspace).toBe(report.ops[0]?.cost.workspace);
    expect(report.totalPeak).toBe(4 * ((1 << 20) + 1) + report.peak.workspace);
  });
});

it('is one at a time, and over when its body throws', () => {
  expect(() => dryRun(() => dryRun(() => 0))).toThrow(code('plan_running'));
  const wrong = new Error('of the body');
  expect(() =>
    dryRun(() => {
      throw wrong;
    }),
  ).toThrow(wrong);
  expect(() => addon.endPlan()).toThrow(code('bad_argument'));
  using s = new Scope();
  const x = s.from(Float32Array.of(1, 2));
  ops.add(x, s.from(Float32Array.of(1, 1)));
  expect([...x.read()]).toEqual([2, 3]);
});
