// Ops with tensors in both places. The embedding table is large and read by a few rows, so it may stay where the file
// maps it; its rows are gathered by the CPU. The optimizer's moments are read and written once a step, so they may stay
// in host memory.
#include <algorithm>
#include <cstring>

#include "binding/device.h"
#include "cpu/ops.h"
#include "temper/moment_codes.h"

namespace temper::binding {
namespace {

constexpr int64_t kStageElements = int64_t{1} << 22;

// An argument's values in host memory.
template <class T>
class OnHost {
 public:
  OnHost(const TemperBackend& backend, TensorRef t, bool on_device)
      : copy_(on_device ? static_cast<size_t>(t->numel()) : 0), tensor_(*t) {
    if (!on_device) return;
    must(backend, backend.download(copy_.data(), t->data, t->bytes()));
    tensor_.data = copy_.data();
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  Scratch<T> copy_;
  Tensor tensor_;
};

int64_t rows_at_once(const Tensor& y) {
  return std::min(y.shape[0], std::max<int64_t>(1, kStageElements / std::max<int64_t>(1, y.shape[1])));
}
size_t embedding_fwd_bytes(const TensorRef* t, const bool* on_device, const double* n) {
  using Args = args::embedding_fwd;
  const Args a = Args::of(t, n);
  return (on_device[Args::at_ids] ? a.ids->bytes() : 0) +
         static_cast<size_t>(rows_at_once(*a.y) * a.y->shape[1]) * sizeof(float);
}
// y on the device, the table on the host, ids anywhere.
void embedding_fwd(const TemperBackend& backend, const TensorRef* t, const bool* on_device, const double* n) {
  using Args = args::embedding_fwd;
  const Args a = Args::of(t, n);
  const Tensor& y = *a.y;
  const OnHost<int32_t> ids(backend, a.ids, on_device[Args::at_ids]);
  const int64_t T = y.shape[0], D = y.shape[1], step = rows_at_once(y);
  Scratch<float> rows(static_cast<size_t>(step * D));
  for (int64_t from = 0; from < T; from += step) {
    Tensor part = y, some = ids.tensor();
    part.data = rows.data();
    part.shape[0] = some.shape[0] = std::min(step, T - from);
    some.data = some.i32() + from;
    if (cpu::table().embedding_fwd(&part, a.table, &some)) throw Error(last_error());
    must(backend, backend.upload(y.f32() + from * D, rows.data(), part.bytes()));
  }
}

int64_t elements_at_once(const Tensor& p) { return std::min(p.numel(), kStageElements); }
size_t adamw_bytes(const TensorRef* t, const bool*, const double* n) {
  return static_cast<size_t>(2 * elements_at_once(*args::adamw::of(t, n).p)) * sizeof(float);
}
// p and g on the device, the moments on the host: two thirds of the optimizer's memory leave the device for three
// crossings of the bus per element and step. The CPU computes, so the result is the CPU's.
void adamw(const TemperBackend& backend, const TensorRef* t, const bool* on_device, const double* n) {
  using Args = args::adamw;
  const Args a = Args::of(t, n);
  require(!on_device[Args::at_m] && !on_device[Args::at_v] && on_device[Args::at_p] && on_device[Args::at_g],
          "wrong_device", "adamw: wanted p and g on the device, m and v both on the host or all on the device");
  const int64_t count = a.p->numel();
  Scratch<float> values(static_cast<size_t>(2 * elements_at_once(*a.p)));
  for (int64_t from = 0; from < count; from += kStageElements) {
    const int64_t size = std::min(kStageElements, count - from);
    Tensor p{values.data(), DType::f32, 1, {size}}, g{values.data() + size, DType::f32, 1, {size}}, m = p, v = p;
    m.data = a.m->f32() + from;
    v.data = a.v->f32() + from;
    must(backend, backend.download(p.data, a.p->f32() + from, p.bytes()));
    must(backend, backend.download(g.data, a.g->f32() + from, g.bytes()));
    if (cpu::table().adamw(&p, &m, &v, &g, a.lr, a.beta1, a.beta2, a.eps, a.weight_decay, a.step, a.grad_scale))
      throw Error(last_error());
    must(backend, backend.upload(a.p->f32() + from, p.data, p.bytes()));
  }
}

size_t adamw_8bit_bytes(const TensorRef* t, const bool*, const double* n) {
  return static_cast<size_t>(2 * elements_at_once(*args::adamw_8bit::of(t, n).p)) * sizeof(float);
}
// The same, whose pieces are whole blocks.
void adamw_8bit(const TemperBackend& backend, const TensorRef* t, const bool* on_device, const double* n) {
  using Args = args::adamw_8bit;
  static_assert(kStageElements % moments::kBlock == 0);
  const Args a = Args::of(t, n);
  require(!on_device[Args::at_m] && !on_device[Args::at_v] && !on_device[Args::at_m_scales] &&
              !on_device[Args::at_v_scales] && on_device[Args::at_p] && on_device[Args::at_g],
          "wrong_device",
          "adamw_8bit: wanted p and g on the device, codes and scales all on the host or all on the device");
  const int64_t count = a.p->numel();
  Scratch<float> values(static_cast<size_t>(2 * elements_at_once(*a.p)));
  for (int64_t from = 0; from < count; from += kStageElements) {
    const int64_t size = std::min(kStageElements, count - from), block = from / moments::kBlock,
                  blocks = (size + moments::kBlock - 1) / moments::kBlock;
    Tensor p{values.data(), DType::f32, 1, {size}}, g{values.data() + size, DType::f32, 1, {size}},
        m{a.m->u8() + from, DType::u8, 1, {size}}, v{a.v->u8() + from, DType::u8, 1, {size}},
        m_scales{a.m_scales->f32() + block, DType::f32, 1, {blocks}},
        v_scales{a.v_scales->f32() + block, DType::f32, 1, {blocks}};
    must(backend, backend.download(p.data, a.p->f32() + from, p.bytes()));
    must(backend, backend.download(g.data, a.g->f32() + from, g.bytes()));
    if (cpu::table().adamw_8bit(&p, &m, &v, &m_scales, &v_scales, &g, a.lr, a.beta1, a.beta2, a.eps, a.weight_decay,
                                a.step, a.grad_scale))
      throw Error(last_error());
    must(backend, backend.upload(a.p->f32() + from, p.data, p.bytes()));
  }
}

constexpr MixedOp kMixed[] = {{"embedding_fwd", embedding_fwd, embedding_fwd_bytes},
                              {"adamw", adamw, adamw_bytes},
                              {"adamw_8bit", adamw_8bit, adamw_8bit_bytes}};

}  // namespace

const MixedOp* mixed_op(const char* name) noexcept {
  for (const MixedOp& m : kMixed)
    if (std::strcmp(m.name, name) == 0) return &m;
  return nullptr;
}

}  // namespace temper::binding
