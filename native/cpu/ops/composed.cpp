// The ops that are several others in one (temper/composed.h), of the CPU's.
#include "temper/composed.h"

#include "cpu/ops.h"
#include "temper/memory.h"

namespace temper::cpu {
namespace {

#define TEMPER_PARTS(X) \
  X(rmsnorm_fwd)        \
  X(linear_fwd)         \
  X(linear_q8_fwd) X(rope) X(scatter_rows) X(topk_fwd) X(moe_plan) X(grouped_linear_fwd) X(swiglu_fwd) X(moe_combine)

struct Fast {
  using Room = Scratch<float>;
#define TEMPER_PART(name) static constexpr auto name = &cpu::name;
  TEMPER_PARTS(TEMPER_PART)
#undef TEMPER_PART
};
struct Plain {
  using Room = Scratch<float>;
#define TEMPER_PART(name) static constexpr auto name = &reference::name;
  TEMPER_PARTS(TEMPER_PART)
#undef TEMPER_PART
};

// Adds up what the parts take; workspace is what is held by the op itself and, beside it, by one part at a time.
thread_local Cost counted;
thread_local double own;
struct Counting {
  struct Room {
    explicit Room(size_t count) { own += static_cast<double>(count * sizeof(float)); }
    float* data() const { return no_memory(); }
  };
  static void add(const Cost& part) {
    counted.flops += part.flops;
    counted.bytes += part.bytes;
    counted.rows = std::max(counted.rows, part.rows);
    counted.workspace = std::max(counted.workspace, part.workspace);
  }
#define TEMPER_PART(name)              \
  template <class... A>                \
  static void name(A... a) {           \
    add(cost::name(args::name(a...))); \
  }
  TEMPER_PARTS(TEMPER_PART)
#undef TEMPER_PART
};
template <class Args>
Cost count(void (*run)(const Args&), const Args& a) {
  counted = {}, own = 0;
  run(a);
  counted.workspace += own;
  return counted;
}

}  // namespace

Cost cost::linear_qkv_fwd(const args::linear_qkv_fwd& a) { return count(&composed::linear_qkv_fwd<Counting>, a); }
Cost cost::linear_router_fwd(const args::linear_router_fwd& a) {
  return count(&composed::linear_router_fwd<Counting>, a);
}
Cost cost::grouped_linear_swiglu_fwd(const args::grouped_linear_swiglu_fwd& a) {
  Tensor act = *a.a, x = *a.x;  // as the parts see them
  act.dtype = x.dtype = DType::f32;
  args::grouped_linear_swiglu_fwd wide = a;
  wide.a = &act, wide.x = &x;
  Cost cost = count(&composed::grouped_linear_swiglu_fwd<Counting>, wide);
  cost.workspace += widened({a.a, a.x});
  return cost;
}
Cost cost::grouped_linear_combine_fwd(const args::grouped_linear_combine_fwd& a) {
  return count(&composed::grouped_linear_combine_fwd<Counting>, a);
}

#define TEMPER_COMPOSED(parts)                                                                                        \
  void linear_qkv_fwd(TensorRef q, TensorRef k, TensorRef v, TensorRef x, TensorRef norm, double eps, TensorRef wq,   \
                      TensorRef q_scales, TensorRef bq, TensorRef wk, TensorRef k_scales, TensorRef bk, TensorRef wv, \
                      TensorRef v_scales, TensorRef bv, TensorRef cos, TensorRef sin, TensorRef rows,                 \
                      int64_t precision) {                                                                            \
    composed::linear_qkv_fwd<parts>(                                                                                  \
        {q, k, v, x, norm, eps, wq, q_scales, bq, wk, k_scales, bk, wv, v_scales, bv, cos, sin, rows, precision});    \
  }                                                                                                                   \
  void linear_router_fwd(TensorRef sum, TensorRef xn, TensorRef weights, TensorRef ids, TensorRef offsets,            \
                         TensorRef row_token, TensorRef slot_row, TensorRef row_weight, TensorRef x,                  \
                         TensorRef residual, TensorRef norm, double eps, TensorRef w, TensorRef bias,                 \
                         int64_t precision) {                                                                         \
    composed::linear_router_fwd<parts>({sum, xn, weights, ids, offsets, row_token, slot_row, row_weight, x, residual, \
                                        norm, eps, w, bias, precision});                                              \
  }                                                                                                                   \
  void grouped_linear_swiglu_fwd(TensorRef a, TensorRef z, TensorRef h, TensorRef x, TensorRef rows,                  \
                                 TensorRef offsets, TensorRef w, TensorRef scales, TensorRef bias, TensorRef A,       \
                                 TensorRef B, double scale, double alpha, double limit, int64_t layout,               \
                                 int64_t precision, int64_t by_row) {                                                 \
    composed::grouped_linear_swiglu_fwd<parts>(                                                                       \
        {a, z, h, x, rows, offsets, w, scales, bias, A, B, scale, alpha, limit, layout, precision, by_row});          \
  }                                                                                                                   \
  void grouped_linear_combine_fwd(TensorRef out, TensorRef x, TensorRef offsets, TensorRef w, TensorRef scales,       \
                                  TensorRef bias, TensorRef weights, TensorRef slot_row, int64_t layout,              \
                                  int64_t precision) {                                                                \
    composed::grouped_linear_combine_fwd<parts>(                                                                      \
        {out, x, offsets, w, scales, bias, weights, slot_row, layout, precision});                                    \
  }
TEMPER_COMPOSED(Fast)
namespace reference {
TEMPER_COMPOSED(Plain)
}  // namespace reference

}  // namespace temper::cpu
