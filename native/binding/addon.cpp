// The addon's entry: one call per JavaScript environment (main thread, each worker). Start reading at
// src/native/addon.ts.
#include "binding/environment.h"
#include "binding/js.h"

namespace temper::binding {
namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  try {
    exports.Set("args", open_environment(env));
    define_tensors(exports);
    define_ops(exports);
    define_machine(exports);
    define_bpe(exports);
    define_device(exports);
    define_recording(exports);
    define_plan(exports);
  } catch (...) {
    rethrow_to_js(env);
  }
  return exports;
}

}  // namespace

NODE_API_MODULE(temper, init)

}  // namespace temper::binding
