#include "binding/environment.h"

#include <atomic>

#include "binding/recording.h"
#include "binding/registry.h"

namespace temper::binding {
namespace {

std::atomic<LeftBehind*> newest{nullptr};

void stays(Napi::Env, Environment*) {}
void close(Environment* env) {
  end_environment(env);
  delete env;
}

}  // namespace

LeftBehind::LeftBehind() : older_(newest.load()) {
  while (!newest.compare_exchange_weak(older_, this)) {}
}

void end_environment(const void* env) noexcept {
  abandon_recording();  // what it took is nobody's entry yet
  for (LeftBehind* kind = newest; kind; kind = kind->older_) kind->end(env);
}

Environment& environment(Napi::Env env) {
  auto* mine = env.GetInstanceData<Environment>();
  require(mine != nullptr, "bad_argument", "the environment is closing");
  return *mine;
}

Napi::Value open_environment(Napi::Env env) {
  Napi::Float64Array args = Napi::Float64Array::New(env, Pins::kMax);
  auto* mine = new Environment{args.Data(), Napi::Persistent<Napi::TypedArray>(args)};
  env.SetInstanceData<Environment, stays>(mine);
  env.AddCleanupHook(close, mine);
  return args;
}

}  // namespace temper::binding
