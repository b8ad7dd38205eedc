// One JavaScript environment, the main thread's or a worker's: what it shares with native code, and its end.
#pragma once
#include <napi.h>

namespace temper::binding {

struct Environment {
  double* args = nullptr;  // the argument block of ops
  Napi::Reference<Napi::TypedArray> held;
};

// Made when the addon is loaded. Throws Error{"bad_argument"} when the environment is closing.
Environment& environment(Napi::Env env);
// What tells an environment from others: the owner of what it makes in a Registry.
inline const void* owner(Napi::Env env) { return &environment(env); }
// @returns the argument block as JavaScript sees it
Napi::Value open_environment(Napi::Env env);

}  // namespace temper::binding
