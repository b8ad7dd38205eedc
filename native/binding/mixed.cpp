// Ops with tensors in both places. The embedding table is large and read by a few rows, so it may stay where the file maps it; its rows are gathered by the CPU.
#include <algorithm>
#include <cstring>

#include "binding/device.h"
#include "cpu/ops.h"

namespace temper::binding {
namespace {

constexpr int64_t kStageElements = int64_t{1} << 22;

// An argument's values in host memory.
template <class T> class OnHost {
 public:
  OnHost(const TemperBackend& backend, TensorRef t, bool on_device) : copy_(on_device ? static_cast<size_t>(t->numel()) : 0), tensor_(*t) {
    if (!on_device) return;
    must(backend, backend.download(copy_.data(), t->data, t->bytes()));
    tensor_.data = copy_.data();
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  Scratch<T> copy_;
  Tensor tensor_;
};

// embedding_fwd(y, table, ids): y on the device, the table on the host, ids anywhere.
void embedding_fwd(const TemperBackend& backend, const TensorRef* t, const bool* on_device, const double*) {
  const Tensor& y = *t[0];
  const OnHost<int32_t> ids(backend, t[2], on_device[2]);
  const int64_t T = y.shape[0], D = y.shape[1], step = std::max<int64_t>(1, kStageElements / std::max<int64_t>(1, D));
  Scratch<float> rows(static_cast<size_t>(std::min(T, step) * D));
  for (int64_t from = 0; from < T; from += step) {
    Tensor part = y, some = ids.tensor();
    part.data = rows.data();
    part.shape[0] = some.shape[0] = std::min(step, T - from);
    some.data = some.i32() + from;
    if (cpu::table().embedding_fwd(&part, t[1], &some)) throw Error(last_error());
    must(backend, backend.upload(y.f32() + from * D, rows.data(), part.bytes()));
  }
}

constexpr MixedOp kMixed[] = {{"embedding_fwd", 1u << 1 | 1u << 2, embedding_fwd}};

}  // namespace

const MixedOp* mixed_op(const char* name) noexcept {
  for (const MixedOp& m : kMixed)
    if (std::strcmp(m.name, name) == 0) return &m;
  return nullptr;
}

}  // namespace temper::binding
