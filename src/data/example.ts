// What every dataset row becomes: tokens, and for each the weight of predicting it. The trainer knows nothing else of data.

/** weights[i] is the loss weight of predicting tokens[i] from tokens[0…i−1]; weights[0] is never used. Same length. */
export interface Example {
  readonly tokens: Int32Array;
  readonly weights: Float32Array;
  /** For error messages: file and line (from 1). */
  readonly source: { readonly file: string; readonly line: number };
}
