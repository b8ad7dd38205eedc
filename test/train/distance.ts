/** The largest |got − want| over the largest |want|; NaN where there is one. */
export function distance(got: Float32Array | undefined, want: Float32Array | undefined): number {
  let [off, size] = [0, 0];
  want?.forEach((w, i) => {
    const d = Math.abs(w - (got?.[i] ?? Number.NaN));
    if (!(d <= off)) off = d; // NaN too
    size = Math.max(size, Math.abs(w));
  });
  return off / size;
}
