// Rotary frequencies against the check values of the released config (facts: gpt-oss, C4), and the defaults.
import { expect, it } from 'vitest';
import { layerWindow, parseConfig, ropeParameters } from '../../src/model/config.js';
import { PRESETS } from '../../src/model/init.js';

it('YaRN frequencies of the released models', () => {
  const { invFreq, concentration } = ropeParameters(PRESETS['20b']);
  const want: [number, number][] = [
    [0, 1],
    [8, 5.081327482e-2],
    [9, 3.170569618e-2],
    [10, 1.933500113e-2],
    [12, 6.79495949e-3],
    [14, 2.093792379e-3],
    [16, 4.564839192e-4],
    [17, 1.293187012e-4],
    [18, 3.830881237e-5],
    [31, 3.023511428e-7],
  ];
  expect(invFreq).toHaveLength(32);
  for (const [j, f] of want) expect(Math.abs((invFreq[j] ?? 0) / f - 1), `j=${j}`).toBeLessThan(3e-7);
  expect(concentration).toBe(1.3465735902799727);
});

it('reads rope_parameters of transformers 5 as rope_scaling, and takes its defaults', () => {
  const old = PRESETS['20b'];
  const { rope_theta, rope_scaling, ...rest } = old;
  expect(ropeParameters(parseConfig({ ...rest, rope_parameters: { ...rope_scaling, rope_theta } }))).toEqual(
    ropeParameters(old),
  );
  // neither: the class default is the released one
  expect(ropeParameters(parseConfig(rest))).toEqual(ropeParameters(old));
  const truncated = ropeParameters(
    parseConfig({ ...rest, rope_parameters: { ...rope_scaling, rope_theta, truncate: true } }),
  ).invFreq;
  // the error of implementations that round the bounds
  expect((truncated[17] ?? 0) / (ropeParameters(old).invFreq[17] ?? 1) - 1).toBeCloseTo(0.763, 3);
  expect(
    ropeParameters(parseConfig({ ...rest, rope_parameters: { rope_type: 'default', rope_theta: 100 } })),
  ).toMatchObject({ concentration: 1 });
});

it('layers alternate from a window layer on unless layer_types says otherwise', () => {
  expect([0, 1, 2].map((i) => layerWindow(PRESETS['20b'], i))).toEqual([128, 0, 128]);
  const c = {
    ...PRESETS.nano,
    num_hidden_layers: 2,
    layer_types: ['full_attention', 'sliding_attention'] as ('full_attention' | 'sliding_attention')[],
  };
  expect([0, 1].map((i) => layerWindow(c, i))).toEqual([0, 64]);
});
