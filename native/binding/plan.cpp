// Dry runs as JavaScript sees them: between the two calls this thread's tensors and ops are the plan's (native/plan).
#include "plan/plan.h"

#include <algorithm>

#include "binding/js.h"

namespace temper::binding {
namespace {

void begin_plan(const Napi::CallbackInfo&) { plan::begin(); }
// endPlan() → Float64Array, as src/native/plan.ts reads it.
Napi::Value end_plan(const Napi::CallbackInfo& info) {
  const auto run = plan::end();
  require(run != nullptr, "bad_argument", "endPlan: no dry run is under way");
  const std::vector<double> report = run->report();
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), report.size());
  std::ranges::copy(report, out.Data());
  return out;
}

}  // namespace

void define_plan(Napi::Object exports) {
  define<begin_plan>(exports, "beginPlan");
  define<end_plan>(exports, "endPlan");
}

}  // namespace temper::binding
