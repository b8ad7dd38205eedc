// The ops that are several others in one, said in terms of those: what runs where a backend has no kernel of its own
// for them, and to the bit what its kernel leaves where it has one. `Parts` names a backend's ops and its workspace,
// `Room` for floats.
#pragma once
#include <algorithm>
#include <cstdint>

#include "temper/ops.h"

namespace temper::composed {

inline Tensor matrix(float* data, int64_t rows, int64_t width) { return {data, DType::f32, 2, {rows, width, 1, 1}}; }
inline Tensor vector(float* data, int64_t n) { return {data, DType::f32, 1, {n, 1, 1, 1}}; }

template <class Parts>
void linear(TensorRef y, TensorRef x, TensorRef w, TensorRef scales, TensorRef bias, int64_t precision) {
  if (scales) Parts::linear_q8_fwd(y, nullptr, x, w, scales, bias, nullptr, nullptr, 0, precision, 1);
  else Parts::linear_fwd(y, nullptr, x, w, bias, nullptr, nullptr, 0, 0, 0, precision, 1);
}

template <class Parts>
void linear_qkv_fwd(const args::linear_qkv_fwd& a) {
  const int64_t T = a.x->shape[0], D = a.x->shape[1], H = a.q->shape[1], Hkv = a.k->shape[1], Dh = a.q->shape[2];
  const typename Parts::Room xn_room(static_cast<size_t>(T * D)), rstd_room(static_cast<size_t>(T)),
      kv_room(static_cast<size_t>(T * Hkv * Dh));
  const Tensor xn = matrix(xn_room.data(), T, D), rstd = vector(rstd_room.data(), T), q = matrix(a.q->f32(), T, H * Dh),
               kv = matrix(kv_room.data(), T, Hkv * Dh), heads{kv.data, DType::f32, 3, {T, Hkv, Dh, 1}};
  Parts::rmsnorm_fwd(&xn, &rstd, nullptr, a.x, nullptr, a.norm, a.eps);
  linear<Parts>(&q, &xn, a.wq, a.q_scales, a.bq, a.precision);
  Parts::rope(a.q, a.cos, a.sin, H, 1);
  linear<Parts>(&kv, &xn, a.wk, a.k_scales, a.bk, a.precision);
  Parts::rope(&heads, a.cos, a.sin, Hkv, 1);
  Parts::scatter_rows(a.k, &heads, a.rows);
  linear<Parts>(&kv, &xn, a.wv, a.v_scales, a.bv, a.precision);
  Parts::scatter_rows(a.v, &heads, a.rows);
}

template <class Parts>
void linear_router_fwd(const args::linear_router_fwd& a) {
  const int64_t T = a.x->shape[0], E = a.w->shape[0];
  const typename Parts::Room rstd_room(static_cast<size_t>(T)), logits_room(static_cast<size_t>(T * E));
  const Tensor rstd = vector(rstd_room.data(), T), logits = matrix(logits_room.data(), T, E);
  Parts::rmsnorm_fwd(a.xn, &rstd, a.sum, a.x, a.residual, a.norm, a.eps);
  linear<Parts>(&logits, a.xn, a.w, nullptr, a.bias, a.precision);
  Parts::topk_fwd(a.weights, a.ids, &logits);
  Parts::moe_plan(a.offsets, a.row_token, a.slot_row, a.row_weight, a.ids, a.weights);
}

template <class Parts>
void grouped_linear_swiglu_fwd(const args::grouped_linear_swiglu_fwd& a) {
  const int64_t P = a.a->shape[0], F = a.a->shape[1];
  const typename Parts::Room z_room(static_cast<size_t>(a.z ? 0 : P * 2 * F));
  const Tensor own = matrix(z_room.data(), P, 2 * F);
  const TensorRef z = a.z ? a.z : &own;
  Parts::grouped_linear_fwd(z, a.h, a.x, a.rows, a.offsets, a.w, a.scales, a.bias, a.A, a.B, a.scale, a.layout,
                            a.precision, a.by_row);
  Parts::swiglu_fwd(a.a, z, a.alpha, a.limit);
}

template <class Parts>
void grouped_linear_combine_fwd(const args::grouped_linear_combine_fwd& a) {
  const int64_t P = a.x->shape[0], D = a.out->shape[1];
  const typename Parts::Room y_room(static_cast<size_t>(P * D));
  const Tensor y = matrix(y_room.data(), P, D);
  Parts::grouped_linear_fwd(&y, nullptr, a.x, nullptr, a.offsets, a.w, a.scales, a.bias, nullptr, nullptr, 0, a.layout,
                            a.precision, 1);
  Parts::moe_combine(a.out, &y, a.weights, a.slot_row, 1);
}

}  // namespace temper::composed
