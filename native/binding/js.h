// Node-API in a few words: read arguments, make values, turn an Error into a JavaScript Error with a code. Never
// computes.
#pragma once
#include <node_api.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "temper/error.h"
#include "temper/tensor.h"

namespace temper::binding {

inline void ok(napi_status status, const char* what) {
  if (status != napi_ok) [[unlikely]]
    fail("bad_argument", what);
}

// The arguments of one call from JavaScript.
class Call {
 public:
  static constexpr size_t kMax = 8;
  Call(napi_env env, napi_callback_info info, const char* name, size_t wanted) : env(env), name_(name) {
    size_t count = kMax;
    ok(napi_get_cb_info(env, info, &count, values_, nullptr, nullptr), "arguments cannot be read");
    require(count >= wanted, "bad_argument", name, ": got ", count, " arguments, wanted ", wanted);
  }
  double number(int i) const {
    double v;
    ok(napi_get_value_double(env, values_[i], &v), where(i, "a number").c_str());
    return v;
  }
  int64_t integer(int i) const {
    double v = number(i);
    require(v == std::floor(v) && std::fabs(v) <= 9007199254740992.0, "bad_argument", where(i, "an integer"));
    return static_cast<int64_t>(v);
  }
  uint64_t size(int i) const {
    int64_t v = integer(i);
    require(v >= 0, "bad_argument", where(i, "an integer from 0"));
    return static_cast<uint64_t>(v);
  }
  std::string text(int i) const;
  // dtype and shape arguments; the product of the shape fits 2^46 bytes.
  Tensor shape(int dtype_index, int shape_index) const;
  int shape_values(int i, int64_t (&out)[kMaxDims]) const;
  struct Bytes {
    void* data;
    size_t size;
    int element;
  };
  // Any typed array, Buffer or DataView; `element` is the size of its elements (1 for a DataView).
  Bytes bytes(int i) const;
  template <class T>
  std::pair<const T*, size_t> array(int i) const {
    Bytes b = bytes(i);
    require(b.element == static_cast<int>(sizeof(T)), "bad_argument",
            where(i, "a typed array of another element size"));
    return {static_cast<const T*>(b.data), b.size / sizeof(T)};
  }
  napi_value value(int i) const { return values_[i]; }

  napi_env env;

 private:
  std::string where(int i, const char* wanted) const {
    return std::string(name_) + ": argument " + std::to_string(i + 1) + " is not " + wanted;
  }
  const char* name_;
  napi_value values_[kMax];
};

napi_value js_number(napi_env env, double value);
napi_value js_string(napi_env env, const std::string& value);
void set(napi_env env, napi_value object, const char* name, napi_value value);
void throw_js(napi_env env, const Error& error) noexcept;

// Per environment: main thread or worker.
struct Env {
  double* args;  // the argument block shared with JavaScript
};
const void* env_key(napi_env env);  // what tells an environment from others

// Wraps `napi_value f(napi_env, napi_callback_info)`: the one place where native exceptions end.
template <napi_value (*F)(napi_env, napi_callback_info)>
napi_value guarded(napi_env env, napi_callback_info info) noexcept {
  try {
    return F(env, info);
  } catch (const Error& e) {
    throw_js(env, e);
  } catch (const std::bad_alloc&) {
    throw_js(env, Error("out_of_memory", "the host has no memory left"));
  } catch (const std::exception& e) {
    throw_js(env, Error("internal", e.what()));
  } catch (...) {
    throw_js(env, Error("internal", "unknown native error"));
  }
  return nullptr;
}
template <napi_value (*F)(napi_env, napi_callback_info)>
void define(napi_env env, napi_value exports, const char* name) {
  napi_value f;
  ok(napi_create_function(env, name, NAPI_AUTO_LENGTH, guarded<F>, nullptr, &f), name);
  set(env, exports, name, f);
}

// Each file of the binding adds its functions.
void define_ops(napi_env env, napi_value exports);
void define_tensors(napi_env env, napi_value exports);
void define_machine(napi_env env, napi_value exports);
void define_bpe(napi_env env, napi_value exports);
void define_device(napi_env env, napi_value exports);
void define_recording(napi_env env, napi_value exports);

}  // namespace temper::binding
