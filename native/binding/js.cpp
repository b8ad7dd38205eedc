#include "binding/js.h"

#include <new>

namespace temper::binding {

bool Call::boolean(int i) const {
  require(value(i).IsBoolean(), "bad_argument", name_, ": argument ", i + 1, " is not a boolean");
  return value(i).As<Napi::Boolean>().Value();
}

std::string Call::text(int i) const {
  wanted(value(i).IsString(), i, "a string");
  return value(i).As<Napi::String>().Utf8Value();
}

int Call::shape_values(int i, int64_t (&out)[kMaxDims]) const {
  wanted(value(i).IsArray(), i, "an array of dimensions");
  const auto dimensions = value(i).As<Napi::Array>();
  const uint32_t length = dimensions.Length();
  wanted(length <= kMaxDims, i, "a shape of at most 4 dimensions");
  uint64_t numel = 1;
  for (uint32_t k = 0; k < length; ++k) {
    const Napi::Value element = dimensions[k];
    wanted(element.IsNumber(), i, "an array of numbers");
    const double v = element.As<Napi::Number>().DoubleValue();
    wanted(v >= 0 && v <= 9007199254740992.0 && v == std::floor(v), i, "a shape of integers from 0");
    out[k] = static_cast<int64_t>(v);
    require(!__builtin_mul_overflow(numel, static_cast<uint64_t>(out[k] ? out[k] : 1), &numel) &&
                numel <= (uint64_t{1} << 46),
            "out_of_memory", name_, ": the shape has more elements than any machine has memory");
  }
  return static_cast<int>(length);
}

Tensor Call::shape(int dtype_index, int shape_index) const {
  int64_t dtype = integer(dtype_index);
  require(dtype >= 0 && dtype <= 3, "bad_dtype", name_, ": argument ", dtype_index + 1, " is not a dtype number (0…3)");
  Tensor t;
  t.dtype = static_cast<DType>(dtype);
  t.ndim = shape_values(shape_index, t.shape);
  return t;
}

Call::Bytes Call::bytes(int i) const {
  const Napi::Value v = value(i);
  if (v.IsTypedArray()) {
    // Raw: Napi::TypedArray finds its bytes through the ArrayBuffer, and a SharedArrayBuffer is none.
    const auto array = v.As<Napi::TypedArray>();
    Bytes b{nullptr, 0, array.ElementSize()};
    size_t length = 0;
    wanted(napi_get_typedarray_info(env(), array, nullptr, &length, &b.data, nullptr, nullptr) == napi_ok, i,
           "a typed array");
    b.size = length * static_cast<size_t>(b.element);
    return b;
  }
  wanted(v.IsDataView(), i, "a typed array or DataView");
  Bytes b{nullptr, 0, 1};
  wanted(napi_get_dataview_info(env(), v, &b.size, &b.data, nullptr, nullptr) == napi_ok, i, "a DataView");
  return b;
}

namespace {

void throw_error(napi_env env, const char* code, const char* message) noexcept {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) return;
  napi_throw_error(env, code, message);  // fails in a worker that is being terminated, which runs no JavaScript anyway
}

}  // namespace

void rethrow_to_js(napi_env env) noexcept {
  try {
    throw;
  } catch (const Error& e) {
    throw_error(env, e.code.c_str(), e.message.c_str());
  } catch (const Napi::Error& e) {
    // Not ThrowAsJavaScriptException: where nothing can be thrown any more it ends the process.
    try {
      napi_throw(env, e.Value());
    } catch (const Napi::Error&) {}
  } catch (const std::bad_alloc&) {
    throw_error(env, "out_of_memory", "the host has no memory left");
  } catch (const std::exception& e) {
    throw_error(env, "internal", e.what());
  } catch (...) {
    throw_error(env, "internal", "unknown native error");
  }
}

}  // namespace temper::binding
