// Rotary frequencies against the check values of the released config (facts: gpt-oss, C4), and the defaults.
import { describe, expect, it } from 'vitest';
import { TemperError } from '../../src/base/errors.js';
import { CONFIG_FIELDS, layerWindow, parseConfig, ropeParameters } from '../../src/model/config.js';
import { MUST_BE, WITHOUT_EFFECT } from '../../src/model/config-keys.js';
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

describe('a config.json that would mean another model', () => {
  const released = {
    architectures: ['GptOssForCausalLM'],
    ...PRESETS['20b'],
    attention_dropout: 0,
    initializer_range: 0.02,
    output_router_logits: false,
    router_aux_loss_coef: 0.9,
    use_cache: true,
    transformers_version: '4.55.0.dev0',
    quantization_config: {
      quant_method: 'mxfp4',
      modules_to_not_convert: [
        'model.layers.*.self_attn',
        'model.layers.*.mlp.router',
        'model.embed_tokens',
        'lm_head',
      ],
    },
  } as Record<string, unknown>;
  /** What parsing refuses; null: it is read. */
  const refused = (change: Record<string, unknown>): { readonly code: string; readonly message: string } | null => {
    try {
      parseConfig({ ...released, ...change });
      return null;
    } catch (e) {
      if (!(e instanceof TemperError)) throw e;
      return { code: e.code, message: e.message };
    }
  };
  const yarn = PRESETS['20b'].rope_scaling as Record<string, unknown>;

  it('every key, with a value it never has, is refused or stands on the list of those without effect', () => {
    const odd = { of: 'no such setting' };
    let swept = 0;
    const keys = new Set([...Object.keys(released), ...Object.keys(CONFIG_FIELDS), ...Object.keys(MUST_BE)]);
    for (const key of [...keys, ...Object.keys(WITHOUT_EFFECT)]) {
      const e = refused({ [key]: odd });
      expect(e === null, `${key}: ${e?.message}`).toBe(Object.hasOwn(WITHOUT_EFFECT, key));
      swept++;
    }
    expect(swept).toBeGreaterThan(80);
    expect(refused({})).toBeNull();
  });
  it.each(['norm_topk_prob', 'scoring_func', 'shared_expert_intermediate_size', 'constructor', 'rope_scale'])(
    'an unknown key is refused by name: %s',
    (key) => expect(refused({ [key]: 1 })?.message).toMatch(new RegExp(`${key} is not known here`)),
  );

  it.each<[Record<string, unknown>, string]>([
    [{ vocab_size: 0 }, 'vocab_size: wanted an integer from 1, got 0'],
    [{ vocab_size: 1.5 }, 'vocab_size: wanted an integer from 1, got 1.5'],
    [{ vocab_size: undefined }, 'vocab_size: wanted an integer from 1, got nothing'],
    [{ num_hidden_layers: 1025 }, 'num_hidden_layers: wanted an integer from 1 to 1024, got 1025'],
    [{ pad_token_id: '1' }, 'pad_token_id: wanted an integer, got "1"'],
    [{ rms_norm_eps: 0 }, 'rms_norm_eps: wanted a number above 0, got 0'],
    [{ rms_norm_eps: Number.NaN }, 'rms_norm_eps: wanted a number above 0, got null'],
    [{ swiglu_limit: null }, 'swiglu_limit: wanted a number above 0, got null'],
    [{ attention_bias: 'true' }, 'attention_bias: wanted a boolean, got "true"'],
    [{ hidden_act: 1 }, 'hidden_act: wanted a string, got 1'],
    [{ rope_scaling: [] }, 'rope_scaling: wanted an object, got []'],
    [{ eos_token_id: [1, 'x'] }, 'eos_token_id: wanted a token id or a list of them, got [1,"x"]'],
    [
      { layer_types: ['linear_attention'] },
      'layer_types: wanted a list of "sliding_attention" and "full_attention", got ["linear_attention"]',
    ],
    [{ rope_scaling: { ...yarn, factor: -1 } }, 'rope_scaling.factor: wanted a number above 0, got -1'],
    [{ rope_scaling: { ...yarn, truncate: null } }, 'rope_scaling.truncate: wanted a boolean, got null'],
  ])('a field that is not what it may be is told with what it is: %j', (change, message) => {
    expect(refused(change)?.message).toContain(message);
  });
  const without = { rope_scaling: undefined, rope_theta: undefined };
  const theta = { ...yarn, rope_theta: 150000 };
  it.each<[string, Record<string, unknown>, RegExp]>([
    ['a part of the head that turns', { partial_rotary_factor: 0.5 }, /partial_rotary_factor is 0.5, wanted 1/],
    ['the same in rope', { rope_scaling: { ...yarn, partial_rotary_factor: 0.5 } }, /partial_rotary_factor/],
    ['an unknown type', { rope_scaling: { ...yarn, rope_type: 'longrope' } }, /rope_type/],
    ['an unknown setting', { rope_scaling: { ...yarn, long_factor: [1] } }, /unknown key long_factor/],
    ['two types', { rope_scaling: { ...yarn, type: 'default' } }, /contradicts rope_type/],
    ['a scaling without its type', { rope_scaling: { factor: 32 } }, /rope_type is default/],
    ['null', { rope_scaling: null }, /rope_scaling is null/],
    [
      'settings per kind of layer that differ',
      { ...without, rope_parameters: { full_attention: theta, sliding_attention: { ...theta, factor: 1 } } },
      /settings of its own for full_attention, sliding_attention/,
    ],
    [
      'settings below an unknown name',
      { ...without, rope_parameters: { global: theta } },
      /settings of its own for global/,
    ],
    ['nested and not', { ...without, rope_parameters: { ...theta, full_attention: theta } }, /settings of its own/],
    [
      'nested twice',
      { ...without, rope_parameters: { full_attention: { full_attention: { ...theta, x: 1 } } } },
      /unknown key x/,
    ],
    ['a list', { ...without, rope_parameters: [32] }, /rope/],
    ['two factors', { rope_parameters: { ...theta, factor: 8 } }, /factor 32 contradicts/],
    ['two betas', { rope_parameters: { ...theta, beta_fast: 8 } }, /beta_fast 32 contradicts/],
    ['another first context', { initial_context_length: 8192 }, /initial_context_length 8192 contradicts/],
    ['no window', { sliding_window: null }, /sliding_window is null/],
    ['no windows at all', { use_sliding_window: false }, /use_sliding_window is false/],
    ['heads cut away', { pruned_heads: { 0: [1] } }, /pruned_heads/],
    ['a classifier', { architectures: ['GptOssForSequenceClassification'] }, /architectures/],
    ['code of its own', { auto_map: { AutoModel: 'x.Y' } }, /auto_map/],
    ['bitsandbytes', { quantization_config: { quant_method: 'bitsandbytes' } }, /quantised anew by bitsandbytes/],
    ['gptq', { quantization_config: { quant_method: 'gptq' } }, /quantised anew by gptq/],
    ['a quantisation without a name', { quantization_config: {} }, /quantised anew/],
    ['a setting of mxfp4', { quantization_config: { quant_method: 'mxfp4', bits: 3 } }, /quantization_config\.bits/],
    ['MLX', { quantization: { group_size: 32, bits: 4 } }, /of MLX/],
    ['another model', { model_type: 'llama' }, /model_type is "llama"/],
    ['an adapter', { peft_type: 'LORA' }, /configuration of a PEFT adapter/],
  ])('%s', (_, change, message) => {
    const e = refused(change);
    expect(e?.message).toMatch(message);
    expect(e?.code).toBe('bad_config');
  });
  it("original/'s own keys are told", () => {
    expect(() =>
      parseConfig({ num_hidden_layers: 4, num_experts: 8, experts_per_token: 2, rope_ntk_alpha: 1 }),
    ).toThrow(/OpenAI's own layout/);
  });
  it('what says the same in another way is read as it was meant', () => {
    const plain = ropeParameters(parseConfig(released));
    const nested = { full_attention: theta, sliding_attention: { rope_theta: 150000, ...yarn } };
    expect(ropeParameters(parseConfig({ ...released, ...without, rope_parameters: nested }))).toEqual(plain);
    const { num_experts_per_tok: _, ...rest } = released;
    expect(parseConfig({ ...rest, experts_per_token: 4 }).num_experts_per_tok).toBe(4);
    expect(parseConfig({ ...rest, experts_per_token: 3 }).num_experts_per_tok).toBe(3);
    expect(layerWindow(parseConfig({ ...released, layer_types: null }), 1)).toBe(0);
    expect(
      refused({ partial_rotary_factor: 1, pruned_heads: {}, rope_scaling: { ...yarn, finetuned: true } }),
    ).toBeNull();
  });
});
