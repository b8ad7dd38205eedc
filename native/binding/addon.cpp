// The addon's entry: one call per JavaScript environment (main thread, each worker). Start reading at
// src/native/addon.ts.
#include "binding/js.h"

namespace {

napi_value init(napi_env env, napi_callback_info) {
  napi_value exports;
  temper::binding::ok(napi_create_object(env, &exports), "exports");
  temper::binding::define_tensors(env, exports);
  temper::binding::define_ops(env, exports);
  temper::binding::define_machine(env, exports);
  temper::binding::define_bpe(env, exports);
  temper::binding::define_device(env, exports);
  temper::binding::define_recording(env, exports);
  return exports;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value) {
  return temper::binding::guarded<init>(env, nullptr);
}
extern "C" __attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1() { return NAPI_VERSION; }
