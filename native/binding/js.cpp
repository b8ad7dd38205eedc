#include "binding/js.h"

namespace temper::binding {

std::string Call::text(int i) const {
  size_t length = 0;
  ok(napi_get_value_string_utf8(env, values_[i], nullptr, 0, &length), where(i, "a string").c_str());
  std::string out(length, '\0');
  ok(napi_get_value_string_utf8(env, values_[i], out.data(), length + 1, &length), where(i, "a string").c_str());
  return out;
}

int Call::shape_values(int i, int64_t (&out)[kMaxDims]) const {
  uint32_t length = 0;
  ok(napi_get_array_length(env, values_[i], &length), where(i, "an array of dimensions").c_str());
  require(length <= kMaxDims, "bad_argument", where(i, "a shape of at most 4 dimensions"));
  uint64_t numel = 1;
  for (uint32_t k = 0; k < length; ++k) {
    napi_value element;
    double v = -1;
    ok(napi_get_element(env, values_[i], k, &element), where(i, "an array of dimensions").c_str());
    ok(napi_get_value_double(env, element, &v), where(i, "an array of numbers").c_str());
    require(v >= 0 && v <= 9007199254740992.0 && v == std::floor(v), "bad_argument",
            where(i, "a shape of integers from 0"));
    out[k] = static_cast<int64_t>(v);
    require(!__builtin_mul_overflow(numel, static_cast<uint64_t>(out[k] ? out[k] : 1), &numel) &&
                numel <= (uint64_t{1} << 46),
            "out_of_memory", name_, ": the shape has more elements than any machine has memory");
  }
  return static_cast<int>(length);
}

Tensor Call::shape(int dtype_index, int shape_index) const {
  int64_t dtype = integer(dtype_index);
  require(dtype >= 0 && dtype <= 3, "bad_dtype", where(dtype_index, "a dtype number (0…3)"));
  Tensor t;
  t.dtype = static_cast<DType>(dtype);
  t.ndim = shape_values(shape_index, t.shape);
  return t;
}

Call::Bytes Call::bytes(int i) const {
  bool is = false;
  Bytes b{nullptr, 0, 1};
  napi_value buffer;
  size_t offset;
  if (napi_is_typedarray(env, values_[i], &is) == napi_ok && is) {
    napi_typedarray_type type;
    size_t length;
    ok(napi_get_typedarray_info(env, values_[i], &type, &length, &b.data, &buffer, &offset),
       where(i, "a typed array").c_str());
    switch (type) {
      case napi_int8_array:
      case napi_uint8_array:
      case napi_uint8_clamped_array: b.element = 1; break;
      case napi_int16_array:
      case napi_uint16_array: b.element = 2; break;
      case napi_int32_array:
      case napi_uint32_array:
      case napi_float32_array: b.element = 4; break;
      default: b.element = 8; break;
    }
    b.size = length * b.element;
    return b;
  }
  require(napi_is_dataview(env, values_[i], &is) == napi_ok && is, "bad_argument",
          where(i, "a typed array or DataView"));
  ok(napi_get_dataview_info(env, values_[i], &b.size, &b.data, &buffer, &offset), where(i, "a DataView").c_str());
  return b;
}

napi_value js_number(napi_env env, double value) {
  napi_value v;
  ok(napi_create_double(env, value, &v), "number");
  return v;
}
napi_value js_string(napi_env env, const std::string& value) {
  napi_value v;
  ok(napi_create_string_utf8(env, value.data(), value.size(), &v), "string");
  return v;
}
void set(napi_env env, napi_value object, const char* name, napi_value value) {
  ok(napi_set_named_property(env, object, name, value), name);
}

void throw_js(napi_env env, const Error& error) noexcept {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) return;
  napi_throw_error(env, error.code.c_str(), error.message.c_str());
}

const void* env_key(napi_env env) {
  void* data = nullptr;
  ok(napi_get_instance_data(env, &data), "the environment is closing");
  return data;
}

}  // namespace temper::binding
