// node-addon-api in a few words: read arguments, define functions, turn an Error into a JavaScript Error with a code.
// Never computes.
#pragma once
#include <napi.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "temper/error.h"
#include "temper/tensor.h"

namespace temper::binding {

// The arguments of one call from JavaScript.
class Call {
 public:
  Call(const Napi::CallbackInfo& info, const char* name, size_t wanted) : info_(info), name_(name) {
    require(info.Length() >= wanted, "bad_argument", name, ": got ", info.Length(), " arguments, wanted ", wanted);
  }
  double number(int i) const {
    const Napi::Value v = value(i);
    wanted(v.IsNumber(), i, "a number");
    return v.As<Napi::Number>().DoubleValue();
  }
  int64_t integer(int i) const {
    double v = number(i);
    wanted(v == std::floor(v) && std::fabs(v) <= 9007199254740992.0, i, "an integer");
    return static_cast<int64_t>(v);
  }
  uint64_t size(int i) const {
    int64_t v = integer(i);
    wanted(v >= 0, i, "an integer from 0");
    return static_cast<uint64_t>(v);
  }
  bool boolean(int i) const;
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
    wanted(b.element == static_cast<int>(sizeof(T)), i, "a typed array of another element size");
    return {static_cast<const T*>(b.data), b.size / sizeof(T)};
  }
  Napi::Env env() const { return info_.Env(); }

 private:
  Napi::Value value(int i) const { return info_[static_cast<size_t>(i)]; }
  // What an error says is made when there is one: hundreds of arguments are read for a token.
  void wanted(bool is, int i, const char* what) const {
    require(is, "bad_argument", name_, ": argument ", i + 1, " is not ", what);
  }
  const Napi::CallbackInfo& info_;
  const char* name_;
};

// In a catch block: throws what was caught as a JavaScript Error with its code. The one place where native exceptions
// end.
void rethrow_to_js(napi_env env) noexcept;

// `F`: a function of Napi::CallbackInfo that returns a value or nothing.
template <auto F>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    if constexpr (std::is_void_v<decltype(F(info))>) F(info);
    else return F(info);
  } catch (...) {
    rethrow_to_js(info.Env());
  }
  return {};
}
template <auto F>
void define(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<guarded<F>>(exports.Env(), name));
}

inline Napi::Number js_number(Napi::Env env, double value) { return Napi::Number::New(env, value); }

// Each file of the binding adds its functions.
void define_ops(Napi::Object exports);
void define_tensors(Napi::Object exports);
void define_machine(Napi::Object exports);
void define_bpe(Napi::Object exports);
void define_device(Napi::Object exports);
void define_recording(Napi::Object exports);
void define_plan(Napi::Object exports);

}  // namespace temper::binding
